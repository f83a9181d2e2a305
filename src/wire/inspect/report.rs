//! `INFO` as the doctor needs it: what [`Info`] has, and some more.

use super::{size, span};
use crate::core::diagnose::seen::Report;
use crate::core::nodes::node::LinkDown;
use crate::wire::info::Info;

/// Replicas of one server that are looked at.
const MOST_REPLICAS: usize = 256;

/// Reads the text of an `INFO` reply.
pub fn parse(text: &[u8]) -> Report {
    let info = Info::parse(text);
    let online = info.replicas.iter().filter(|replica| replica.online).take(MOST_REPLICAS);
    let online = online.map(|replica| (replica.host.clone(), replica.port)).collect();
    let resyncing = info.replicas.iter().filter(|replica| !replica.online).take(MOST_REPLICAS);
    let resyncing = resyncing.map(|replica| (replica.host.clone(), replica.port)).collect();
    let mut report = Report {
        role: info.role,
        history: info.history(),
        port: info.port,
        uptime_seconds: span(info.uptime_seconds),
        blocked_clients: info.blocked_clients,
        loading: info.loading == Some(true) || info.async_loading == Some(true),
        sync_full: info.sync_full,
        sync_partial_err: info.sync_partial_err,
        latest_fork_usec: info.latest_fork_usec,
        offset: info.offset,
        applied: info.applied,
        master: info.master_host.zip(info.master_port),
        link_up: info.link_up,
        link_down: info.link_down.filter(|down| match down {
            LinkDown::Never => true,
            LinkDown::For(time) => span(Some(time.as_secs())).is_some(),
        }),
        last_io_seconds: span(info.last_io_seconds),
        sync_in_progress: info.sync_in_progress == Some(true),
        read_only: info.read_only,
        connected_replicas: info.connected_replicas,
        good_replicas: info.good_replicas,
        backlog_size: size(info.backlog_size),
        version: info.version,
        valkey_version: info.valkey_version,
        run_id: info.run_id,
        online,
        resyncing,
        ..Report::default()
    };
    if text.len() <= Info::MOST_BYTES {
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).ok();
            if line == Some("# Keyspace") {
                // A server without keys has the section, and nothing in it.
                report.keys.get_or_insert(0);
            } else if let Some((field, value)) = line.and_then(|line| line.split_once(':')) {
                set(&mut report, field, value);
            }
        }
    }
    report
}

/// The server's clock, in microseconds since 1970 (`server_time_usec`; Redis 6.2 and later).
pub fn clock(text: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(text, b"\nserver_time_usec:")?;
    let rest = text.get(at + b"\nserver_time_usec:".len()..)?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|usec| *usec <= 1 << 56)
}

fn set(report: &mut Report, field: &str, value: &str) {
    let number = || value.parse::<u64>().ok();
    match field {
        "loading_eta_seconds" => report.loading_eta_seconds = span(number()),
        "rdb_last_bgsave_status" => report.bgsave_failed = value == "err",
        "aof_last_write_status" => report.aof_write_failed = value == "err",
        "used_memory" => report.used_memory = size(number()),
        "mem_not_counted_for_evict" => report.memory_not_counted = size(number()),
        "maxmemory" => report.maxmemory = size(number()),
        "maxmemory_policy" => report.evicts_nothing = value == "noeviction",
        "total_forks" => report.total_forks = number(),
        "rdb_bgsave_in_progress" => report.bgsave = value == "1",
        "master_sync_left_bytes" => report.sync_left_bytes = size(number()),
        "master_sync_last_io_seconds_ago" => report.sync_last_io_seconds = span(number()),
        "client_output_buffer_limit_disconnections" => report.buffer_kills = number(),
        // `errorstat_NOAUTH` counts whoever gives none: health checks, and the doctor.
        "errorstat_WRONGPASS" => {
            let count = value.strip_prefix("count=").and_then(|count| count.parse::<u64>().ok());
            report.auth_failures = count.unwrap_or(0);
        }
        _ => {
            let database = field.strip_prefix("db").and_then(|db| db.parse::<u32>().ok());
            let keys =
                value.strip_prefix("keys=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
            if let Some((_, keys)) = database.zip(keys) {
                report.keys = Some(report.keys.unwrap_or(0).saturating_add(keys));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::nodes::node::{LinkDown, Role};

    #[test]
    fn a_primary_of_redis_7() {
        let report = parse(include_bytes!("../../core/diagnose/said/primary-7.0.txt"));
        assert_eq!(report.role, Some(Role::Primary));
        assert_eq!((report.keys, report.backlog_size), (Some(1), Some(1 << 20)));
        assert_eq!(report.auth_failures, 6);
        assert_eq!(report.online.len(), 1);
        assert_eq!((report.latest_fork_usec, report.total_forks), (Some(2156), Some(1)));
        assert!(
            clock(include_bytes!("../../core/diagnose/said/primary-7.0.txt"))
                .is_some_and(|usec| usec > 1 << 50)
        );
    }

    #[test]
    fn a_replica_whose_primary_is_gone() {
        let report = parse(include_bytes!("../../core/diagnose/said/replica-down-7.0.txt"));
        assert_eq!(report.link_down, Some(LinkDown::For(Duration::from_secs(7))));
        assert_eq!(
            (report.link_up, report.sync_in_progress, report.read_only),
            (Some(false), false, Some(true))
        );
    }

    #[test]
    fn others_say_the_same() {
        for text in [
            &include_bytes!("../../core/diagnose/said/primary-6.2.txt")[..],
            include_bytes!("../../core/diagnose/said/primary-valkey-8.1.txt"),
        ] {
            let report = parse(text);
            assert_eq!((report.role, report.keys, report.online.len()), (Some(Role::Primary), Some(0), 1));
            assert!(clock(text).is_some() && report.history.is_some() && report.run_id.is_some());
        }
    }

    #[test]
    fn what_makes_no_sense_is_absent() {
        let report = parse(
            b"db0:keys=x,expires=0\r\ndbx:keys=1\r\nmaster_sync_left_bytes:-1\r\nerrorstat_WRONGPASS:count\r\n",
        );
        assert_eq!(report, Report::default());
        assert_eq!(clock(b"\r\nserver_time_usec:soon\r\n"), None);
    }
}
