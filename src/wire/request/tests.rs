//! Requests: the table of byte games, each with what Redis 7.0.15 makes of it; chunking; limits.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::core::argv::Args;
use crate::wire::number::put_header;

/// What came of feeding bytes: commands (with whether they were canonical), bytes skipped, the error.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Outcome {
    commands: Vec<(Vec<Vec<u8>>, bool)>,
    skipped: usize,
    left: usize,
    error: Option<RequestError>,
}

/// Feeds `input` in pieces that end at `cuts` (ascending) as a connection would.
fn run(limits: RequestLimits, input: &[u8], cuts: impl IntoIterator<Item = usize>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut scanner = RequestScanner::new(limits);
    let mut start = 0;
    for cut in cuts.into_iter().chain([input.len()]) {
        loop {
            let buf = &input[start..cut];
            match scanner.scan(buf) {
                Ok(Scan::Need) => break,
                Ok(Scan::Skip(len)) => {
                    outcome.skipped += len;
                    start += len;
                }
                Ok(Scan::Command { len, canonical }) => {
                    let request = scanner.request(buf);
                    let arguments = (0..request.count()).map(|n| request.arg(n).to_vec()).collect();
                    assert_eq!(request.raw(), canonical.then_some(&buf[..len]));
                    outcome.commands.push((arguments, canonical));
                    start += len;
                }
                Err(error) => {
                    assert_eq!(scanner.scan(buf), Err(error), "an error stays");
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome.left = input.len() - start;
    outcome
}

fn whole(input: &[u8]) -> Outcome {
    let outcome = run(RequestLimits::DEFAULT, input, []);
    assert_eq!(
        run(RequestLimits::DEFAULT, input, 0..=input.len()),
        outcome,
        "byte by byte: {}",
        input.escape_ascii()
    );
    outcome
}

fn commands(input: &[u8]) -> Vec<String> {
    let outcome = whole(input);
    assert_eq!((outcome.error, outcome.left), (None, 0), "{}", input.escape_ascii());
    let text = |(arguments, canonical): &(Vec<Vec<u8>>, bool)| {
        let words: Vec<String> = arguments.iter().map(|word| word.escape_ascii().to_string()).collect();
        format!("{}{}", words.join("|"), if *canonical { "" } else { " ~" })
    };
    outcome.commands.iter().map(text).collect()
}

fn error(input: &[u8]) -> String {
    whole(input).error.map_or_else(|| "none".to_owned(), |error| error.to_string())
}

#[test]
fn canonical_commands_are_spans_over_the_buffer() {
    assert_eq!(commands(b"*1\r\n$4\r\nPING\r\n"), ["PING"]);
    assert_eq!(commands(b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n*1\r\n$4\r\nPING\r\n"), ["GET|foo", "PING"]);
    assert_eq!(commands(b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\0\xff\r\n"), [r"ECHO|\r\n\x00\xff"]);
    assert_eq!(commands(b"*1\r\n$0\r\n\r\n"), [""]);
    let long = format!("*2\r\n$4\r\nECHO\r\n$1234\r\n{}\r\n", "x".repeat(1234));
    assert_eq!(commands(long.as_bytes()), [format!("ECHO|{}", "x".repeat(1234))]);
}

#[test]
fn sloppy_commands_that_redis_accepts_are_not_canonical() {
    assert_eq!(commands(b"*1\r\n$3\r\nfooXX"), ["foo ~"]);
    assert_eq!(commands(b"*1\rX$4\r\nPING\r\n"), ["PING ~"]);
    assert_eq!(commands(b"*1\r\n$4\rXPING\r\n"), ["PING ~"]);
    assert_eq!(commands(b"*1\r\n$4\r\rPING\n\r"), ["PING ~"]);
    assert_eq!(commands(b"PING\r\n"), ["PING ~"]);
    assert_eq!(commands(b"PING\n*1\r\n$4\r\nPING\r\n"), ["PING ~", "PING"]);
    assert_eq!(commands(b"ECHO \"a\\x41b\"\r\n"), ["ECHO|aAb ~"]);
    assert_eq!(commands(b"PING\r\r\n"), ["PING ~"]);
    assert_eq!(commands(b"$3\r\nfoo\r\n"), ["$3 ~", "foo ~"]);
}

#[test]
fn lines_without_arguments_are_skipped_in_silence() {
    for nothing in ["*0\r\n", "*-1\r\n", "*-5\r\n", "\r\n", "\n", "   \r\n", "*-2147483649\r\n", "*0\rX"] {
        let outcome = whole(nothing.as_bytes());
        assert_eq!((outcome.skipped, outcome.commands.len()), (nothing.len(), 0), "{nothing:?}");
        assert_eq!((outcome.error, outcome.left), (None, 0), "{nothing:?}");
    }
    // How redis-cli --pipe ends its input.
    let tail = b"\r\n*2\r\n$4\r\nECHO\r\n$5\r\n\r\n\0\"\xff\r\n";
    assert_eq!(commands(tail), [r#"ECHO|\r\n\x00\"\xff"#]);
}

#[test]
fn protocol_errors_have_the_words_of_redis() {
    for number in ["+3", "03", "", " 3", "3 ", "-1", "3a", "536870913", "99999999999999999999", "-0", "0x3"] {
        let input = format!("*1\r\n${number}\r\nfoo\r\n");
        assert_eq!(error(input.as_bytes()), "Protocol error: invalid bulk length", "{number:?}");
    }
    for number in ["+3", "03", "", " 3", "3a", "2147483648", "9223372036854775808", "-"] {
        let input = format!("*{number}\r\n");
        assert_eq!(error(input.as_bytes()), "Protocol error: invalid multibulk length", "{number:?}");
    }
    assert_eq!(error(b"*1\r\n*1\r\n"), "Protocol error: expected '$', got '*'");
    assert_eq!(error(b"*1\r\n\r\n"), "Protocol error: expected '$', got ' '");
    assert_eq!(error(b"*1\r\n\nfoo\r\n"), "Protocol error: expected '$', got ' '");
    assert_eq!(error(b"*1\r\nPING\r\n"), "Protocol error: expected '$', got 'P'");
    assert_eq!(error(b"*1\r\nPING"), "none");
    assert_eq!(error(b"GET \"x\\x4\r\n"), "Protocol error: unbalanced quotes in request");
    assert_eq!(error(b"PING \"a\"b\n"), "Protocol error: unbalanced quotes in request");
    let mut reply = BytesMut::new();
    RequestError::ExpectedDollar(0xff).put_reply(&mut reply);
    RequestError::InvalidBulkLength.put_reply(&mut reply);
    assert_eq!(
        reply,
        b"-ERR Protocol error: expected '$', got '\xff'\r\n-ERR Protocol error: invalid bulk length\r\n"
            .as_slice()
    );
}

#[test]
fn lines_are_bounded_to_the_byte() {
    let limit = RequestLimits::DEFAULT.max_line;
    for (head, end, too_big) in [
        ("*", "\r\n", RequestError::TooBigMultibulkCount),
        ("*1\r\n$", "\r\n", RequestError::TooBigBulkCount),
        ("P", "\n", RequestError::TooBigInline),
    ] {
        let before = head.rfind('\n').map_or(0, |at| at + 1);
        let fill = limit - (head.len() - before);
        let fits = format!("{head}{}", "1".repeat(fill));
        assert_eq!(
            run(RequestLimits::DEFAULT, fits.as_bytes(), []).error,
            None,
            "{head} and nothing more yet"
        );
        assert_ne!(run(RequestLimits::DEFAULT, format!("{fits}{end}").as_bytes(), []).error, Some(too_big));
        for tail in ["1", "1\r\n", "11111"] {
            let input = format!("{fits}{tail}");
            assert_eq!(run(RequestLimits::DEFAULT, input.as_bytes(), []).error, Some(too_big), "{head}");
            let near = limit - 3..input.len();
            assert_eq!(
                run(RequestLimits::DEFAULT, input.as_bytes(), near).error,
                Some(too_big),
                "{head} in pieces"
            );
        }
    }
}

#[test]
fn a_nul_hides_the_end_of_a_line_as_strchr_has_it() {
    for (input, too_big) in [
        (b"PING\0\r\nPING\r\n".as_slice(), RequestError::TooBigInline),
        (b"*1\0\r\n$4\r\nPING\r\n", RequestError::TooBigMultibulkCount),
        (b"*1\r\n$4\0\r\nPING\r\n", RequestError::TooBigBulkCount),
    ] {
        assert!(whole(input).commands.is_empty(), "{}", input.escape_ascii());
        let mut long = input.to_vec();
        long.resize(65 << 10, b'\n');
        assert_eq!(run(RequestLimits::DEFAULT, &long, []).error, Some(too_big));
    }
}

#[test]
fn before_authentication_commands_are_small() {
    let run = |input: &str| run(RequestLimits::BEFORE_AUTH, input.as_bytes(), []);
    assert_eq!(run("*10\r\n").error, None);
    assert_eq!(run("*11\r\n").error, Some(RequestError::UnauthenticatedMultibulk));
    assert_eq!(run("*2147483647\r\n").error, Some(RequestError::UnauthenticatedMultibulk));
    assert_eq!(run("*2147483648\r\n").error, Some(RequestError::InvalidMultibulkLength));
    assert_eq!(run("*1\r\n$16384\r\n").error, None);
    assert_eq!(run("*1\r\n$16385\r\n").error, Some(RequestError::UnauthenticatedBulk));
    assert_eq!(run("*1\r\n$536870913\r\n").error, Some(RequestError::InvalidBulkLength));
    assert_eq!(
        RequestError::UnauthenticatedMultibulk.to_string(),
        "Protocol error: unauthenticated multibulk length"
    );
    assert_eq!(RequestError::UnauthenticatedBulk.to_string(), "Protocol error: unauthenticated bulk length");
}

#[test]
fn memory_follows_received_bytes_not_declared_lengths() {
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    assert_eq!(scanner.wanted(), None);
    let mut buf = b"*1048576\r\n$536870912\r\n".to_vec();
    let header = buf.len();
    assert_eq!(scanner.scan(&buf), Ok(Scan::Need));
    assert_eq!(scanner.wanted(), Some(16 << 10));
    assert_eq!(scanner.spans.capacity(), 0);
    buf.resize(header + (1 << 20), b'x');
    assert_eq!(scanner.scan(&buf), Ok(Scan::Need));
    assert_eq!(scanner.wanted(), Some(1 << 20));
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    assert_eq!(scanner.scan(b"*1\r\n$9\r\nabc"), Ok(Scan::Need));
    assert_eq!(scanner.wanted(), Some(8));
}

#[test]
fn room_is_kept_between_commands_and_given_back_after_a_spike() {
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    let small = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n";
    let mut big = b"*5000\r\n".to_vec();
    big.extend(b"$1\r\nx\r\n".repeat(5000));
    assert!(matches!(scanner.scan(&big), Ok(Scan::Command { .. })));
    let room = scanner.spans.capacity();
    assert!(matches!(scanner.scan(&big), Ok(Scan::Command { .. })));
    assert_eq!(scanner.spans.capacity(), room, "a client that stays large is not slowed");
    assert!(matches!(scanner.scan(small), Ok(Scan::Command { .. })));
    assert!(matches!(scanner.scan(small), Ok(Scan::Command { .. })));
    assert!(scanner.spans.capacity() <= KEPT_SPANS);
    let line = format!("ECHO {}\r\n", "y".repeat(60_000));
    assert!(matches!(scanner.scan(line.as_bytes()), Ok(Scan::Command { .. })));
    assert_eq!(scanner.scan(b""), Ok(Scan::Need));
    assert!(scanner.scratch.capacity() <= KEPT_SCRATCH);
}

#[test]
fn a_finished_argument_is_never_looked_at_again() {
    // Bytes already scanned are wiped between calls; only unfinished lines and payloads may still matter.
    let input = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nbody\r\n";
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    let mut buf = input[..24].to_vec();
    assert_eq!(scanner.scan(&buf), Ok(Scan::Need));
    buf.fill(b'?');
    buf.extend_from_slice(&input[24..]);
    assert_eq!(scanner.scan(&buf), Ok(Scan::Command { len: input.len(), canonical: true }));
    assert_eq!(scanner.request(&buf).arg(2), b"body");
}

#[test]
fn whatever_is_forwarded_is_canonical() {
    for input in
        [b"*2\r\n$4\r\nECHO\r\n$2\r\nhiXX".as_slice(), b"ECHO 'hi'\n", b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n"]
    {
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        assert!(matches!(scanner.scan(input), Ok(Scan::Command { .. })));
        let mut out = BytesMut::new();
        scanner.request(input).encode_into(&mut out);
        assert_eq!(out, b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n".as_slice());
    }
}

#[test]
fn a_request_without_a_command_is_empty() {
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    assert_eq!(scanner.request(b"abc").count(), 0);
    assert_eq!(scanner.scan(b"*1\r\n"), Ok(Scan::Need));
    assert_eq!(scanner.request(b"*1\r\n").name(), b"");
}

#[test]
fn browsers_are_recognised() {
    for name in ["POST", "post", "Host:", "hOST:", "post\0x"] {
        assert!(is_cross_protocol(name.as_bytes()), "{name:?}");
    }
    for name in ["", "GET", "HOST", "POSTS", "\0post"] {
        assert!(!is_cross_protocol(name.as_bytes()), "{name:?}");
    }
}

/// Bytes made of the pieces that matter, so that random inputs get deep.
pub(crate) fn games() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "*1\r\n", "*2\r\n", "*0\r\n", "*-1\r\n", "$0\r\n\r\n", "$3\r\nfoo\r\n", "$4\r\nPING\r\n", "$3\r\nfooXX",
            "\r\n", "\n", "\r", "\0", "*", "$", "PING\r\n", "'", "\"", "\\x41", " ", "$+3\r\n", "$03\r\n", "*1\rx", "+", "1",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..5),
        2 => prop::collection::vec(any::<u8>(), 0..300).prop_map(|payload| {
            let mut bytes = format!("*2\r\n$4\r\nECHO\r\n${}\r\n", payload.len()).into_bytes();
            bytes.extend(payload);
            bytes.extend(b"\r\n");
            bytes
        }),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_the_chunks(input in games(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let at_once = run(RequestLimits::DEFAULT, &input, []);
        prop_assert_eq!(&run(RequestLimits::DEFAULT, &input, cuts.clone()), &at_once);
        prop_assert_eq!(&run(RequestLimits::DEFAULT, &input, 0..=input.len()), &at_once);
        let tight = RequestLimits { max_args: 2, max_bulk: 5, max_line: 6, max_inline: 8, before_auth: false };
        prop_assert_eq!(run(tight, &input, cuts), run(tight, &input, []));
    }

    #[test]
    fn arguments_survive_encoding_and_scanning(arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut bytes = BytesMut::new();
        put_header(&mut bytes, b'*', arguments.len());
        for argument in &arguments {
            put_header(&mut bytes, b'$', argument.len());
            bytes.put_slice(argument);
            bytes.put_slice(b"\r\n");
        }
        let outcome = run(RequestLimits::DEFAULT, &bytes, []);
        prop_assert_eq!(outcome.commands, vec![(arguments, true)]);
        prop_assert_eq!(outcome.left, 0);
    }
}

proptest! {
    /// A command that is passed on in parts arrives as it would have as a whole, wherever the parts end.
    #[test]
    fn a_command_passed_on_in_parts_is_whole(
        arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
        held in any::<prop::sample::Index>(),
        step in 1_usize..30,
        sloppy in any::<bool>(),
    ) {
        let mut canonical = BytesMut::new();
        put_header(&mut canonical, b'*', arguments.len());
        let mut sent = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in &arguments {
            put_header(&mut canonical, b'$', argument.len());
            canonical.put_slice(&[argument, &b"\r\n"[..]].concat());
            sent.extend(format!("${}\rx", argument.len()).bytes());
            sent.extend_from_slice(argument);
            sent.extend_from_slice(if sloppy { b"??" } else { b"\r\n" });
        }
        let next = b"*1\r\n$4\r\nPING\r\n";
        let length = sent.len();
        sent.extend_from_slice(next);
        let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
        let held = held.index(length);
        prop_assert_eq!(scanner.scan(&sent[..held]), Ok(Scan::Need));
        prop_assume!(scanner.left.is_some());
        let (mut out, mut at, mut done) = (BytesMut::new(), 0, false);
        let beginning = scanner.beginning(&sent[..held]);
        prop_assert!(beginning.is_partial() && beginning.count() == arguments.len());
        prop_assert!((0..arguments.len()).all(|n| beginning.lacks(n) || beginning.arg(n) == arguments[n]));
        beginning.encode_into(&mut out);
        at += scanner.let_go();
        let mut end = held;
        while !done {
            let (used, complete) = scanner.pass(&sent[at..end], &mut out).unwrap();
            (at, done) = (at + used, complete);
            end = (end + step).min(sent.len());
        }
        prop_assert_eq!((out, at), (canonical, length));
        prop_assert_eq!(scanner.scan(&sent[at..]), Ok(Scan::Command { len: next.len(), canonical: true }));
    }
}

#[test]
fn a_command_is_long_once_it_is_declared_or_has_arrived() {
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    let declared = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${LONGEST_HELD}\r\n");
    assert_eq!(scanner.scan(declared.as_bytes()), Ok(Scan::Need));
    assert!(scanner.is_long(declared.as_bytes()));
    let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
    let mut many = b"*100000\r\n".to_vec();
    many.extend(b"$10\r\n0123456789\r\n".repeat(50_000));
    assert_eq!(scanner.scan(&many), Ok(Scan::Need));
    assert!(!scanner.is_long(&many));
    many.extend(b"$10\r\n0123456789\r\n".repeat(40_000));
    assert_eq!(scanner.scan(&many), Ok(Scan::Need));
    assert!(scanner.is_long(&many));
}
