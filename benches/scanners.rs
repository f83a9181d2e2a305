//! How fast the hot-path scanners are: pipelines of 64, values of 32 bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redweir::core::argv::Args;
use redweir::wire::reply::ReplyScanner;
use redweir::wire::request::{RequestLimits, RequestScanner, Scan};

const PIPELINE: usize = 64;

fn requests(pipeline: &[u8], scanner: &mut RequestScanner) -> usize {
    let (mut rest, mut arguments) = (pipeline, 0);
    while let Ok(Scan::Command { len, .. }) = scanner.scan(rest) {
        arguments += scanner.request(rest).count();
        rest = &rest[len..];
    }
    arguments
}

fn replies(pipeline: &[u8], scanner: &mut ReplyScanner) -> usize {
    let (mut rest, mut count) = (pipeline, 0);
    while let Ok(Some(extent)) = scanner.scan(rest) {
        count += 1;
        rest = &rest[extent.end..];
    }
    count
}

fn scanners(criterion: &mut Criterion) {
    let key = "key:000000012345";
    let value = "v".repeat(32);
    let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).repeat(PIPELINE);
    let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$32\r\n{value}\r\n", key.len()).repeat(PIPELINE);
    let mut group = criterion.benchmark_group("request");
    for (name, pipeline, arguments) in [("get", &get, 2), ("set_32b", &set, 3)] {
        group.throughput(Throughput::Elements(PIPELINE as u64));
        group.bench_function(name, |bench| {
            let mut scanner = RequestScanner::new(RequestLimits::DEFAULT);
            assert_eq!(requests(pipeline.as_bytes(), &mut scanner), arguments * PIPELINE);
            bench.iter(|| requests(black_box(pipeline.as_bytes()), &mut scanner));
        });
    }
    group.finish();

    let bulk = format!("$32\r\n{value}\r\n").repeat(PIPELINE);
    let ok = "+OK\r\n".repeat(PIPELINE);
    let array = format!("*8\r\n{}", format!("$32\r\n{value}\r\n").repeat(8)).repeat(PIPELINE);
    let mut group = criterion.benchmark_group("reply");
    for (name, pipeline) in [("bulk_32b", &bulk), ("ok", &ok), ("array_8x32b", &array)] {
        group.throughput(Throughput::Elements(PIPELINE as u64));
        group.bench_function(name, |bench| {
            let mut scanner = ReplyScanner::new();
            assert_eq!(replies(pipeline.as_bytes(), &mut scanner), PIPELINE);
            bench.iter(|| replies(black_box(pipeline.as_bytes()), &mut scanner));
        });
    }
    group.finish();
}

criterion_group!(benches, scanners);
criterion_main!(benches);
