//! How fast the follower's decoder is: small commands by the piece, large values by the byte, in reads as the
//! follower makes them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redweir::core::position::Offset;
use redweir::wire::stream::StreamDecoder;

const COMMANDS: usize = 4096;
const LARGE: usize = 8 << 20;
/// What the follower reads at once.
const READ: usize = 256 << 10;
/// What one segment brings, on a slow stream.
const SEGMENT: usize = 1448;

/// Feeds the stream in pieces; the number of commands told.
fn decode(stream: &[u8], piece: usize) -> usize {
    let mut decoder = StreamDecoder::new(Offset::new(0));
    let mut count = 0;
    for chunk in stream.chunks(piece) {
        decoder
            .feed(chunk, &mut |command, _| count += usize::from(!black_box(command).is_cut()))
            .expect("a stream");
    }
    count
}

fn set(length: usize) -> String {
    format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n${length}\r\n{}\r\n", "v".repeat(length))
}

fn stream(criterion: &mut Criterion) {
    let small = set(32).repeat(COMMANDS);
    let transactions =
        format!("*1\r\n$5\r\nMULTI\r\n{}*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n*1\r\n$4\r\nEXEC\r\n", set(32))
            .repeat(COMMANDS / 4);
    let mut group = criterion.benchmark_group("stream/commands");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for (name, stream, piece) in [
        ("set_32b", &small, READ),
        ("set_32b_in_segments", &small, SEGMENT),
        ("transactions", &transactions, READ),
    ] {
        assert_eq!(decode(stream.as_bytes(), piece), COMMANDS);
        group.bench_function(name, |bench| bench.iter(|| decode(black_box(stream.as_bytes()), piece)));
    }
    group.finish();

    let mut group = criterion.benchmark_group("stream/bytes");
    for (name, stream) in [("set_16kb", set(16 << 10).repeat(512)), ("set_8mb", set(LARGE))] {
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| decode(black_box(stream.as_bytes()), READ)));
    }
    group.finish();
}

criterion_group!(benches, stream);
criterion_main!(benches);
