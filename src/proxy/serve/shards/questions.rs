//! What servers are asked so that a client begins, or ends, to listen to them: the questions of one command, in their order.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;

use super::parts::To;
use crate::core::argv::Args as _;
use crate::core::command::{Handling, Intent, Stateful};
use crate::core::moment::Moment;
use crate::core::slots::{Expected, HashSlot, ShardIndex};
use crate::proxy::downstream::channels::{Asked, may_be_of_keyspace};
use crate::wire::request::Request;
use crate::wire::say;

/// What is being asked, in its order.
#[derive(Default)]
pub(super) struct Listening {
    pub(super) questions: VecDeque<Question>,
    /// By the client itself.
    pub(super) by_client: bool,
    /// What is taken back if it is refused: channels of keyspace events, or (`true`) patterns.
    pub(super) begun: (bool, Vec<Vec<u8>>),
    /// One has been put, and is not looked after yet.
    pub(super) is_put: bool,
    /// What no server had is asked again then …
    pub(super) again_at: Option<Moment>,
    /// … and is since then.
    pub(super) wanted_since: Option<Moment>,
}

/// A question, or what stands for some.
pub(super) struct Question {
    pub(super) what: What,
    /// The client has not asked it, or is told by another one what comes of it.
    pub(super) quiet: bool,
}

pub(super) enum What {
    /// A command, said there.
    Said(To, Vec<u8>),
    /// These shard channels are left, wherever they are.
    Left(Vec<Vec<u8>>),
}

/// Whether a command begins or ends a subscription.
pub(super) fn listens(intent: Intent) -> bool {
    matches!(intent.handling, Handling::Pin(Stateful::Subscribe | Stateful::Unsubscribe))
}

/// Whether a command subscribes to what every primary tells of.
pub(super) fn hears_keyspace(request: &Request<'_>) -> bool {
    let pattern = request.arg(0).eq_ignore_ascii_case(b"psubscribe");
    let subscribes = pattern || request.arg(0).eq_ignore_ascii_case(b"subscribe");
    subscribes && (1..request.count()).any(|at| may_be_of_keyspace(pattern, request.arg(at)))
}

/// Shard channels, those that follow each other in one slot together.
pub(super) fn subscriptions(names: Vec<Vec<u8>>, quiet: bool) -> impl Iterator<Item = Question> {
    let mut runs: Vec<(HashSlot, Vec<Vec<u8>>)> = Vec::new();
    for name in names {
        let slot = HashSlot::of(&name);
        match runs.last_mut() {
            Some((last, names)) if *last == slot => names.push(name),
            _ => runs.push((slot, vec![name])),
        }
    }
    runs.into_iter().map(move |(slot, names)| {
        let to = To::Slot { slot, expected: Expected::Unseen };
        Question { what: What::Said(to, said(b"SSUBSCRIBE", &names)), quiet }
    })
}

/// The command for each of these shards, of which the client does not hear.
pub(super) fn everywhere<'a>(
    shards: &BTreeSet<ShardIndex>,
    word: &'a [u8],
    names: &'a [Vec<u8>],
) -> impl Iterator<Item = Question> + use<'a> {
    let shards: Vec<ShardIndex> = shards.iter().filter(|_| !names.is_empty()).copied().collect();
    let to = move |shard| Question { what: What::Said(To::Shard(shard), said(word, names)), quiet: true };
    shards.into_iter().map(to)
}

pub(super) fn asked(request: &Request<'_>, by_client: bool) -> Asked {
    let is = |word: &[u8]| request.arg(0).eq_ignore_ascii_case(word);
    let names = || (1..request.count()).map(|at| request.arg(at).to_vec());
    let mut asked = Asked { by_client, ..Asked::default() };
    if is(b"ssubscribe") {
        asked.channels = names().collect();
    } else if is(b"sunsubscribe") {
        asked.leaving = names().collect();
    }
    asked
}

pub(super) fn said(word: &[u8], names: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let words: Vec<&[u8]> = std::iter::once(word).chain(names.iter().map(Vec::as_slice)).collect();
    say::command(&mut bytes, &words);
    bytes.to_vec()
}
