//! Replies: what Redis 7.0.15 really sends, what it must never send, and any way to cut either in pieces.

use proptest::prelude::*;

use super::*;

type FoundReply = (usize, ReplyKind, Vec<u8>);

/// Every reply with its end in `input`, kind and head; the error that stopped it; whether a reply is open.
fn run(input: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<FoundReply>, Option<ReplyError>, bool) {
    let mut scanner = ReplyScanner::new();
    let mut found = Vec::new();
    let mut at = 0;
    for cut in cuts.into_iter().chain([input.len()]) {
        while at < cut {
            match scanner.scan(&input[at..cut]) {
                Ok(Some(Extent { end, kind })) => {
                    at += end;
                    assert!(end > 0 && scanner.is_between() && scanner.kind().is_none());
                    found.push((at, kind, scanner.head().to_vec()));
                }
                Ok(None) => at = cut,
                Err(error) => {
                    assert_eq!(scanner.scan(b"+OK\r\n"), Err(error), "an error is final");
                    return (found, Some(error), true);
                }
            }
        }
    }
    (found, None, !scanner.is_between())
}

fn whole(input: &[u8]) -> (Vec<FoundReply>, Option<ReplyError>, bool) {
    let at_once = run(input, []);
    assert_eq!(run(input, 0..=input.len()), at_once, "byte by byte: {}", input.escape_ascii());
    at_once
}

const SAMPLES: &[(&[u8], ReplyKind)] = &[
    (b"+OK\r\n", ReplyKind::Value),
    (b"+\r\n", ReplyKind::Value),
    (b"+a\rb\nc\r\n", ReplyKind::Value),
    (b"+a\r\r\n", ReplyKind::Value),
    (b"-ERR unknown command 'f\xff', with args beginning with: \r\n", ReplyKind::Error),
    (b":0\r\n", ReplyKind::Value),
    (b":-12\r\n", ReplyKind::Value),
    (b":9223372036854775807\r\n", ReplyKind::Value),
    (b"$-1\r\n", ReplyKind::Value),
    (b"$0\r\n\r\n", ReplyKind::Value),
    (b"$5\r\n\r\n\0+O\r\n", ReplyKind::Value),
    (b"*-1\r\n", ReplyKind::Value),
    (b"*0\r\n", ReplyKind::Value),
    (b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n-ERR no\r\n", ReplyKind::Value),
    (b"_\r\n", ReplyKind::Value),
    (b"#t\r\n", ReplyKind::Value),
    (b"#f\r\n", ReplyKind::Value),
    (b",3.1400000000000001\r\n", ReplyKind::Value),
    (b",inf\r\n", ReplyKind::Value),
    (b"(3492890328409238509324850943850943825024385\r\n", ReplyKind::Value),
    (b"!21\r\nSYNTAX invalid syntax\r\n", ReplyKind::Error),
    (b"=15\r\ntxt:Some string\r\n", ReplyKind::Value),
    (b"=5\r\nabc:x\r\n", ReplyKind::Value),
    (b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n", ReplyKind::Value),
    (b"%0\r\n", ReplyKind::Value),
    (b"~1\r\n*2\r\n:1\r\n:2\r\n", ReplyKind::Value),
    (b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n", ReplyKind::Push),
    (b"*1\r\n|1\r\n+k\r\n+v\r\n:1\r\n", ReplyKind::Value),
    (b"$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;0\r\n", ReplyKind::Value),
    (b"$?\r\n;0\r\n", ReplyKind::Value),
    (b"*?\r\n:1\r\n$?\r\n;1\r\na\r\n;0\r\n*?\r\n.\r\n.\r\n", ReplyKind::Value),
    (b"%?\r\n+a\r\n:1\r\n.\r\n", ReplyKind::Value),
    (b"~?\r\n|1\r\n+k\r\n+v\r\n:1\r\n.\r\n", ReplyKind::Value),
];

#[test]
fn every_kind_of_reply_has_an_end() {
    for (sample, kind) in SAMPLES {
        let head = sample[..sample.len().min(32)].to_vec();
        assert_eq!(
            whole(sample),
            (vec![(sample.len(), *kind, head)], None, false),
            "{}",
            sample.escape_ascii()
        );
        for cut in 1..sample.len() {
            assert_eq!(
                whole(&sample[..cut]),
                (vec![], None, true),
                "a part: {}",
                sample[..cut].escape_ascii()
            );
        }
    }
    let all: Vec<u8> = SAMPLES.iter().flat_map(|(sample, _)| sample.iter().copied()).collect();
    assert_eq!(whole(&all).0.len(), SAMPLES.len());
}

#[test]
fn an_attribute_belongs_to_the_reply_behind_it() {
    for attribute in
        [b"|1\r\n+ttl\r\n:3600\r\n".as_slice(), b"|0\r\n", b"|0\r\n|1\r\n*1\r\n+a\r\n|0\r\n_\r\n"]
    {
        for (sample, kind) in SAMPLES {
            let input = [attribute, sample].concat();
            let head = sample[..sample.len().min(32)].to_vec();
            assert_eq!(
                whole(&input),
                (vec![(input.len(), *kind, head)], None, false),
                "{}",
                input.escape_ascii()
            );
        }
        assert_eq!(whole(attribute), (vec![], None, true), "an attribute alone is no reply");
    }
}

#[test]
fn an_upstream_out_of_step_is_noticed() {
    use ReplyError::{InvalidNumber, MalformedLine, MissingCrlf, UnexpectedType};
    let table: &[(&[u8], ReplyError)] = &[
        (b"$3\r\nfooXX", MissingCrlf),
        (b"$3\r\nfoo\rX", MissingCrlf),
        (b"$3\r\nfoo\nX", MissingCrlf),
        (b"$+3\r\n", InvalidNumber),
        (b"$03\r\n", InvalidNumber),
        (b"$\r\n", InvalidNumber),
        (b"$-2\r\n", InvalidNumber),
        (b"*-2\r\n", InvalidNumber),
        (b"%-1\r\n", InvalidNumber),
        (b"=-1\r\n", InvalidNumber),
        (b"|?\r\n", InvalidNumber),
        (b"$4294967297\r\n", InvalidNumber),
        (b"$10000000000\r\n", InvalidNumber),
        (b"*4294967296\r\n", InvalidNumber),
        (b"*99999999999999999999\r\n", InvalidNumber),
        (b":\r\n", InvalidNumber),
        (b":1x\r\n", InvalidNumber),
        (b"#x\r\n", InvalidNumber),
        (b"_x\r\n", InvalidNumber),
        (b"$3\n", MalformedLine),
        (b":1\n", MalformedLine),
        (b"\r\n", UnexpectedType(b'\r')),
        (b"HTTP/1.1", UnexpectedType(b'H')),
        (b"foo", UnexpectedType(b'f')),
        (b";1\r\n", UnexpectedType(b';')),
        (b".\r\n", UnexpectedType(b'.')),
        (b"*1\r\n.\r\n", UnexpectedType(b'.')),
        (b"$?\r\n+a\r\n", UnexpectedType(b'+')),
    ];
    for (input, error) in table {
        assert_eq!(whole(input).1, Some(*error), "{}", input.escape_ascii());
    }
    let long = [b"$".as_slice(), &[b'1'; 100]].concat();
    assert_eq!(whole(&long).1, Some(MalformedLine));
}

#[test]
fn bombs_are_refused_at_constant_memory() {
    for level in ["*1\r\n", "~1\r\n", "%1\r\n", "|1\r\n", "*?\r\n"] {
        let bomb = level.repeat((1 << 20) / level.len());
        assert_eq!(run(bomb.as_bytes(), []).1, Some(ReplyError::TooDeep), "{level:?}");
        assert_eq!(run(level.repeat(MAX_DEPTH).as_bytes(), []).1, None, "{level:?}");
        assert_eq!(run(level.repeat(MAX_DEPTH + 1).as_bytes(), []).1, Some(ReplyError::TooDeep), "{level:?}");
    }
    let deepest = "*1\r\n".repeat(MAX_DEPTH) + ":1\r\n";
    assert_eq!(run(deepest.as_bytes(), []).0.len(), 1);
    assert!(size_of::<ReplyScanner>() <= 1280, "{} bytes", size_of::<ReplyScanner>());
}

#[test]
fn a_long_payload_streams_through() {
    let mut scanner = ReplyScanner::new();
    assert_eq!(scanner.scan(b"$536870912\r\n"), Ok(None));
    assert_eq!(scanner.kind(), Some(ReplyKind::Value));
    let piece = vec![b'-'; 1 << 20];
    for _ in 0..512 {
        assert_eq!(scanner.scan(&piece), Ok(None));
    }
    assert!(!scanner.is_between());
    assert_eq!(scanner.scan(b"\r\n+OK\r\n"), Ok(Some(Extent { end: 2, kind: ReplyKind::Value })));
    assert!(scanner.head().starts_with(b"$536870912\r\n----"));
}

#[test]
fn a_long_status_from_a_script_is_no_error() {
    let status = [b"+".as_slice(), &vec![b'x'; 200_000], b"\r\n"].concat();
    assert_eq!(run(&status, [1000, 70_000]).0.len(), 1);
}

#[test]
fn the_kind_is_known_from_the_first_byte() {
    for (start, kind) in [
        ("-LOAD", ReplyKind::Error),
        ("!3", ReplyKind::Error),
        (">2\r\n+a", ReplyKind::Push),
        ("*2\r\n-ERR x\r\n", ReplyKind::Value),
    ] {
        let mut scanner = ReplyScanner::new();
        assert_eq!(scanner.scan(start.as_bytes()), Ok(None));
        assert_eq!((scanner.kind(), scanner.is_between()), (Some(kind), false), "{start:?}");
    }
    let mut scanner = ReplyScanner::new();
    assert_eq!((scanner.kind(), scanner.is_between()), (None, true));
    assert_eq!(scanner.scan(b""), Ok(None));
    assert_eq!(scanner.scan(b"|1\r\n+a\r\n"), Ok(None));
    assert_eq!((scanner.kind(), scanner.is_between()), (None, false));
}

#[test]
fn error_codes_are_readable_across_chunks() {
    let mut scanner = ReplyScanner::new();
    assert_eq!(scanner.scan(b"-LOA"), Ok(None));
    let rest = b"DING Redis is loading the dataset in memory\r\n";
    assert_eq!(scanner.scan(rest), Ok(Some(Extent { end: rest.len(), kind: ReplyKind::Error })));
    assert_eq!(scanner.head(), b"-LOADING Redis is loading the da");
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        prop::sample::select(SAMPLES)
            .prop_filter("a push does not nest", |(_, kind)| *kind != ReplyKind::Push)
            .prop_map(|(sample, _)| sample.to_vec()),
        prop::collection::vec(any::<u8>(), 0..600).prop_map(|payload| {
            [format!("${}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat()
        }),
        "[-+][ -~]{0,400}\r\n".prop_map(String::into_bytes),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        (prop::sample::select(b"*~%".as_slice()), prop::collection::vec(inner, 0..6), any::<bool>()).prop_map(
            |(sigil, mut items, streamed)| {
                let count = if sigil == b'%' { items.len() / 2 } else { items.len() };
                items.truncate(if sigil == b'%' { count * 2 } else { count });
                let (count, end) = if streamed { ("?".to_owned(), ".\r\n") } else { (count.to_string(), "") };
                [&[sigil], count.as_bytes(), b"\r\n", &items.concat(), end.as_bytes()].concat()
            },
        )
    })
}

proptest! {
    #[test]
    fn replies_end_where_they_end_however_they_are_cut(replies in prop::collection::vec(reply(), 1..6), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let input = replies.concat();
        let mut end = 0;
        let ends: Vec<usize> = replies.iter().map(|reply| { end += reply.len(); end }).collect();
        let at_once = run(&input, []);
        prop_assert_eq!(at_once.0.iter().map(|found| found.0).collect::<Vec<_>>(), ends);
        prop_assert!(at_once.1.is_none() && !at_once.2);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(run(&input, cuts), at_once.clone());
        prop_assert_eq!(run(&input, 0..=input.len()), at_once);
    }

    #[test]
    fn mutilated_replies_are_judged_the_same_however_they_are_cut(
        mut input in reply(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()
    ) {
        for (at, byte) in flips {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let at_once = run(&input, []);
        prop_assert_eq!(run(&input, [cut.index(input.len() + 1)]), at_once.clone());
        prop_assert_eq!(run(&input, 0..=input.len()), at_once);
    }
}
