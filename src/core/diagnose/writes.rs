//! What keeps a primary that answers from taking writes (`server.c`, `processCommand`): its disk, its memory, its replicas.

use crate::core::diagnose::code::{Code, Severity};
use crate::core::diagnose::finding::Finding;
use crate::core::diagnose::scene::Scene;
use crate::core::diagnose::seen::{Report, Seen};

pub(super) fn rules(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let Some((primary, report)) = scene.primary().and_then(|seen| Some((seen, seen.as_primary()?))) else {
        return;
    };
    let cli = scene.context.cli(&primary.node);
    let causes = [
        misconf(primary, report, &cli),
        too_few_replicas(primary, report, &cli),
        out_of_memory(report, &cli),
    ];
    let (evidence, remedies): (Vec<String>, Vec<String>) = causes.into_iter().flatten().unzip();
    if !evidence.is_empty() {
        let (evidence, remedy) = (evidence.join("; "), remedies.join("; "));
        found.push(Finding::new(Code::WritesRefused, Severity::Error, &primary.node, evidence, remedy));
    }
}

/// It could not save its data, and says so to `PING`, too.
fn misconf(primary: &Seen, report: &Report, cli: &str) -> Option<(String, String)> {
    let words = primary.misconf.as_ref()?;
    let mut evidence = format!("PING is answered: {words}");
    if report.bgsave_failed {
        evidence += " (rdb_last_bgsave_status:err)";
    }
    if report.aof_write_failed {
        evidence += " (aof_last_write_status:err)";
    }
    let remedy = format!(
        "its log says why it cannot save (disk full, rights, no memory to fork): mend that, then `{cli} BGSAVE`; or, if it need not \
         save, `{cli} CONFIG SET stop-writes-on-bgsave-error no`"
    );
    Some((evidence, remedy))
}

/// `-NOREPLICAS`
fn too_few_replicas(primary: &Seen, report: &Report, cli: &str) -> Option<(String, String)> {
    let good = report.good_replicas?;
    // `INFO` counts them only if some are required.
    let required = primary.settings.min_replicas_to_write.unwrap_or(1);
    (good < required).then(|| {
        let evidence = format!("min_slaves_good_slaves:{good}, min-replicas-to-write {required}");
        let remedy = format!(
            "link the replicas that are missing, or, if writes shall go on without them, `{cli} CONFIG SET min-replicas-to-write {good}`"
        );
        (evidence, remedy)
    })
}

/// `-OOM`: what is kept for replicas and the append-only file does not count (`evict.c`, `getMaxmemoryState`).
fn out_of_memory(report: &Report, cli: &str) -> Option<(String, String)> {
    let limit = report.maxmemory.filter(|limit| *limit > 0)?;
    let used = report.used_memory?.saturating_sub(report.memory_not_counted.unwrap_or(0));
    (report.evicts_nothing && used > limit).then(|| {
        let evidence = format!("used_memory:{used}, maxmemory:{limit}, maxmemory_policy:noeviction");
        let remedy = format!(
            "delete keys, or `{cli} CONFIG SET maxmemory BYTES`, or let it evict: `{cli} CONFIG SET maxmemory-policy allkeys-lru`"
        );
        (evidence, remedy)
    })
}
