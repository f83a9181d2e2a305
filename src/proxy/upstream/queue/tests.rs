//! Unit tests of the request queue: order, cuts, tombstones, what is left.

use std::rc::Rc;
use std::sync::Arc;

use super::RequestQueue;
use crate::core::fence::{FenceTable, Slot};
use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::policy::PolicyId;
use crate::core::repeat::PendingKind;
use crate::core::session::Stamps;
use crate::net::runtime::flush::{DirtyList, Schedule};
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::replies::{Client, Gone, Output};
use crate::proxy::upstream::load::Load;
use crate::proxy::upstream::pending::{Pending, Rewrite};

fn output() -> Output {
    let dirty = DirtyList::new(&Rc::<Schedule>::default());
    Output { dirty, buffers: Rc::default(), budget: Arc::default() }
}

fn client(id: u64) -> Rc<Client> {
    Client::new(id, WriteHalf::nowhere(), output(), 1 << 20)
}

fn pending(client: &Rc<Client>, seq: u64, kind: PendingKind, slot: Option<Slot>) -> Pending {
    Pending {
        client: Rc::clone(client),
        seq,
        len: 0,
        access: crate::telemetry::AccessLabel::Other,
        kind,
        rewrite: Rewrite::None,
        policy: PolicyId::default(),
        stamps: slot.map_or(Stamps::None, Stamps::One),
        at_primary: false,
        sees_all: false,
        need: None,
        void: false,
        begun: Moment::default(),
        sent: Moment::default(),
    }
}

fn empty() -> RequestQueue {
    RequestQueue::new(Load::new(1).in_flight(NodeId(0)))
}

fn push(queue: &mut RequestQueue, pending: Pending, bytes: &[u8]) {
    queue.push(pending, |buffer| buffer.extend_from_slice(bytes));
}

/// Writes so many bytes, and returns them.
fn write(queue: &mut RequestQueue, count: usize) -> Vec<u8> {
    let bytes = queue.unsent_to(queue.writable(None))[..count].to_vec();
    queue.wrote(count);
    bytes
}

#[test]
fn replies_answer_in_the_order_of_the_requests() {
    let (mut queue, alice, bob) = (empty(), client(1), client(2));
    push(&mut queue, pending(&alice, 0, PendingKind::Read, None), b"one");
    push(&mut queue, pending(&bob, 7, PendingKind::Write, None), b"two");
    push(&mut queue, pending(&alice, 1, PendingKind::Read, None), b"three");
    assert_eq!(write(&mut queue, 11), b"onetwothree");
    let mut answered = Vec::new();
    while let Some((pending, request)) = queue.pop(|pending, _| pending.seq == 1) {
        answered.push((pending.client.id, pending.seq, request.map(|bytes| bytes.to_vec())));
    }
    assert_eq!(answered, [(1, 0, None), (2, 7, None), (1, 1, Some(b"three".to_vec()))]);
    assert_eq!((queue.len(), queue.bytes(), queue.unsent()), (0, 0, 0));
}

#[test]
fn what_is_not_asked_for_yet_has_no_reply() {
    let (mut queue, alice) = (empty(), client(1));
    assert!(queue.pop(|_, _| false).is_none());
    push(&mut queue, pending(&alice, 0, PendingKind::Read, None), b"request");
    write(&mut queue, 6);
    assert!(queue.pop(|_, _| false).is_none(), "its last byte is not written");
    write(&mut queue, 1);
    assert!(queue.pop(|_, _| false).is_some());
}

#[test]
fn a_window_holds_requests_back_but_takes_back_nothing_that_was_offered() {
    let (mut queue, alice) = (empty(), client(1));
    for seq in 0..4 {
        push(&mut queue, pending(&alice, seq, PendingKind::Read, None), b"xx");
    }
    assert_eq!([Some(1), Some(3), Some(4), None].map(|most| queue.writable(most)), [2, 6, 8, 8]);
    queue.wrote(1);
    queue.refused(6);
    assert_eq!((queue.writable(Some(1)), queue.offered()), (6, 6), "TLS may have encrypted it");
    write(&mut queue, 3);
    queue.pop(|_, _| false).unwrap();
    assert_eq!((queue.writable(Some(1)), queue.offered()), (4, 4));
}

#[test]
fn a_reply_that_has_begun_is_not_voided() {
    let (mut queue, alice) = (empty(), client(1));
    push(&mut queue, pending(&alice, 0, PendingKind::Read, None), b"long");
    push(&mut queue, pending(&alice, 1, PendingKind::Read, None), b"short");
    write(&mut queue, 9);
    queue.cut();
    queue.void_reads();
    assert!(!queue.pop(|_, _| false).unwrap().0.void);
    assert!(!queue.is_cut(), "the next reply has not begun");
    assert!(queue.pop(|_, _| false).unwrap().0.void);
}

#[test]
fn what_moves_leaves_a_tombstone_that_takes_its_reply() {
    let (mut queue, drain) = (empty(), Client::drain(output()));
    let (slow, other, gone, apart) = (client(1), client(2), client(3), client(4));
    push(&mut queue, pending(&slow, 0, PendingKind::Read, None), b"long");
    push(&mut queue, pending(&other, 4, PendingKind::Read, None), b"read");
    push(&mut queue, pending(&other, 5, PendingKind::Write, None), b"write");
    push(&mut queue, pending(&gone, 0, PendingKind::Read, None), b"left");
    push(&mut queue, pending(&slow, 1, PendingKind::Read, None), b"next");
    push(&mut queue, pending(&apart, 9, PendingKind::Read, None), b"late");
    gone.leave(Gone::Left);
    assert!(queue.is_in_the_way());
    let asked = write(&mut queue, 5);
    let taken = queue.take_others(&drain, true);
    let moved: Vec<_> =
        taken.iter().map(|(pending, bytes)| (pending.client.id, pending.seq, &bytes[..])).collect();
    assert_eq!(moved, [(2, 4, &b"read"[..]), (4, 9, b"late")]);
    let asked = [asked, write(&mut queue, 16)].concat();
    assert_eq!(
        asked, b"longreadwriteleftnext",
        "for what was not offered yet the server is not asked at all"
    );
    assert_eq!((queue.unsent(), queue.len()), (0, 5));
    let kinds: Vec<PendingKind> =
        std::iter::from_fn(|| queue.pop(|_, _| false)).map(|popped| popped.0.kind).collect();
    assert_eq!(
        kinds,
        [PendingKind::Read, PendingKind::Moved, PendingKind::Write, PendingKind::Read, PendingKind::Read]
    );
}

#[test]
fn what_somebody_who_left_has_yet_to_read_is_not_asked() {
    let (mut queue, left, other) = (empty(), client(1), client(2));
    push(&mut queue, pending(&left, 0, PendingKind::Read, None), b"asked");
    push(&mut queue, pending(&left, 1, PendingKind::Read, None), b"begun");
    push(&mut queue, pending(&left, 2, PendingKind::Final, None), b"never");
    push(&mut queue, pending(&other, 0, PendingKind::Read, None), b"other");
    push(&mut queue, pending(&left, 3, PendingKind::Write, None), b"write");
    push(&mut queue, pending(&left, 4, PendingKind::Read, None), b"never");
    let asked = write(&mut queue, 7);
    queue.refused(10);
    left.leave(Gone::Left);
    queue.withdraw(&left);
    assert!(!queue.is_for_nobody());
    assert_eq!([asked, write(&mut queue, 13)].concat(), b"askedbegunotherwrite");
    assert_eq!(queue.unsent(), 0);
    let seqs: Vec<u64> = std::iter::from_fn(|| queue.pop(|_, _| false)).map(|popped| popped.0.seq).collect();
    assert_eq!(seqs, [0, 1, 0, 3]);
    push(&mut queue, pending(&left, 5, PendingKind::Read, None), b"read");
    assert!(queue.is_for_nobody());
    push(&mut queue, pending(&left, 6, PendingKind::Write, None), b"write");
    assert!(
        !queue.is_for_nobody(),
        "what is lost may have been executed: that is told nobody, but is not risked"
    );
}

#[test]
fn reads_stay_with_a_write_of_the_same_key() {
    let fences = FenceTable::new(1 << 10, [1, 2, 3, 4]);
    let [a, b] = [b"a", b"b"].map(|key| fences.slot(key));
    assert_ne!(a, b);
    for (written, fencing, moves) in [(a, true, false), (b, true, true), (b, false, false)] {
        let (mut queue, drain) = (empty(), Client::drain(output()));
        let alice = client(1);
        push(&mut queue, pending(&alice, 0, PendingKind::Read, Some(a)), b"GET a");
        push(&mut queue, pending(&alice, 1, PendingKind::Write, Some(written)), b"SET");
        push(&mut queue, pending(&alice, 2, PendingKind::Final, None), b"PING");
        // One without a key is bound by any write.
        let moved: Vec<u64> =
            queue.take_own(&drain, fencing).iter().map(|(pending, _)| pending.seq).collect();
        assert!(moved.is_empty(), "{moved:?}");
        let mut queue = empty();
        push(&mut queue, pending(&alice, 3, PendingKind::Read, Some(a)), b"GET a");
        push(&mut queue, pending(&alice, 4, PendingKind::Write, Some(written)), b"SET");
        assert_eq!(queue.take_own(&drain, fencing).len(), usize::from(moves));
    }
}

#[test]
fn what_is_left_says_what_may_have_been_executed() {
    let (mut queue, alice) = (empty(), client(1));
    for (seq, bytes) in [&b"one"[..], b"two", b"three"].into_iter().enumerate() {
        push(&mut queue, pending(&alice, seq as u64, PendingKind::Write, None), bytes);
    }
    write(&mut queue, 5);
    queue.cut();
    let left = queue.drain();
    let told: Vec<_> = left.iter().map(|left| (&left.request[..], left.sent, left.cut)).collect();
    assert_eq!(told, [(&b"one"[..], true, true), (b"two", false, false), (b"three", false, false)]);
    assert_eq!((queue.len(), queue.bytes(), queue.unsent()), (0, 0, 0));
}

#[test]
fn a_streamed_command_is_let_go_as_it_is_written() {
    let (mut queue, alice) = (empty(), client(1));
    queue.push_beginning(pending(&alice, 0, PendingKind::Write, None), |buffer| {
        buffer.extend_from_slice(b"SET ");
    });
    let add = |bytes: &'static [u8], last| {
        move |buffer: &mut bytes::BytesMut| {
            buffer.extend_from_slice(bytes);
            Ok::<_, ()>((bytes.len(), last))
        }
    };
    assert_eq!(write(&mut queue, 4), b"SET ");
    queue.release_streamed();
    assert_eq!((queue.bytes(), queue.is_streamed()), (0, false));
    queue.stream(add(b"key", false)).unwrap();
    queue.stream(add(b" value", true)).unwrap();
    assert_eq!(write(&mut queue, 3), b"key");
    queue.release_streamed();
    assert!(!queue.is_streamed(), "some of it is not written");
    assert_eq!(write(&mut queue, 6), b" value");
    queue.release_streamed();
    assert!(queue.is_streamed());
    assert!(queue.pop(|_, _| false).is_some());
}

#[test]
fn a_connection_that_ends_takes_what_is_in_flight_with_it() {
    for drains in [true, false] {
        let (load, alice) = (Load::new(1), client(1));
        let mut queue = RequestQueue::new(load.in_flight(NodeId(0)));
        (0..3).for_each(|seq| push(&mut queue, pending(&alice, seq, PendingKind::Read, None), b"request"));
        assert_eq!(*load.per_node(1), [3]);
        write(&mut queue, 7);
        assert!(queue.pop(|_, _| false).is_some());
        assert_eq!(*load.per_node(1), [2]);
        if drains {
            assert_eq!(queue.drain().len(), 2);
            assert_eq!(*load.per_node(1), [0]);
        }
        drop(queue);
        assert_eq!(*load.per_node(1), [0]);
    }
}

#[test]
fn a_queue_that_never_runs_empty_keeps_every_byte_in_its_place() {
    let (mut queue, alice) = (empty(), client(1));
    let request = |seq: u64| [format!("{seq:04}").as_bytes(), &[b'x'; 300]].concat();
    let mut answered = 0;
    for seq in 0..1000 {
        push(&mut queue, pending(&alice, seq, PendingKind::Read, None), &request(seq));
        assert_eq!(write(&mut queue, 304), request(seq));
        if seq >= 3 {
            let (oldest, bytes) = queue.pop(|_, bytes| bytes == request(500)).expect("asked for");
            assert_eq!(
                (oldest.seq, bytes.map(|b| b.to_vec())),
                (answered, (answered == 500).then(|| request(500)))
            );
            answered += 1;
        }
        assert_eq!(queue.bytes(), queue.len() * 304);
    }
    let left: Vec<_> = queue.drain().into_iter().map(|left| left.request.to_vec()).collect();
    assert_eq!(left, [request(997), request(998), request(999)]);
}
