//! Tests of the command stream: offsets, cuts, chunk borders, garbage.

use proptest::prelude::*;

use super::*;

type HeardCommands = (Vec<Vec<u8>>, usize, Vec<bool>, u64);

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Feeds the chunks and returns what was told, and how it ended.
fn tell<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<HeardCommands>, u64, Result<(), StreamError>) {
    let mut decoder = StreamDecoder::new(Offset::new(100));
    let mut told = Vec::new();
    let mut result = Ok(());
    for chunk in chunks {
        result = decoder.feed(chunk, &mut |command, end| {
            let args = (0..command.count()).map(|i| command.arg(i).to_vec()).collect();
            let whole = (0..command.count()).map(|i| command.whole(i).is_some()).collect();
            told.push((args, command.count(), whole, end.bytes()));
        });
        if result.is_err() {
            break;
        }
    }
    (told, decoder.position().bytes(), result)
}

#[test]
fn a_command_ends_at_the_offset_after_its_last_byte() {
    let set = encode(&[b"SET", b"k", b"v"]);
    let two = [set.clone(), encode(&[b"del", b""])].concat();
    let (told, position, result) = tell([two.as_slice()]);
    assert_eq!(result, Ok(()));
    assert_eq!(told[0].3, 100 + set.len() as u64);
    assert_eq!(told[1].3, 100 + two.len() as u64);
    assert_eq!(told[1].0, [b"del".to_vec(), Vec::new()]);
    assert_eq!(position, 100 + two.len() as u64);
}

#[test]
fn newlines_and_empty_arrays_between_commands_count() {
    let stream = [b"\n\r\n*0\r\n*-1\r\n".as_slice(), &encode(&[b"PING"])].concat();
    for size in 1..=stream.len() {
        let (told, position, result) = tell(stream.chunks(size));
        assert_eq!(result, Ok(()));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].3, position), (100 + stream.len() as u64, 100 + stream.len() as u64));
    }
}

#[test]
fn the_position_is_the_last_complete_command() {
    let set = encode(&[b"SET", b"k", b"v"]);
    let mut decoder = StreamDecoder::new(Offset::new(7));
    decoder.feed(&set[..5], &mut |_, _| panic!("nothing is complete")).unwrap();
    assert_eq!(decoder.position(), Offset::new(7));
    assert_eq!(decoder.received(), Offset::new(12));
}

#[test]
fn a_long_argument_is_cut_and_says_so_whatever_the_chunks() {
    let long = vec![b'x'; MAX_ARG_KEPT + 1];
    let fits = vec![b'y'; MAX_ARG_KEPT];
    let stream = encode(&[b"MSET", &long, &fits, b"k", b""]);
    for size in [stream.len(), 4096, 65_537, 17] {
        let (told, position, result) = tell(stream.chunks(size));
        assert_eq!(result, Ok(()));
        assert_eq!(told[0].2, [true, false, true, true, true]);
        assert_eq!(told[0].0[1].len(), MAX_ARG_KEPT);
        assert_eq!(told[0].0[2], fits);
        assert_eq!(position, 100 + stream.len() as u64);
    }
}

#[test]
fn a_huge_value_does_not_take_memory() {
    let mut decoder = StreamDecoder::new(Offset::new(0));
    let mut told = Vec::new();
    let mut note = |command: &StreamCommand<'_>, end: Offset| {
        told.push((command.whole(1).map(<[u8]>::to_vec), command.is_cut(), end.bytes()));
    };
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
    decoder.feed(head, &mut note).unwrap();
    let chunk = vec![b'z'; 1 << 20];
    for _ in 0..512 {
        decoder.feed(&chunk, &mut note).unwrap();
        assert!(decoder.kept.capacity() <= 4 * MAX_ARG_KEPT, "{}", decoder.kept.capacity());
    }
    decoder.feed(b"\r\n", &mut note).unwrap();
    assert_eq!(told, [(Some(b"k".to_vec()), true, head.len() as u64 + 536_870_912 + 2)]);
}

#[test]
fn many_large_arguments_share_one_budget_whatever_the_chunks() {
    let big = vec![b'x'; MAX_ARG_KEPT];
    let fit = MAX_COMMAND_KEPT / MAX_ARG_KEPT;
    let mut args = vec![big.as_slice(); fit];
    args.push(b"k");
    let stream = encode(&args);
    for size in [stream.len(), 1 << 18] {
        let (told, _, result) = tell(stream.chunks(size));
        assert_eq!(result, Ok(()));
        assert_eq!(told[0].2.iter().filter(|whole| **whole).count(), fit);
        assert!(!told[0].2[fit], "the last key did not fit");
    }
}

#[test]
fn garbage_is_named() {
    let fault = |bytes: &[u8]| {
        let whole = tell([bytes]).2;
        assert_eq!(tell(bytes.chunks(1)).2, whole, "chunks must not matter");
        whole.unwrap_err()
    };
    assert_eq!(fault(b"PING\r\n"), StreamError::Unexpected(b'P'));
    assert_eq!(fault(b"*1\r\n:1\r\n"), StreamError::Unexpected(b':'));
    assert_eq!(fault(b"*1\r\n$01\r\nx\r\n"), StreamError::BadLength);
    assert_eq!(fault(b"*1\r\n$-1\r\n"), StreamError::BadLength);
    assert_eq!(fault(b"*1\r\n$+1\r\n"), StreamError::BadLength);
    assert_eq!(fault(b"*2147483648\r\n"), StreamError::BadLength);
    assert_eq!(fault(b"*99999999999999999999999\r\n"), StreamError::BadLength);
    assert_eq!(fault(b"*1\n"), StreamError::NoLineEnd);
    assert_eq!(fault(b"*1\r\n$1\r\nxyz"), StreamError::NoLineEnd);
    assert_eq!(fault(b"\rx"), StreamError::NoLineEnd);
}

#[test]
fn the_largest_length_neither_wraps_nor_panics() {
    let (told, position, result) = tell([b"*1\r\n$9223372036854775807\r\nabc".as_slice(), b"def"]);
    assert_eq!((told.len(), position, result), (0, 100, Ok(())));
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    let arg = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        proptest::collection::vec(any::<u8>(), 90..130),
    ];
    let command = proptest::collection::vec(arg, 1..12)
        .prop_map(|args| encode(&args.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    prop_oneof![8 => command, 1 => Just(b"\n".to_vec()), 1 => Just(b"*0\r\n".to_vec())]
}

fn split<'a>(stream: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let (chunk, left) = rest.split_at((*sizes.next()?).min(rest.len()));
        rest = left;
        (!chunk.is_empty()).then_some(chunk)
    })
}

proptest! {
    #[test]
    fn chunk_borders_do_not_matter(
        stream in proptest::collection::vec(element(), 0..20),
        sizes in proptest::collection::vec(1usize..40, 1..20),
    ) {
        let stream = stream.concat();
        let whole = tell([stream.as_slice()]);
        prop_assert_eq!(whole.2, Ok(()));
        prop_assert_eq!(whole.1, 100 + stream.len() as u64);
        prop_assert_eq!(tell(split(&stream, &sizes)), whole);
    }

    #[test]
    fn nor_do_they_in_noise(
        mut stream in proptest::collection::vec(element(), 1..8).prop_map(|all| all.concat()),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        sizes in proptest::collection::vec(1usize..40, 1..20),
    ) {
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        prop_assert_eq!(tell(split(&stream, &sizes)), tell([stream.as_slice()]));
    }
}
