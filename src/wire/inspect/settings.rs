//! `CONFIG GET`: one answer for each name that is asked for.

use redis_protocol::resp2::types::BytesFrame;

use super::{number, size, span, text};
use crate::core::diagnose::seen::{Fingerprint, Settings};

/// What is asked for.
pub const NAMES: [&str; 11] = [
    "repl-timeout",
    "repl-ping-replica-period",
    "client-output-buffer-limit",
    "min-replicas-to-write",
    "replica-serve-stale-data",
    "disable-thp",
    "replica-announce-port",
    "tls-port",
    "masterauth",
    "masteruser",
    "requirepass",
];

/// Takes in one answer: a name and its value. What does not parse changes nothing. Of a password only `fingerprint` is kept,
/// which must be the same function for all nodes.
pub fn take(settings: &mut Settings, answer: &BytesFrame, fingerprint: impl Fn(&[u8]) -> u64) {
    let BytesFrame::Array(pair) = answer else { return };
    let [name, value] = pair.as_slice() else { return };
    let (name, words) = (text(name), text(value));
    let flag = || match words {
        Some("yes") => Some(true),
        Some("no") => Some(false),
        _ => None,
    };
    let port = || number(value).and_then(|port| u16::try_from(port).ok());
    let secret = || match value {
        BytesFrame::BulkString(secret) => {
            Some(Fingerprint((!secret.is_empty()).then(|| fingerprint(secret))))
        }
        BytesFrame::Null => Some(Fingerprint(None)),
        _ => None,
    };
    match name {
        Some("repl-timeout") => settings.repl_timeout = span(number(value)),
        Some("repl-ping-replica-period") => settings.ping_period = span(number(value)),
        Some("client-output-buffer-limit") => settings.replica_buffer = words.and_then(replica_limit),
        Some("min-replicas-to-write") => settings.min_replicas_to_write = number(value),
        Some("replica-serve-stale-data") => settings.serves_stale = flag(),
        Some("disable-thp") => settings.disable_thp = flag(),
        Some("replica-announce-port") => settings.announced_port = port(),
        Some("tls-port") => settings.tls_port = port(),
        Some("masterauth") => settings.masterauth = secret(),
        Some("masteruser") => settings.has_masteruser = secret().map(|user| user.0.is_some()),
        Some("requirepass") => settings.requirepass = secret(),
        _ => {}
    }
}

/// `normal 0 0 0 slave 268435456 67108864 60 pubsub …`: the class is `slave` on every version.
fn replica_limit(value: &str) -> Option<(u64, u64, u64)> {
    let mut words = value.split(' ').skip_while(|word| *word != "slave" && *word != "replica").skip(1);
    let mut next = || words.next()?.parse().ok();
    Some((size(next())?, size(next())?, span(next())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            let part = |part: &str| BytesFrame::BulkString(part.to_owned().into());
            take(&mut settings, &BytesFrame::Array(vec![part(name), part(value)]), |secret| {
                secret.len() as u64
            });
        }
        settings
    }

    #[test]
    fn settings_are_words_and_numbers() {
        let settings = told(&[
            ("repl-timeout", "60"),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            ),
            ("replica-serve-stale-data", "yes"),
            ("replica-announce-port", "6390"),
            ("tls-port", "0"),
            ("masterauth", ""),
            ("requirepass", "hunter2"),
            ("masteruser", ""),
        ]);
        assert_eq!(settings.repl_timeout, Some(60));
        assert_eq!(settings.replica_buffer, Some((268_435_456, 67_108_864, 60)));
        assert_eq!(settings.serves_stale, Some(true));
        assert_eq!((settings.announced_port, settings.tls_port), (Some(6390), Some(0)));
        assert_eq!(
            (settings.masterauth, settings.requirepass),
            (Some(Fingerprint(None)), Some(Fingerprint(Some(7))))
        );
        assert_eq!(settings.has_masteruser, Some(false));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let mut settings = told(&[
            ("repl-timeout", "soon"),
            ("disable-thp", "maybe"),
            ("tls-port", "70000"),
            ("nosuch", "1"),
        ]);
        take(&mut settings, &BytesFrame::Array(Vec::new()), |_| 0);
        take(&mut settings, &BytesFrame::Error("NOPERM".into()), |_| 0);
        assert_eq!(settings, Settings::default());
        assert_eq!(replica_limit("normal 0 0 0"), None);
    }
}
