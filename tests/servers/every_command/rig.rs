//! A primary, two replicas that lag, two proxies, and a crowd of clients.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::clients::{Crowd, Role, Where};
use super::grammar::{Judge, LIBRARY, TABLE};
use super::history::{History, Level, Read};
use super::judge::{Bench, Verdict, Violation};
use super::oracle::Oracle;
use super::recorder::Recorder;
use crate::support::rng::Rng;
use crate::support::{Direction, Proxy, Relay, Setup, Topology, eventually, ms, secs, sleep_ms};

/// Of the two links in milliseconds, give or take a half. Now and then the first one is like the second.
const LAGS: [u64; 2] = [3, 40];
/// How often that changes, and how much is written.
const WEATHER: u64 = 60;
/// Clients of each proxy.
const CLIENTS: usize = 6;
/// So many write past the proxies, which are by way of this.
pub(crate) const PAST: usize = 2;

/// What clients connect to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Two proxies, one of which doesn't follow the stream.
    Proxies,
    /// Nothing: they write to the primary and read from a replica that lags by so much.
    Nobody { lag: Duration },
}

/// What happens to the topology. The primary stays the primary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A replica follows the other one, from afar.
    Chain,
    /// A replica follows the other one, which is behind it: it gets an old dump.
    Backwards,
    /// A replica is nobody's for a moment.
    Alone,
    /// A replica is killed, and comes back with nothing.
    RestartEmpty,
    /// A replica hears nothing for a while.
    CutLink,
}

impl Fault {
    /// Those that leave no doubt who the primary is.
    pub(crate) const CLEAR: &[Self] = &[Self::Backwards, Self::Chain, Self::CutLink, Self::RestartEmpty];
    /// Two say that they are the primary.
    pub(crate) const UNCLEAR: &[Self] = &[Self::Alone];
}

pub(crate) struct Rig {
    level: Level,
    topology: Topology,
    proxies: Vec<Proxy>,
    recorder: Recorder,
    crowd: Crowd,
    rng: Rng,
    /// The lag of the first replica.
    near: u64,
    faults: &'static [Fault],
    begun: Instant,
    struck: Vec<(Duration, String)>,
}

/// What it came to.
pub(crate) struct Outcome {
    level: Level,
    faults: &'static [Fault],
    /// What was done to the topology, and taken back, and when.
    struck: Vec<(Duration, String)>,
    history: History,
    oracle: Oracle,
    /// Of each proxy: reads that replicas served, and the primary.
    served: Vec<(f64, f64)>,
    /// Read commands that no replica executed.
    missed: Vec<&'static str>,
}

impl Rig {
    pub(crate) fn start(level: Level, behind: Behind, faults: &'static [Fault], seed: u64) -> Self {
        let topology = Topology::start(2);
        let fixed = Oracle::fixed(&topology.primary);
        let begun = Instant::now();
        let recorder = Recorder::attach(&topology.primary, begun);
        assert_eq!(topology.primary.cmd(&["FUNCTION", "LOAD", LIBRARY]), "checker");
        topology.await_sync();
        let proxies = if behind == Behind::Proxies { start_proxies(&topology, level) } else { Vec::new() };
        let primary = topology.primary.port;
        let past = Where {
            port: primary,
            via: PAST,
            reads: None,
            role: Role::Write,
            resp3: false,
            faults: !faults.is_empty(),
        };
        let mut clients = vec![past; PAST];
        let ports: Vec<u16> = proxies.iter().map(|proxy| proxy.port).collect();
        for n in 0..2 * CLIENTS {
            let at = Where { role: Role::Any, resp3: n / 2 % 2 == 1, ..past };
            clients.push(match behind {
                Behind::Proxies => {
                    let role = if n < 2 { Role::Alike { side: primary } } else { Role::Any };
                    Where { port: ports[n % 2], via: n % 2, role, ..at }
                }
                Behind::Nobody { .. } => Where { via: 0, reads: Some(topology.replicas[1].port), ..at },
            });
        }
        if let Behind::Nobody { lag } = behind {
            Oracle::load_scripts(&topology.replicas[1]);
            topology.lag(1, lag);
        }
        let crowd = Crowd::start(&clients, &fixed, seed, begun);
        let rng = Rng::new(seed ^ 0x5eed);
        Self {
            level,
            topology,
            proxies,
            recorder,
            crowd,
            rng,
            near: LAGS[0],
            faults,
            begun,
            struck: Vec::new(),
        }
    }

    pub(crate) fn run_for(mut self, time: Duration) -> Outcome {
        let begun = Instant::now();
        let mut faults = self.faults.iter().cycle();
        while begun.elapsed() < time {
            self.weather();
            if let Some(fault) = faults.next() {
                self.strike(*fault);
            }
        }
        let Self { level, topology, proxies, recorder, crowd, faults, struck, .. } = self;
        let units = crowd.finish();
        let (entries, heads) = recorder.finish();
        let served = |proxy: &Proxy| {
            let by =
                |target| proxy.metric("redweir_commands_total", &[("access", "read"), ("target", target)]);
            (by("replica"), by("primary"))
        };
        let reads = TABLE
            .iter()
            .filter(|entry| entry.judge != Judge::Write && !["OBJECT", "XINFO"].contains(&entry.name));
        let by_replicas = |name: &str| topology.replica_calls(&name.to_lowercase()).iter().sum::<u64>();
        let missed = reads.filter(|entry| by_replicas(entry.name) == 0).map(|entry| entry.name).collect();
        let served = proxies.iter().map(served).collect();
        let digest = topology.primary.cmd(&["DEBUG", "DIGEST"]);
        let mut oracle = Oracle::start();
        let history = History::new(entries, heads, units, &mut oracle, &digest);
        Outcome { level, faults, struck, history, oracle, served, missed }
    }

    fn weather(&mut self) {
        self.crowd.calm(self.rng.below(4) > 0);
        if !self.proxies.is_empty() {
            if self.rng.below(5) == 0 {
                self.near = if self.rng.below(3) == 0 { LAGS[1] } else { LAGS[0] };
            }
            for (n, lag) in [self.near, LAGS[1]].into_iter().enumerate() {
                self.topology.lag(n, ms(lag / 2 + self.rng.next() % (lag + 1)));
            }
        }
        sleep_ms(WEATHER);
    }

    /// Does something to the second replica, and takes it back.
    pub(crate) fn strike(&mut self, fault: Fault) {
        self.struck.push((self.begun.elapsed(), format!("{fault:?}")));
        let follow = |replica: &crate::support::Redis, port: u16| {
            assert_eq!(replica.cmd(&["REPLICAOF", "127.0.0.1", &port.to_string()]), "OK");
        };
        match fault {
            Fault::Chain => {
                let link = Relay::to(self.topology.replicas[0].port);
                link.delay(Direction::Down, ms(150));
                let replica = &self.topology.replicas[1];
                follow(replica, link.port);
                eventually("it follows the other", secs(10), || replica.applied().is_some());
                (0..8).for_each(|_| self.weather());
                follow(&self.topology.replicas[1], self.topology.replicas[1].link.port);
            }
            Fault::Backwards => {
                self.topology.lag(0, ms(400));
                self.topology.lag(1, ms(1));
                sleep_ms(300);
                let replica = &self.topology.replicas[1];
                follow(replica, self.topology.replicas[0].port);
                eventually("it follows the other", secs(10), || replica.applied().is_some());
                sleep_ms(300);
                follow(replica, replica.link.port);
            }
            Fault::Alone => {
                let replica = &self.topology.replicas[1];
                assert_eq!(replica.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
                sleep_ms(20);
                follow(replica, replica.link.port);
            }
            Fault::RestartEmpty => self.topology.replicas[1].server.restart(),
            Fault::CutLink => {
                self.topology.replicas[1].link.cut();
                (0..5).for_each(|_| self.weather());
                self.topology.replicas[1].link.heal();
            }
        }
        let replica = &self.topology.replicas[1];
        self.struck.push((self.begun.elapsed(), format!("{fault:?} taken back")));
        eventually("it follows the primary", secs(10), || replica.applied().is_some());
        (0..3).for_each(|_| self.weather());
    }
}

fn start_proxies(topology: &Topology, level: Level) -> Vec<Proxy> {
    let bound = level.bound().unwrap_or(secs(1)).as_millis();
    let policy = format!("consistency = \"{}\"\nmax-lag = \"{bound}ms\"", level.name());
    let start = |source| {
        let stream = format!("[stream]\nsource = \"{source}\"");
        Setup::of(topology).policy("default", &policy).toml(&stream).start()
    };
    ["auto", "off"].map(start).into()
}

impl Outcome {
    /// Judges what was read; returns what it came to, and what it says about it.
    pub(crate) fn judge(&mut self, level: Level) -> (Verdict, String) {
        let reads = self.history.reads(level);
        let mut bench = Bench::new(&self.history, &reads, level, &mut self.oracle);
        let verdict = bench.judge(!self.faults.is_empty());
        let history = &self.history;
        let kind = |violation: &Violation| {
            let Read { unit, why, ref calls, .. } = reads[violation.read];
            let (unit, call) = (&history.units[unit], calls[0]);
            let fault =
                self.struck.iter().rev().find(|(at, _)| *at < unit.end).map_or("", |(_, fault)| fault);
            (unit.via, why, fault, String::from_utf8_lossy(&unit.calls[call].argv[0]).into_owned())
        };
        let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
        verdict.violations.iter().for_each(|violation| *kinds.entry(kind(violation)).or_default() += 1);
        let mut seen = HashSet::new();
        let first = |violation: &&Violation| {
            let (via, why, fault, _) = kind(violation);
            seen.insert((via, why, fault))
        };
        let shown: Vec<&Violation> = verdict.violations.iter().filter(first).collect();
        let said = format!("{kinds:?}\n{:.3?}\n{}", self.struck, bench.explain(&shown));
        (verdict, said)
    }

    /// Says what was checked; fails unless all of it is as promised. Returns how many commands that were.
    pub(crate) fn assert_holds(mut self, seed: u64) -> usize {
        let level = self.level;
        let (verdict, said) = self.judge(level);
        let share = |(replica, primary): &(f64, f64)| replica / (replica + primary);
        let shares: Vec<f64> = self.served.iter().map(share).collect();
        println!(
            "{}, seed {seed}: {} commands, {} reads judged, {} refused, {} violations; {} writes, {} placed; \
             by replicas {:.2?}, never there: {}; asked {} times in {:.1?}",
            level.name(),
            self.history.units.iter().map(|unit| unit.calls.len()).sum::<usize>(),
            verdict.judged,
            verdict.excused,
            verdict.violations.len(),
            self.history.steps.len(),
            self.history.known.len(),
            shares,
            self.missed.join(" "),
            verdict.asked,
            verdict.took,
        );
        if !verdict.violations.is_empty() {
            println!("{}, seed {seed}: {said}", level.name());
        }
        assert!(
            verdict.violations.is_empty(),
            "{}, seed {seed}: {} violations",
            level.name(),
            verdict.violations.len()
        );
        assert!(
            shares.iter().all(|share| *share > 0.03),
            "replicas served only {shares:.2?}: that proves nothing"
        );
        assert!(!self.faults.is_empty() || verdict.excused == 0, "{} reads were refused", verdict.excused);
        assert!(verdict.excused < verdict.judged / 10, "{} reads were refused", verdict.excused);
        verdict.judged
    }
}
