//! What the process itself takes: processor time, memory, descriptors, under the names that Prometheus' own client libraries
//! give them. What the system does not tell is absent.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

use super::family::Family;
use crate::core::moment::Moment;
use crate::net::runtime::clock;

/// How long what was read is told again: to count descriptors takes time, and whoever asks for page after page gets no more of it.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Of this process.
#[derive(Debug)]
pub(crate) struct Process {
    /// In seconds since 1970.
    started: f64,
    /// What was told last, and when.
    told: Mutex<Option<(Moment, String)>>,
}

impl Process {
    /// It has begun as long ago as the clock runs, nearly.
    pub(crate) fn new() -> Self {
        let since_first_reading = clock::now().as_nanos() as f64 / 1e9;
        let started = clock::unix().as_secs_f64() - since_first_reading;
        Self { started: (started * 100.0).round() / 100.0, told: Mutex::default() }
    }

    /// When it was started, in seconds since 1970.
    pub(crate) const fn started(&self) -> f64 {
        self.started
    }

    pub(super) fn write(&self, page: &mut String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let (_, text) = match told.take_if(|(at, _)| now.since(*at) < READ_EVERY) {
            Some(known) => told.insert(known),
            None => told.insert((now, self.read())),
        };
        page.push_str(text);
    }

    fn read(&self) -> String {
        let mut page = String::new();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |field: &str| number(&status, field).map(|kib| kib * 1024.0);
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        let most_files = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64);
        let families = [
            (
                Family::counter(
                    "process_cpu_seconds_total",
                    "Processor time that the process took, of users and system.",
                ),
                cpu_seconds(),
            ),
            (
                Family::gauge(
                    "process_resident_memory_bytes",
                    "Memory of the process that is not swapped out.",
                ),
                bytes("VmRSS"),
            ),
            (
                Family::gauge("process_virtual_memory_bytes", "Memory that the process has mapped."),
                bytes("VmSize"),
            ),
            (
                Family::gauge(
                    "process_start_time_seconds",
                    "When the process was started, in seconds since 1970.",
                ),
                Some(self.started),
            ),
            (Family::gauge("process_threads", "Threads of the process."), number(&status, "Threads")),
            (Family::gauge("process_open_fds", "Descriptors that are open."), files),
            (Family::gauge("process_max_fds", "Descriptors that may be open."), most_files),
        ];
        for (family, value) in families {
            family.write(&mut page, value.map(|value| (String::new(), value)));
        }
        page
    }
}

/// Memory of the process that is not swapped out, in bytes.
pub(crate) fn resident_memory() -> Option<f64> {
    number(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS").map(|kib| kib * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(micros as f64 / 1e6)
}

/// The number of a field of `/proc/self/status`.
fn number(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_status_are_found_by_their_whole_names() {
        let status = "Name:\tredweir\nVmSize:\t  200 kB\nVmRSS:\t  100 kB\nThreads:\t5\n";
        assert_eq!((number(status, "VmRSS"), number(status, "Threads")), (Some(100.0), Some(5.0)));
        assert_eq!((number(status, "Vm"), number(status, "VmSwap")), (None, None));
    }

    #[test]
    fn a_process_tells_what_it_takes() {
        let (process, mut page, mut again) = (Process::new(), String::new(), String::new());
        process.write(&mut page);
        process.write(&mut again);
        assert_eq!(page, again, "it is not read for each page");
        for name in
            ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_start_time_seconds 1"]
        {
            assert!(page.contains(&format!("\n{name}")), "{page}");
        }
    }
}
