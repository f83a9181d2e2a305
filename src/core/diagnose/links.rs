//! The link of each replica: up and silent, down and why, or on its way back.

use std::fmt::Write as _;
use std::time::Duration;

use crate::core::address::Address;
use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::{Finding, bytes, seconds};
use crate::core::diagnose::scene::{STARTED_AS_A_REPLICA, Scene, are_related, is_on_its_way, is_resyncing};
use crate::core::diagnose::seen::{Fingerprint, Look, Report, Seen};
use crate::core::nodes::node::LinkDown;

/// Until then a restart or a failover is probable; from [`NEEDS_A_PERSON`] on somebody has to look.
const PROBABLY_A_RESTART: Duration = Duration::from_secs(30);
const NEEDS_A_PERSON: Duration = Duration::from_mins(1);
/// A replica that was started just now, or told whom to follow, has had no time for its first synchronisation.
const JUST_NOW: Duration = Duration::from_secs(5);
/// A dump of which nothing has come for so long has stopped coming.
const DUMP_STALLS: u64 = 15;
/// A replica that is refused tries again each second, or at once: so many wrong passwords in a row, …
const WRONG_PASSWORDS: u64 = 2;
/// … and this far apart at most.
const TRIES_EVERY: Duration = Duration::from_secs(2);
/// How old something in the log of denials may be to be the reason for what is seen now.
const DENIED_LATELY: Duration = Duration::from_secs(30);
/// Seconds, unless `CONFIG GET` says otherwise (`redis.conf`).
const PING_PERIOD: u64 = 10;
const REPL_TIMEOUT: u64 = 60;

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let Some(primary) = scene.primary() else { return };
    let Some(theirs) = primary.as_primary() else { return };
    for (seen, replica) in scene.replicas() {
        if replica.link_up == Some(true) {
            found.extend(silent_link(scene, seen, replica, primary));
            continue;
        }
        let wrong = wrong_password(scene, seen, primary);
        let resyncs = is_resyncing(scene.now, scene.context, (seen, replica), Some(theirs));
        let never = replica.link_down == Some(LinkDown::Never);
        if never && (wrong.is_some() || !resyncs) {
            found.extend(never_synced(scene, seen, replica, primary));
        }
        if let Some(evidence) = wrong {
            found.push(auth_mismatch(scene, (seen, replica), primary, evidence));
        } else if resyncs {
            found.push(full_resync(seen, replica, primary));
        } else if !never && !is_on_its_way(replica) {
            found.push(link_broken(scene, seen, replica, primary));
        }
    }
}

/// The values of a link that is down.
fn down(seen: &Seen, replica: &Report) -> String {
    let since = match replica.link_down {
        Some(LinkDown::Never) => "-1".to_owned(),
        Some(LinkDown::For(span)) => span.as_secs().to_string(),
        None => "?".to_owned(),
    };
    let (host, port) = replica.master.clone().unwrap_or_default();
    let state = seen.link_state.unwrap_or("?");
    format!(
        "master_link_status:down, master_link_down_since_seconds:{since}, master_host:{host}, master_port:{port}, ROLE says \
         {state}"
    )
}

fn link_broken(scene: &Scene<'_>, seen: &Seen, replica: &Report, primary: &Seen) -> Finding {
    let lasts = scene.down_for(seen, replica);
    let (host, port) = replica.master.clone().unwrap_or_default();
    let followed = Address::announced(&host, port).map_or_else(|| host.clone(), |at| at.to_string());
    let from_here = scene.context.reached(&host, port);
    // Writing to a `String` cannot fail.
    let mut evidence = format!("{}; the primary {} answers here", down(seen, replica), primary.node);
    let is_followed = |stranger: &&Seen| Some(&stranger.node) == from_here.as_ref();
    if let Some(stranger) = scene.now.strangers.iter().find(is_followed) {
        let what = match &stranger.problem {
            Some(problem) => problem.text(),
            None if stranger.run_id() == primary.run_id() => "it leads to the primary".to_owned(),
            None => "somebody else answers there".to_owned(),
        };
        let _ = write!(evidence, "; {} from here: {what}", stranger.node);
    }
    if are_related(replica.history, primary.report.as_ref().and_then(|report| report.history)) == Some(false)
    {
        evidence.push_str("; its replication ID is not that of the primary: it will need a full resync");
    }
    if lasts < PROBABLY_A_RESTART {
        evidence.push_str("; so far probably a restart or a failover");
    }
    let backlog = primary
        .report
        .as_ref()
        .and_then(|report| report.backlog_size)
        .map_or_else(String::new, |size| format!(" of {}", bytes(size)));
    let severity = if lasts >= NEEDS_A_PERSON { Severity::Error } else { Severity::Warning };
    let right = scene.context.follow(&seen.node, &primary.node);
    let is_other = |stranger: &Seen| stranger.run_id().is_some() && stranger.run_id() != primary.run_id();
    if from_here.as_ref() == Some(&seen.node)
        || scene.now.strangers.iter().any(|stranger| is_followed(&stranger) && is_other(stranger))
    {
        let whom = if from_here.as_ref() == Some(&seen.node) { "itself" } else { &followed };
        let remedy = format!("it follows {whom}, which is not the primary: {right}");
        return Finding::new(Code::LinkBroken, severity, &seen.node, evidence, remedy).lasting(lasts);
    }
    let remedy = format!(
        "restore the path from {} to {followed} (on its machine: `{} PING`), or point it to the right one ({right}); \
         don't restart it: that forces a full resync if the backlog{backlog} does not cover the gap",
        seen.node,
        scene.context.cli(&followed)
    );
    Finding::new(Code::LinkBroken, severity, &seen.node, evidence, remedy).lasting(lasts)
}

fn full_resync(seen: &Seen, replica: &Report, primary: &Seen) -> Finding {
    let mut evidence = format!(
        "master_sync_in_progress:{}, loading:{}",
        u8::from(replica.sync_in_progress),
        u8::from(replica.loading)
    );
    if let Some(left) = replica.sync_left_bytes {
        let _ = write!(evidence, ", master_sync_left_bytes:{left}");
    } else if !replica.sync_in_progress && !replica.loading {
        evidence.push_str(", and the primary prepares its dump");
    }
    if let Some(eta) = replica.loading_eta_seconds.filter(|_| replica.loading) {
        let _ = write!(evidence, ", loading_eta_seconds:{eta}");
    }
    let find = |severity, evidence, remedy| {
        Finding::new(Code::FullResyncRunning, severity, &seen.node, evidence, remedy)
    };
    // While it loads what it has received nothing more comes.
    let stalls = |silence: &u64| *silence >= DUMP_STALLS && replica.sync_in_progress && !replica.loading;
    if let Some(silence) = replica.sync_last_io_seconds.filter(stalls) {
        let evidence = format!(
            "{evidence}, master_sync_last_io_seconds_ago:{silence}: nothing of the dump comes any more"
        );
        let remedy = format!(
            "look at the path from {} to {}, at the log of that primary (does its child still write the dump?), and at the disks of \
                     both; after repl-timeout the replica begins anew by itself",
            seen.node, primary.node
        );
        return find(Severity::Warning, evidence, remedy).lasting(Duration::from_secs(silence));
    }
    find(Severity::Info, evidence, "wait: a full resync runs, which is no fault".to_owned())
}

/// A replica without a first synchronisation. Whether it was started as one, or has been told just now whom to follow, it does
/// not say.
fn never_synced(scene: &Scene<'_>, seen: &Seen, replica: &Report, primary: &Seen) -> Option<Finding> {
    let (lasts, uptime) = (scene.never_for(seen, replica), replica.uptime_seconds.map(Duration::from_secs));
    let is_known = |look: &Look| {
        let then = look.node(&seen.node).and_then(Seen::as_replica);
        then.is_some_and(|then| then.link_down == Some(LinkDown::Never) && then.master == replica.master)
    };
    let severity = if lasts >= JUST_NOW {
        Severity::Error
    } else if !scene.context.goes_on
        && uptime.is_none_or(|uptime| uptime > STARTED_AS_A_REPLICA)
        && scene.looks.iter().all(is_known)
    {
        Severity::Warning
    } else {
        return None;
    };
    let evidence = format!(
        "{}: it has never had a link to that primary, for {} at least",
        down(seen, replica),
        seconds(lasts)
    );
    let remedy = format!(
        "look at its log, at its `masterauth`, at the path from it to {}, and at its disk; until then Redweir reads nothing \
         there",
        primary.node
    );
    Some(Finding::new(Code::NeverSynced, severity, &seen.node, evidence, remedy).lasting(lasts))
}

fn auth_mismatch(
    scene: &Scene<'_>,
    (seen, replica): (&Seen, &Report),
    primary: &Seen,
    why: Wrong,
) -> Finding {
    let (cli, evidence) =
        (scene.context.cli(&seen.node), format!("{}; {}", down(seen, replica), why.shown_by));
    let remedy = match why.lacks_rights {
        Some(user) => format!(
            "`{} ACL SETUSER {} +psync +replconf +ping`, and keep it there (ACL SAVE, or CONFIG REWRITE)",
            scene.context.cli(&primary.node),
            user.escape_debug()
        ),
        None => format!(
            "`{cli} CONFIG SET masterauth PASSWORD`, with the password of {} (and `CONFIG SET masteruser USER`, if that has a user \
         for its replicas, with +psync +replconf +ping), then `{cli} CONFIG REWRITE`",
            primary.node
        ),
    };
    Finding::new(Code::AuthMismatch, Severity::Error, &seen.node, evidence, remedy)
        .lasting(scene.down_for(seen, replica))
}

/// Why a primary does not let a replica follow it.
struct Wrong {
    shown_by: String,
    /// Not the password is wrong, but what this user may do.
    lacks_rights: Option<String>,
}

impl From<String> for Wrong {
    fn from(shown_by: String) -> Self {
        Self { shown_by, lacks_rights: None }
    }
}

/// Whether a replica that has no link has the wrong password for its primary, and what shows it. Where both show their passwords
/// these are compared; where not, it shows by replicas that are refused trying again at once.
fn wrong_password(scene: &Scene<'_>, seen: &Seen, primary: &Seen) -> Option<Wrong> {
    let known = seen.settings.masterauth.zip(primary.settings.requirepass);
    let alone = seen.settings.has_masteruser == Some(false);
    match known.filter(|_| alone) {
        // Somebody else than `requirepass` says who the default user is.
        Some((_, Fingerprint(None))) if primary.wants_password != Some(false) => {}
        Some((theirs, ours)) if theirs == ours => return None,
        Some((Fingerprint(None), _)) => {
            return Some(format!("{} wants a password, and `masterauth` is not set", primary.node).into());
        }
        Some((_, Fingerprint(None))) => {
            let shown_by = format!(
                "`masterauth` is set, and {} has no password, which it takes for a wrong one",
                primary.node
            );
            return Some(shown_by.into());
        }
        Some(_) => return Some(format!("`masterauth` is not the password of {}", primary.node).into()),
        None => {}
    }
    let denied = primary.denials.iter().filter(|denial| denial.ago <= DENIED_LATELY);
    let logged = denied.clone().find(|denial| {
        let is_of_replicas =
            ["psync", "replconf"].iter().any(|word| denial.object.eq_ignore_ascii_case(word));
        denial.reason == "command" && is_of_replicas && Some(&denial.user) != scene.context.user.as_ref()
    });
    if let Some(denial) = logged {
        let shown_by =
            format!("ACL LOG of {}: user {} was denied {}", primary.node, denial.user, denial.object);
        return Some(Wrong { shown_by, lacks_rights: Some(denial.user.clone()) });
    }
    let look = scene.before(TRIES_EVERY)?;
    let then = Scene::then(look, primary)?;
    let failures = |seen: &Seen| seen.report.as_ref().map_or(0, |report| report.auth_failures);
    let failed = failures(primary).saturating_sub(failures(then));
    let span = scene.ago(look.at);
    let logged = denied.filter(|denial| denial.reason == "auth").max_by_key(|denial| denial.count);
    let logged = logged.map_or_else(String::new, |denial| {
        format!(", and its ACL LOG has user {} {} times", denial.user, denial.count)
    });
    let goes_on = span <= TRIES_EVERY * u32::try_from(failed).unwrap_or(u32::MAX);
    (failed >= WRONG_PASSWORDS && goes_on).then(|| {
        format!(
            "{} has refused {failed} passwords within {} (errorstat_WRONGPASS){logged}",
            primary.node,
            seconds(span)
        )
        .into()
    })
}

/// A link that is up by the word of the replica, and on which nothing comes.
fn silent_link(scene: &Scene<'_>, seen: &Seen, replica: &Report, primary: &Seen) -> Option<Finding> {
    let silence = replica.last_io_seconds?;
    let period = primary.settings.ping_period.unwrap_or(PING_PERIOD);
    let timeout = seen.settings.repl_timeout.unwrap_or(REPL_TIMEOUT);
    if !hangs(silence, period) {
        return rare_heartbeat(scene, seen, primary, (period, timeout));
    }
    let evidence = format!(
        "master_link_status:up, master_last_io_seconds_ago:{silence}, repl-ping-replica-period {period}, repl-timeout {timeout}: \
         the primary answers here and sends something every {period} s, and none of it arrives; the socket is still open"
    );
    let remedy = format!(
        "the path drops packets without a word: look at it (firewall, NAT, conntrack). The replica gives the link up after \
         repl-timeout; lower it (`{} CONFIG SET repl-timeout {}`), `tcp-keepalive`, and net.ipv4.tcp_retries2, which keeps a dead \
         socket for minutes",
        scene.context.cli(&seen.node),
        timeout.min(5 * period.max(2))
    );
    let finding = Finding::new(Code::TcpHang, Severity::Warning, &seen.node, evidence, remedy);
    Some(finding.lasting(Duration::from_secs(silence)))
}

/// Whether that is longer than a primary is silent.
const fn hangs(silence: u64, period: u64) -> bool {
    silence > 2 * period + 2
}

/// What comes seldom is found by the longest silence of all looks: each shows one moment between two pings.
fn rare_heartbeat(
    scene: &Scene<'_>,
    seen: &Seen,
    primary: &Seen,
    (period, timeout): (u64, u64),
) -> Option<Finding> {
    let silence = |look: &Look| {
        let (ours, theirs) = (Scene::then(look, primary)?, Scene::then(look, seen)?);
        // Of another period it says nothing.
        let then =
            theirs.as_replica().filter(|_| ours.settings.ping_period == primary.settings.ping_period)?;
        then.last_io_seconds.filter(|silence| !hangs(*silence, period))
    };
    let longest = scene.looks.iter().filter_map(silence).max()?;
    (longest >= 2 && longest * 10 >= timeout * 6).then(|| {
        let evidence = format!(
            "master_link_status:up, master_last_io_seconds_ago:{longest} at the most of late, repl-ping-replica-period {period}, \
             repl-timeout {timeout}: what the primary sends comes {} before the link is given up",
            seconds(Duration::from_secs(timeout.saturating_sub(longest)))
        );
        let remedy = format!(
            "`{} CONFIG SET repl-ping-replica-period {}`",
            scene.context.cli(&primary.node),
            (timeout / 6).max(1)
        );
        Finding::new(Code::HeartbeatTooRare, Severity::Warning, &seen.node, evidence, remedy)
    })
}
