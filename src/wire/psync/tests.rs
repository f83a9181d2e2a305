//! Tests of the link: answers, dumps of both kinds, chunk borders.

use proptest::prelude::*;

use super::*;
use crate::core::argv::Args as _;

fn id(c: u8) -> ReplId {
    ReplId::parse(&[c; 40]).unwrap()
}

/// What was told, in words, and how it ended.
fn tell<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), PsyncError>) {
    let mut decoder = PsyncDecoder::new(id(b'a'), Offset::new(100));
    let mut told = Vec::new();
    for chunk in chunks {
        let result = decoder.feed(chunk, &mut |event| {
            told.push(match event {
                PsyncEvent::Continued(id) => format!("continue {}", &id.as_str()[..1]),
                PsyncEvent::FullResync(id, at) => format!("full {} {at}", &id.as_str()[..1]),
                PsyncEvent::DumpEnded => "dump ended".to_owned(),
                PsyncEvent::Command(command, end) => {
                    format!("{} {end}", String::from_utf8_lossy(command.arg(0)))
                }
            });
        });
        if result.is_err() {
            return (told, result);
        }
    }
    (told, Ok(()))
}

fn with_id(text: &str, c: u8) -> Vec<u8> {
    text.replace('#', id(c).as_str()).into_bytes()
}

#[test]
fn a_partial_resync_goes_on_after_the_offset_asked_for() {
    let (told, result) = tell([with_id("\n\n+CONTINUE #\r\n*1\r\n$4\r\nPING\r\n", b'b').as_slice()]);
    assert_eq!(result, Ok(()));
    assert_eq!(told, ["continue b", "PING 114"]);
    let (told, _) = tell([b"+CONTINUE\r\n".as_slice()]);
    assert_eq!(told, ["continue a"], "an old server names no history");
}

#[test]
fn a_dump_of_known_length_is_passed_over() {
    let link = with_id("\n+FULLRESYNC # 5000\r\n\n\n$9\r\nREDIS*1\r\n*1\r\n$4\r\nPING\r\n", b'b');
    for size in 1..=link.len() {
        let (told, result) = tell(link.chunks(size));
        assert_eq!(result, Ok(()));
        assert_eq!(told, ["full b 5000", "dump ended", "PING 5014"]);
    }
}

#[test]
fn a_marked_dump_is_passed_over_even_when_it_looks_like_its_mark() {
    let mark = "0123456789abcdef0123456789abcdef01234567";
    let dump = format!("REDIS{}{}{}{mark}", &mark[..39], &mark[..20], &mark[1..]);
    let link = with_id(&format!("+FULLRESYNC # 0\r\n$EOF:{mark}\r\n{dump}*1\r\n$4\r\nPING\r\n"), b'b');
    for size in 1..=link.len() {
        let (told, result) = tell(link.chunks(size));
        assert_eq!(result, Ok(()));
        assert_eq!(told, ["full b 0", "dump ended", "PING 14"], "chunks of {size}");
    }
}

#[test]
fn a_refusal_keeps_the_words() {
    let fault = |text: &str| tell([text.as_bytes()]).1.unwrap_err();
    assert_eq!(fault("-NOMASTERLINK Can't SYNC while not connected\r\n"), PsyncError::NoMasterLink);
    assert_eq!(fault("-NOPERM no psync\r\n"), PsyncError::Refused("NOPERM no psync".to_owned()));
    assert_eq!(fault("+OK\r\n"), PsyncError::UnknownAnswer("+OK".to_owned()));
    assert!(matches!(fault("+CONTINUE zz\r\n"), PsyncError::UnknownAnswer(_)));
    assert!(matches!(fault(&format!("+FULLRESYNC {} -1\r\n", id(b'b'))), PsyncError::UnknownAnswer(_)));
    assert!(matches!(
        fault(&format!("+FULLRESYNC {} 1\r\n$EOF:12\r\n", id(b'b'))),
        PsyncError::UnknownDump(_)
    ));
    assert!(matches!(fault(&format!("+FULLRESYNC {} 1\r\n$x\r\n", id(b'b'))), PsyncError::UnknownDump(_)));
    let failed = format!("+FULLRESYNC {} 1\r\n-ERR BGSAVE failed\r\n", id(b'b'));
    assert_eq!(fault(&failed), PsyncError::Refused("ERR BGSAVE failed".to_owned()));
    assert_eq!(fault(&"x".repeat(2000)), PsyncError::LongLine);
}

#[test]
fn garbage_in_the_stream_gives_the_link_up() {
    let (told, result) = tell([b"+CONTINUE\r\n*1\r\n$4\r\nPING\r\nHTTP/1.1 200 OK\r\n".as_slice()]);
    assert_eq!(told, ["continue a", "PING 114"]);
    assert_eq!(result, Err(PsyncError::Stream(StreamError::Unexpected(b'H'))));
}

proptest! {
    #[test]
    fn noise_never_panics_and_chunk_borders_do_not_matter(
        prefix in prop_oneof![
            Just(Vec::new()),
            Just(b"+CONTINUE\r\n".to_vec()),
            Just(with_id("+FULLRESYNC # 7\r\n", b'b')),
            Just(with_id("+FULLRESYNC # 7\r\n$20\r\n", b'b')),
        ],
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'$'), Just(b'*'), Just(b'1')], 0..200),
        size in 1usize..50,
    ) {
        let link = [prefix, noise].concat();
        prop_assert_eq!(tell(link.chunks(size)), tell([link.as_slice()]));
    }
}
