//! Rules for a replication link from the answer to `PSYNC` on.

use redweir::core::argv::Args;
use redweir::core::position::{Offset, ReplId};
use redweir::wire::psync::{PsyncDecoder, PsyncError, PsyncEvent};

/// Where the link was asked to begin.
const AT: u64 = 1000;

/// What the link told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Continued(ReplId),
    FullResync(ReplId, u64),
    DumpEnded,
    Command(Vec<Vec<u8>>, u64),
}

/// What was told, the position then, whether the stream has begun, and the error.
pub(crate) type Found = (Vec<Told>, u64, bool, Option<PsyncError>);

/// Decodes `input` as it arrives in pieces of this length.
pub(crate) fn decode(input: &[u8], piece: usize) -> Found {
    let asked = ReplId::parse(&[b'a'; 40]).expect("forty letters");
    let mut decoder = PsyncDecoder::new(asked, Offset::new(AT));
    let (mut told, mut error) = (Vec::new(), None);
    for part in input.chunks(piece.max(1)) {
        let mut tell = |event: PsyncEvent<'_>| {
            told.push(match event {
                PsyncEvent::Continued(id) => Told::Continued(id),
                PsyncEvent::FullResync(id, at) => Told::FullResync(id, at.bytes()),
                PsyncEvent::DumpEnded => Told::DumpEnded,
                PsyncEvent::Command(command, end) => {
                    let args = (0..command.count().min(1000)).map(|n| command.arg(n).to_vec());
                    Told::Command(args.collect(), end.bytes())
                }
            });
        };
        error = decoder.feed(part, &mut tell).err();
        if error.is_some() {
            break;
        }
    }
    (told, decoder.position().bytes(), decoder.is_streaming(), error)
}

/// The events do not depend on the pieces or on keep-alives before the answer; they come in the order of the contract,
/// and the positions are those of the bytes of the stream.
pub(crate) fn check(input: &[u8]) {
    let whole = decode(input, input.len());
    let step = usize::from(input.first().copied().unwrap_or(0)) % 13 + 2;
    assert_eq!(decode(input, step), whole, "in pieces of {step}");
    if input.len() <= 4096 {
        assert_eq!(decode(input, 1), whole, "byte by byte");
    }
    let (told, position, streaming, error) = whole;
    let later = decode(&[b"\n\r\n", input].concat(), input.len() + 3);
    assert_eq!(later, (told, position, streaming, error), "newlines before the answer say nothing");

    let (told, ..) = later;
    let (begin, commands) = match told.as_slice() {
        [] => (AT, &[][..]),
        [Told::Continued(_), commands @ ..] => (AT, commands),
        [Told::FullResync(_, at)] => (*at, &[][..]),
        [Told::FullResync(_, at), Told::DumpEnded, commands @ ..] => (*at, commands),
        other => panic!("out of order: {other:?}"),
    };
    let most = begin.saturating_add(input.len() as u64);
    assert!((begin..=most).contains(&position), "{position} is not between {begin} and {most}");
    let mut last = begin;
    for command in commands {
        let Told::Command(_, end) = command else { panic!("out of order: {command:?}") };
        assert!(last <= *end && *end <= position);
        last = *end;
    }
    assert!(streaming || commands.is_empty());
}
