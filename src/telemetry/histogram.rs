//! A log-linear histogram of durations with one writer: eight buckets per power of two, 1 µs to 64 s.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Sub-buckets per power of two, as a power of two.
const SUB_BITS: u32 = 3;
/// Durations below 2^10 ns share the first bucket.
const LOWEST_BITS: u32 = 10;
/// Durations from 2^36 ns (69 s) on share the last one.
const HIGHEST_BITS: u32 = 36;
const BUCKETS: usize = ((HIGHEST_BITS - LOWEST_BITS) << SUB_BITS) as usize + 2;

/// The upper edges that are exported, in microseconds.
const EDGES_US: [u64; 20] = [
    50, 100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// Counts of durations. Only its owner records; anyone may add it up.
#[derive(Debug)]
pub struct Histogram {
    buckets: Vec<AtomicU64>,
    sum_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), sum_nanos: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration. One writer only.
    pub fn record(&self, nanos: u64) {
        self.count(bucket(nanos), nanos);
    }

    /// Counts the same duration in both. One writer only.
    pub fn record_in_both(&self, other: &Self, nanos: u64) {
        let bucket = bucket(nanos);
        self.count(bucket, nanos);
        other.count(bucket, nanos);
    }

    #[inline]
    fn count(&self, bucket: usize, nanos: u64) {
        let bump = |cell: &AtomicU64, by: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        };
        if let Some(cell) = self.buckets.get(bucket) {
            bump(cell, 1);
        }
        bump(&self.sum_nanos, nanos);
    }
}

/// The sum of many histograms, ready to be written out.
#[derive(Debug)]
pub struct Total {
    buckets: Vec<u64>,
    sum_nanos: u64,
}

impl Total {
    /// Adds up what several workers counted.
    pub fn of<'a>(parts: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut total = Self { buckets: vec![0; BUCKETS], sum_nanos: 0 };
        for part in parts {
            for (sum, cell) in total.buckets.iter_mut().zip(&part.buckets) {
                *sum += cell.load(Ordering::Relaxed);
            }
            total.sum_nanos = total.sum_nanos.wrapping_add(part.sum_nanos.load(Ordering::Relaxed));
        }
        total
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was counted since `before`, or ever.
    pub fn since(&self, before: Option<&Self>) -> Quantiles {
        let earlier = |index: usize| before.and_then(|total| total.buckets.get(index)).copied().unwrap_or(0);
        let counts =
            self.buckets.iter().enumerate().map(|(index, count)| count.saturating_sub(earlier(index)));
        Quantiles(counts.collect())
    }

    /// Writes what comes before the series of a Prometheus histogram.
    pub fn write_head(out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    }

    /// Writes it as the series with these labels (`a="b",`, or none) of a Prometheus histogram in seconds. A bucket of ours counts
    /// for an edge when it lies below it as a whole, so that counts are never too early.
    pub fn write(&self, out: &mut String, name: &str, labels: &str) {
        let (mut count, mut counted) = (0, 0);
        for edge in EDGES_US {
            let below = bucket(edge * 1_000);
            count += self.buckets.get(counted..below).unwrap_or_default().iter().sum::<u64>();
            counted = below;
            let _ = writeln!(out, "{name}_bucket{{{labels}le=\"{}\"}} {count}", edge as f64 / 1e6);
        }
        let (count, sum) = (self.count(), self.sum_nanos as f64 / 1e9);
        let _ = writeln!(out, "{name}_bucket{{{labels}le=\"+Inf\"}} {count}");
        let of_all = labels.strip_suffix(',').map_or_else(String::new, |labels| format!("{{{labels}}}"));
        let _ = writeln!(out, "{name}_sum{of_all} {sum}\n{name}_count{of_all} {count}");
    }
}

/// How long of some durations it took, by how many it took no longer.
#[derive(Debug, Default)]
pub struct Quantiles(Vec<u64>);

impl Quantiles {
    /// What so many in a thousand took no longer than, to an eighth; `None` if there are none.
    pub fn at(&self, in_thousand: u32) -> Option<Duration> {
        let wanted = (self.0.iter().sum::<u64>() * u64::from(in_thousand)).div_ceil(1000);
        let mut counted = 0;
        let reaches = |count: &u64| {
            counted += count;
            wanted > 0 && counted >= wanted
        };
        self.0.iter().position(reaches).map(|index| Duration::from_nanos(upper_edge(index)))
    }
}

/// What the durations of a bucket are below, in nanoseconds.
fn upper_edge(bucket: usize) -> u64 {
    let (octave, sub) = (bucket >> SUB_BITS, bucket & ((1 << SUB_BITS) - 1));
    ((1 << SUB_BITS) + sub as u64) << (LOWEST_BITS - SUB_BITS + octave as u32)
}

fn bucket(nanos: u64) -> usize {
    let bits = nanos.checked_ilog2().unwrap_or(0);
    if bits < LOWEST_BITS {
        return 0;
    }
    if bits >= HIGHEST_BITS {
        return BUCKETS - 1;
    }
    let sub = (nanos >> (bits - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (u64::from((bits - LOWEST_BITS) << SUB_BITS) + sub + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_rise_with_the_duration_and_cover_every_value() {
        let mut last = 0;
        for shift in 0..64 {
            for nanos in [1_u64 << shift, (1_u64 << shift) + (1 << shift) / 2] {
                let index = bucket(nanos);
                assert!(index >= last && index < BUCKETS, "{nanos}");
                last = index;
            }
        }
    }

    #[test]
    fn a_quantile_is_the_edge_above_it_and_only_of_what_came_since() {
        for nanos in [1_u64, 1023, 1024, 5000, 123_456, 70_000_000] {
            let (edge, index) = (upper_edge(bucket(nanos)), bucket(nanos));
            assert!(edge > nanos && edge <= (nanos + nanos / 8 + 1).max(1024), "{nanos}: {edge}");
            assert_eq!(bucket(edge - 1), index);
        }
        let histogram = Histogram::default();
        let total = || Total::of([&histogram].into_iter());
        assert_eq!(total().since(None).at(500), None);
        (0..99).for_each(|_| histogram.record(1_000_000));
        let before = total();
        histogram.record(9_000_000);
        let all = total().since(None);
        assert!(
            all.at(990).unwrap() < Duration::from_micros(1200)
                && all.at(1000).unwrap() > Duration::from_millis(8)
        );
        assert!(total().since(Some(&before)).at(500).unwrap() > Duration::from_millis(8));
    }

    #[test]
    fn the_export_is_cumulative_and_complete() {
        let histogram = Histogram::default();
        for nanos in [10_000, 80_000, 80_000, 400_000_000, u64::MAX >> 8] {
            histogram.record(nanos);
        }
        let mut text = String::new();
        Total::of([&histogram].into_iter()).write(&mut text, "x_seconds", "");
        assert!(text.contains("x_seconds_bucket{le=\"0.00005\"} 1\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{le=\"0.0001\"} 3\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{le=\"10\"} 4\n"), "{text}");
        assert!(text.contains("x_seconds_count 5\n"), "{text}");
        text.clear();
        Total::of([&histogram].into_iter()).write(&mut text, "x_seconds", "a=\"b\",");
        assert!(text.contains("x_seconds_bucket{a=\"b\",le=\"+Inf\"} 5\n"), "{text}");
        assert!(text.contains("x_seconds_count{a=\"b\"} 5\n"), "{text}");
    }
}
