//! Who answers, and what keeps the others from it.

use std::time::Duration;

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::Finding;
use crate::core::diagnose::scene::Scene;
use crate::core::diagnose::seen::{Look, Problem, Seen};
use crate::core::nodes::trouble::{self, ProblemKind};

/// What of an ACL Redweir's own user needs; see `docs/operations.md`.
const RULES: &str = "+role +info +ping +reset +command '+config|get' +psync +replconf +hello '+client|tracking' '+acl|list' \
                     +xread '~redweir:nothing'";

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let expected = scene.expected_primary().map(|seen| seen.node.as_str());
    for seen in &scene.now.nodes {
        let is_primary = expected == Some(seen.node.as_str());
        if let Some(problem) = &seen.problem {
            let has_problem = |look: &Look| look.node(&seen.node).is_some_and(|then| then.problem.is_some());
            found.push(unanswered(scene, seen, problem, is_primary).lasting(scene.lasting(has_problem)));
        } else if let Some(words) = &seen.refuses {
            found.push(noauth(scene, seen, words));
        } else if is_primary && seen.report.as_ref().is_some_and(|report| report.loading) {
            found.push(loading(seen));
        }
    }
    for sentinel in &scene.now.sentinels {
        if let Some(problem) = &sentinel.problem {
            let evidence = format!("the sentinel does not tell: {problem}");
            let remedy = if problem.contains("No such master") {
                "correct [upstream.sentinel] master-name"
            } else if problem.contains("authentication refused") || problem.contains("NOAUTH") {
                "correct [upstream.sentinel] username and password-file"
            } else {
                "start it, or take it out of [upstream.sentinel] addresses"
            };
            // Without any of them nobody is known.
            let all = scene.now.sentinels.iter().all(|sentinel| sentinel.problem.is_some());
            let severity = if all { Severity::Error } else { Severity::Warning };
            found.push(Finding::new(
                Code::Unreachable,
                severity,
                &sentinel.sentinel,
                evidence,
                remedy.to_owned(),
            ));
        }
    }
}

fn unanswered(scene: &Scene<'_>, seen: &Seen, problem: &Problem, is_primary: bool) -> Finding {
    let (node, cli) = (&seen.node, scene.context.cli(&seen.node));
    let find = |code, evidence, remedy| Finding::new(code, Severity::Error, node, evidence, remedy);
    match problem {
        Problem::Connect(why) if why.contains("lookup address") || why.contains("not known") => find(
            Code::Unreachable,
            format!("no connection is made: {why}"),
            "correct its name in [upstream], or the DNS".to_owned(),
        ),
        Problem::Connect(why) => find(
            Code::Unreachable,
            format!("no connection is made: {why}"),
            format!(
                "is the server up (`{cli} PING` from its own machine), is its address right, is the path open?"
            ),
        ),
        Problem::Silent if is_primary => find(
            Code::PrimaryBlocked,
            format!("{}: its event loop is blocked, or its process is stopped", problem.text()),
            format!(
                "when it answers again: `{cli} SLOWLOG GET`; no KEYS, no long scripts, no swapping, no huge pages"
            ),
        ),
        Problem::Silent => find(
            Code::Unreachable,
            problem.text(),
            format!(
                "its process hangs, is stopped, or the path drops what is said: `{cli} PING` from its own machine"
            ),
        ),
        Problem::Busy(words) => {
            let code = if is_primary { Code::PrimaryBlocked } else { Code::Unreachable };
            let remedy = format!(
                "`{cli} SCRIPT KILL` (or FUNCTION KILL); a script that has written ends only with SHUTDOWN NOSAVE"
            );
            find(code, format!("PING is answered: {words}"), remedy)
        }
        Problem::Auth(words) => noauth(scene, seen, words),
        Problem::Denied(words) => {
            let code = if scene.context.primary.as_ref() == Some(node) {
                Code::NotAPrimary
            } else {
                Code::Unreachable
            };
            let remedy = "give the server a password and Redweir, too (requirepass, [upstream] password-file), or set its \
                          `bind` and `protected-mode no`";
            find(code, format!("it lets nobody in from here: {words}"), remedy.to_owned())
        }
        Problem::Other(words) if words.starts_with("ERR max number of clients") => {
            let remedy = format!(
                "close connections that nobody needs (`{cli} CLIENT LIST`), or raise maxclients in its configuration"
            );
            find(Code::Unreachable, format!("it has as many clients as it may have: {words}"), remedy)
        }
        Problem::Other(words) if words.starts_with("no reply as Redis gives it") => find(
            Code::Unreachable,
            words.clone(),
            "is its address right? Something else than Redis listens there".to_owned(),
        ),
        Problem::Other(words) => {
            let remedy = format!("see what `{cli} INFO` answers, and the log of the server");
            find(Code::Unreachable, format!("it answers: {words}"), remedy)
        }
    }
}

fn noauth(scene: &Scene<'_>, seen: &Seen, words: &str) -> Finding {
    let cli = scene.context.cli(&seen.node);
    let user = scene.context.user.as_deref();
    let unneeded = trouble::Problem::of_login(words).kind == ProblemKind::NoPasswordWanted;
    let remedy = match (words.split(' ').next().unwrap_or_default(), user) {
        _ if unneeded => "the server has no password: remove [upstream] password-file, or set one there (requirepass)".to_owned(),
        ("NOPERM", user) => format!("`{cli} ACL SETUSER {} {RULES}`", user.unwrap_or("default")),
        (_, None) => {
            "give Redweir the password of the server ([upstream] password-file), and a user of its own (username)".to_owned()
        }
        (_, Some(user)) => format!(
            "put the right password into [upstream] password-file, or give the server the user: `{cli} ACL SETUSER {user} on \
             '>PASSWORD' {RULES}`"
        ),
    };
    let who = user.unwrap_or("default");
    Finding::new(
        Code::Noauth,
        Severity::Error,
        &seen.node,
        format!("it answers Redweir (user {who}): {words}"),
        remedy,
    )
}

fn loading(seen: &Seen) -> Finding {
    let eta = seen.report.as_ref().and_then(|report| report.loading_eta_seconds);
    let eta = eta.map_or_else(String::new, |eta| format!(", loading_eta_seconds:{eta}"));
    let remedy = "wait: it answers commands when it has loaded its data".to_owned();
    Finding::new(Code::Loading, Severity::Warning, &seen.node, format!("loading:1{eta}"), remedy).lasting(
        Duration::from_secs(seen.report.as_ref().and_then(|report| report.uptime_seconds).unwrap_or(0)),
    )
}
