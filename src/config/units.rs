//! Durations and sizes as they are written: `250ms`, `16mb`.

use std::time::Duration;

/// Units of time, with their length in microseconds. The longest match of a suffix wins.
const TIMES: &[(&str, u64)] =
    &[("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

/// Units of size as in `redis.conf`: without `b` they count in thousands, with it in 1024s.
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1 << 30),
];

/// Reads `250ms`, `1s`, `2m`: a whole number and a unit. `None` when it is anything else or too large.
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, TIMES).map(Duration::from_micros)
}

/// Reads `16mb`, `1gb`, `500`: a whole number and a unit of `redis.conf`, in either case.
pub fn size(text: &str) -> Option<u64> {
    scaled(&text.to_ascii_lowercase(), SIZES)
}

/// Writes a duration as it would be written in the file.
pub fn duration_text(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        return "0s".to_owned();
    }
    let fits = TIMES.iter().rev().find(|(_, scale)| micros.is_multiple_of(u128::from(*scale)));
    fits.map_or_else(String::new, |(unit, scale)| format!("{}{unit}", micros / u128::from(*scale)))
}

/// Writes a size as it would be written in the file.
pub fn size_text(bytes: u64) -> String {
    let binary = [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10)];
    let fits = binary.iter().find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale));
    fits.map_or_else(|| bytes.to_string(), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// Reads the permissions of a file: up to three octal digits.
pub fn permissions(text: &str) -> Option<u32> {
    let octal = (1..=3).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|_| octal)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_print_as_they_are_written() {
        for text in ["500us", "250ms", "1s", "90s", "2m", "24h", "0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        assert_eq!(duration("1000ms"), Some(Duration::from_secs(1)));
        let bad = [
            "",
            "1",
            "ms",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "1S",
            "1sec",
            "1d",
            " 1s",
            "1s ",
            "18446744073709551615h",
            "99999999999999999999s",
            "١s",
        ];
        for text in bad {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_those_of_redis_conf() {
        let good = [
            ("0", 0),
            ("500", 500),
            ("500b", 500),
            ("1k", 1000),
            ("1kb", 1024),
            ("1KB", 1024),
            ("16mb", 16 << 20),
            ("5m", 5_000_000),
            ("1gB", 1 << 30),
            ("2g", 2_000_000_000),
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "mb", "-1", "1.5mb", "1 mb", "1tb", "1kib", "99999999999gb"] {
            assert_eq!(size(text), None, "{text:?}");
        }
        assert_eq!(size_text(64 << 20), "64mb");
        assert_eq!(size_text(1000), "1000");
        assert_eq!(size_text(0), "0");
    }
}
