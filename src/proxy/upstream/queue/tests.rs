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
use crate::core::slots::{Expected, ShardIndex};
use crate::net::runtime::flush::{DirtyList, Schedule};
use crate::net::socket::halves::WriteHalf;
use crate::proxy::downstream::replies::{Client, Gone, Output};
use crate::proxy::upstream::load::Load;
use crate::proxy::upstream::pending::{Pending, Rewrite};

fn output() -> Output {
    let dirty = DirtyList::new(&Rc::<Schedule>::default());
    Output { dirty, buffers: Rc::default(), budget: Arc::default(), gathers: false }
}

fn client(id: u64) -> Rc<Client> {
    Client::new(id, WriteHalf::nowhere(), output(), 1 << 20)
}

fn pending(client: &Rc<Client>, seq: u64, kind: PendingKind, slot: Option<Slot>) -> Pending {
    Pending {
        shard: ShardIndex::FIRST,
        redirected: 0,
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
        expected: Expected::Anything,
        need: None,
        void: false,
        shares: false,
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

/// Takes a read of the primary, or has another one ask for it.
fn share(queue: &mut RequestQueue, client: &Rc<Client>, seq: u64, bytes: &[u8]) -> bool {
    let read = pending(client, seq, PendingKind::Read, None);
    queue.push_shared(Pending { at_primary: true, ..read }, |buffer| buffer.extend_from_slice(bytes))
}

fn pop_shared(queue: &mut RequestQueue, again: bool) -> Option<(Pending, Option<bytes::BytesMut>)> {
    queue.remember_shared();
    queue.pop(|_, _| again)
}

/// A client that is answered, and its request, if that is to be sent again.
type Answered = (u64, Option<Vec<u8>>);

/// Who is answered by how many requests.
fn answer_all(queue: &mut RequestQueue, again: bool) -> (Vec<Answered>, usize) {
    let (mut answered, mut replies) = (Vec::new(), 0);
    while let Some((pending, request)) = pop_shared(queue, again) {
        replies += 1;
        answered.push((pending.client.id, request.map(|bytes| bytes.to_vec())));
        while queue.takes_next_sharer() {
            let (pending, request) = pop_shared(queue, again).unwrap();
            answered.push((pending.client.id, request.map(|_| queue.shared_request().to_vec())));
        }
    }
    (answered, replies)
}

#[test]
fn one_request_asks_for_the_same_read_of_several() {
    let (mut queue, [alice, bob, carol, dave]) = (empty(), [1, 2, 3, 4].map(client));
    assert!(!share(&mut queue, &alice, 0, b"get hot"));
    push(&mut queue, pending(&bob, 0, PendingKind::Write, None), b"set hot");
    assert!(share(&mut queue, &carol, 0, b"get hot"), "the write is not executed yet, either");
    assert!(!share(&mut queue, &dave, 0, b"get odd"));
    assert!(share(&mut queue, &bob, 1, b"get odd"));
    assert_eq!(queue.clients(), [(1, false), (3, true), (2, false), (4, false), (2, true)]);
    assert_eq!(write(&mut queue, 21), b"get hotset hotget odd");
    assert!(!share(&mut queue, &dave, 1, b"get odd"), "the server has that one already");
    queue.wrote(7);
    let (answered, replies) = answer_all(&mut queue, false);
    assert_eq!(answered.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2, 4, 2, 4]);
    assert_eq!((replies, queue.bytes(), queue.len()), (4, 0, 0));
}

#[test]
fn what_was_offered_and_what_writes_is_not_shared() {
    let (mut queue, [alice, bob]) = (empty(), [1, 2].map(client));
    share(&mut queue, &alice, 0, b"get hot");
    queue.refused(7);
    assert!(!share(&mut queue, &bob, 0, b"get hot"), "TLS may have encrypted it");
    let mut queue = empty();
    push(&mut queue, pending(&alice, 0, PendingKind::Write, None), b"incr a");
    assert!(!share(&mut queue, &bob, 0, b"incr a"));
    let mut queue = empty();
    push(&mut queue, pending(&alice, 0, PendingKind::Read, None), b"get hot");
    assert!(!share(&mut queue, &bob, 0, b"get hot"), "that is a replica's");
    let mut queue = empty();
    share(&mut queue, &alice, 0, b"get hot");
    queue.void_reads();
    assert!(!share(&mut queue, &bob, 0, b"get hot"), "that one is asked anew elsewhere");
}

#[test]
fn who_shares_a_request_has_its_bytes_when_it_is_sent_again() {
    let (mut queue, [alice, bob, carol]) = (empty(), [1, 2, 3].map(client));
    for client in [&alice, &bob, &carol] {
        share(&mut queue, client, 0, b"get hot");
    }
    push(&mut queue, pending(&alice, 1, PendingKind::Read, None), b"other");
    write(&mut queue, 7);
    let hot = Some(b"get hot".to_vec());
    assert_eq!(answer_all(&mut queue, true).0, [(1, hot.clone()), (2, hot.clone()), (3, hot)]);
    let mut queue = empty();
    for client in [&alice, &bob, &carol] {
        share(&mut queue, client, 0, b"get hot");
    }
    push(&mut queue, pending(&alice, 1, PendingKind::Read, None), b"other");
    write(&mut queue, 8);
    pop_shared(&mut queue, false).unwrap();
    let left: Vec<_> = queue.drain().into_iter().map(|l| (l.pending.client.id, l.request, l.sent)).collect();
    let hot = || bytes::BytesMut::from(&b"get hot"[..]);
    assert_eq!(left, [(2, hot(), true), (3, hot(), true), (1, bytes::BytesMut::from(&b"other"[..]), false)]);
    assert!(!queue.takes_next_sharer());
}

#[test]
fn when_who_asks_has_left_the_next_one_asks() {
    let (mut queue, [alice, bob, carol]) = (empty(), [1, 2, 3].map(client));
    for client in [&alice, &bob, &carol] {
        share(&mut queue, client, 0, b"get hot");
    }
    push(&mut queue, pending(&bob, 1, PendingKind::Read, None), b"other");
    alice.leave(Gone::Left);
    queue.withdraw(&alice);
    assert_eq!(queue.clients(), [(2, false), (3, true), (2, false)]);
    bob.leave(Gone::Left);
    queue.withdraw(&bob);
    assert_eq!(queue.clients(), [(3, false)]);
    assert_eq!((write(&mut queue, 7), queue.unsent()), (b"get hot".to_vec(), 0));
    // What the server was asked it answers, whoever is there.
    carol.leave(Gone::Left);
    queue.withdraw(&carol);
    assert_eq!(answer_all(&mut queue, false), (vec![(3, None)], 1));
}

#[test]
fn a_long_reply_is_of_who_asked_and_the_others_are_asked_for_anew() {
    let (mut queue, [alice, bob, carol], drain) = (empty(), [1, 2, 3].map(client), Client::drain(output()));
    for client in [&alice, &bob, &carol] {
        share(&mut queue, client, 0, b"get big");
    }
    write(&mut queue, 7);
    carol.leave(Gone::Left);
    let taken: Vec<_> = queue.take_sharers().into_iter().map(|(p, bytes)| (p.client.id, bytes)).collect();
    assert_eq!(taken, [(2, bytes::BytesMut::from(&b"get big"[..]))]);
    assert_eq!((queue.clients(), queue.len()), (vec![(1, false)], 1));
    // Or they make way, before that.
    let mut queue = empty();
    for client in [&alice, &bob] {
        share(&mut queue, client, 0, b"get big");
    }
    write(&mut queue, 7);
    let taken: Vec<_> =
        queue.take_others(&drain, true).into_iter().map(|(p, bytes)| (p.client.id, bytes)).collect();
    assert_eq!(taken, [(2, bytes::BytesMut::from(&b"get big"[..]))]);
    let (answered, replies) = answer_all(&mut queue, false);
    assert_eq!((answered.len(), answered[0].0, replies), (2, 1, 1), "the second is a tombstone");
}
