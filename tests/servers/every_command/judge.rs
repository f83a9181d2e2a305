//! Leads a server through all states, and asks it at each what may have been read there. A read is settled at the first
//! state that answers as it was answered; of reads of one connection and one key the later one not before the earlier.
//! The first is the best choice: it leaves the most to those that follow.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::grammar::Judge;
use super::history::{History, Level, Read, State};
use super::oracle::Oracle;
use super::story::story;
use super::wire::sorted;
use crate::support::encode;

/// A read that no state explains.
pub(crate) struct Violation {
    pub(crate) read: usize,
    /// An earlier read of the same connection, which was to be settled first.
    pub(crate) after: Option<(usize, State)>,
}

/// What a node that is out of order may say.
const EXCUSES: [&[u8]; 3] = [b"-MASTERDOWN", b"-LOADING", b"-ERR the connection to the primary was lost"];

#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) judged: usize,
    /// Nodes were out of order, and said so.
    pub(crate) excused: usize,
    pub(crate) asked: usize,
    pub(crate) took: Duration,
}

/// A read that is not settled yet.
struct Open {
    read: usize,
    /// Whether the present state answers the same.
    matches: bool,
}

pub(crate) struct Bench<'a> {
    history: &'a History,
    reads: &'a [Read],
    oracle: &'a mut Oracle,
    in_order: bool,
    asked: usize,
    /// Where each was settled.
    settled: Vec<Option<State>>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(history: &'a History, reads: &'a [Read], level: Level, oracle: &'a mut Oracle) -> Self {
        let settled = vec![None; reads.len()];
        Self { history, reads, oracle, in_order: level.is_a_session(), asked: 0, settled }
    }

    /// Most reads are of the present, or nearly: only who doesn't fit in there is judged by the whole past.
    pub(crate) fn judge(&mut self, faults: bool) -> Verdict {
        let begun = Instant::now();
        let is_excused = |read: &usize| {
            let Read { unit, calls, .. } = &self.reads[*read];
            let reply = &self.history.units[*unit].calls[calls[0]].reply;
            faults && EXCUSES.iter().any(|excuse| reply.starts_with(excuse))
        };
        let (excused, all): (Vec<usize>, Vec<usize>) = (0..self.reads.len()).partition(is_excused);
        let mut violations = self.replay(&all, |read| read.likely.max(read.least));
        if !violations.is_empty() {
            let conn = |read: usize| self.history.units[self.reads[read].unit].conn;
            let odd: HashSet<usize> = violations.iter().map(|violation| conn(violation.read)).collect();
            let alone: HashSet<usize> = violations.iter().map(|violation| violation.read).collect();
            let in_order = self.in_order;
            let is_odd =
                |read: usize| if in_order { odd.contains(&conn(read)) } else { alone.contains(&read) };
            let again: Vec<usize> = all.iter().copied().filter(|read| is_odd(*read)).collect();
            violations = self.replay(&again, |read| read.least);
        }
        let judged = all.iter().map(|read| self.reads[*read].calls.len()).sum();
        Verdict { violations, judged, excused: excused.len(), asked: self.asked, took: begun.elapsed() }
    }

    fn replay(&mut self, which: &[usize], from: impl Fn(&Read) -> State) -> Vec<Violation> {
        for read in which {
            self.settled[*read] = None;
        }
        let mut waiting: Vec<(State, usize)> =
            which.iter().map(|read| (from(&self.reads[*read]), *read)).collect();
        waiting.sort_unstable();
        let mut waiting = waiting.into_iter().peekable();
        let (mut open, mut violations): (Vec<Open>, Vec<Violation>) = Default::default();
        self.oracle.clear();
        let (mut out, mut replies) = (Vec::new(), 0);
        for state in 0..=self.history.steps.len() {
            let mut touched = 0;
            if let Some(step) = state.checked_sub(1).map(|n| &self.history.steps[n]) {
                touched = step.keys.written;
                for (db, argv) in &step.commands {
                    replies += 1 + self.oracle.enter(*db, false, &mut out);
                    out.extend(encode(argv));
                }
            }
            let mut asked: Vec<usize> = Vec::new();
            for (at, one) in open.iter().enumerate() {
                if self.reads[one.read].maybe & touched != 0 {
                    asked.push(at);
                }
            }
            while let Some((_, read)) = waiting.next_if(|(from, _)| *from <= state) {
                asked.push(open.len());
                open.push(Open { read, matches: false });
            }
            if !asked.is_empty() {
                self.ask(&mut open, asked, &mut out, replies);
                (out, replies) = (Vec::new(), 0);
            }
            self.settle(&mut open, state, &mut violations);
        }
        self.oracle.pipe.send(&out).unwrap();
        self.oracle.discard(replies);
        violations.extend(open.iter().map(|open| Violation { read: open.read, after: None }));
        violations
    }

    /// Asks what these reads asked, after what is already in `out`.
    fn ask(&mut self, open: &mut [Open], mut asked: Vec<usize>, out: &mut Vec<u8>, replies: usize) {
        let place = |at: &usize| {
            let unit = &self.history.units[self.reads[open[*at].read].unit];
            (unit.resp3, unit.db)
        };
        asked.sort_by_key(place);
        let mut skipped = Vec::with_capacity(asked.len());
        for at in &asked {
            let (resp3, db) = place(at);
            skipped.push(self.oracle.enter(db, resp3, out));
            let read = &self.reads[open[*at].read];
            read.calls
                .iter()
                .for_each(|call| out.extend(encode(&self.history.units[read.unit].calls[*call].argv)));
        }
        self.oracle.pipe.send(out).unwrap();
        self.oracle.discard(replies);
        for (at, skipped) in asked.into_iter().zip(skipped) {
            self.oracle.discard(skipped);
            self.asked += 1;
            let read = &self.reads[open[at].read];
            let mut matches = true;
            for call in &read.calls {
                let call = &self.history.units[read.unit].calls[*call];
                matches &= is_answered(self.oracle, &call.reply, call.judge);
            }
            open[at].matches = matches;
        }
    }

    fn settle(&mut self, open: &mut Vec<Open>, state: State, violations: &mut Vec<Violation>) {
        let reads = self.reads;
        if !self.in_order {
            open.retain(|one| {
                let late = reads[one.read].most <= state;
                if late && !one.matches {
                    violations.push(Violation { read: one.read, after: None });
                }
                !late && !one.matches
            });
            return;
        }
        if !open.iter().any(|one| one.matches || reads[one.read].most <= state) {
            return;
        }
        open.sort_unstable_by_key(|one| one.read);
        let (mut conn, mut blocked) = (usize::MAX, 0);
        let (settled, history) = (&mut self.settled, self.history);
        open.retain(|one| {
            let read = &reads[one.read];
            let of = history.units[read.unit].conn;
            if of != conn {
                (conn, blocked) = (of, 0);
            }
            if one.matches && read.keys & blocked == 0 {
                settled[one.read] = Some(state);
                return false;
            }
            if read.most <= state {
                let before = reads[..one.read].iter().enumerate().rev();
                let same = before.take_while(|(_, before)| history.units[before.unit].conn == of);
                let shared = same.filter(|(_, before)| before.keys & read.keys != 0);
                let after =
                    shared.filter_map(|(n, _)| Some((n, settled[n]?))).max_by_key(|(_, state)| *state);
                violations.push(Violation { read: one.read, after });
                return false;
            }
            blocked |= read.keys;
            true
        });
    }

    /// Says about each violation which states would explain it, and what happened around them.
    pub(crate) fn explain(&mut self, violations: &[&Violation]) -> String {
        let mut said = String::new();
        for violation in violations {
            let fits = self.every_state(violation.read);
            said += &story(self.history, self.reads, violation, &fits);
        }
        said
    }

    fn every_state(&mut self, read: usize) -> Vec<RangeInclusive<State>> {
        let (mut fits, mut from): (Vec<RangeInclusive<State>>, Option<State>) = (Vec::new(), None);
        self.oracle.clear();
        let mut open = vec![Open { read, matches: false }];
        for state in 0..=self.history.steps.len() {
            let (mut out, mut replies, mut touched) = (Vec::new(), 0, u64::MAX);
            if let Some(step) = state.checked_sub(1).map(|n| &self.history.steps[n]) {
                touched = step.keys.written;
                for (db, argv) in &step.commands {
                    replies += 1 + self.oracle.enter(*db, false, &mut out);
                    out.extend(encode(argv));
                }
            }
            let asked = if touched & self.reads[read].maybe != 0 || state == 0 { vec![0] } else { vec![] };
            self.ask(&mut open, asked, &mut out, replies);
            match (open[0].matches, from) {
                (true, None) => from = Some(state),
                (false, Some(begin)) => {
                    fits.push(begin..=state - 1);
                    from = None;
                }
                _ => {}
            }
        }
        fits.extend(from.map(|begin| begin..=self.history.steps.len()));
        fits
    }
}

fn is_answered(oracle: &mut Oracle, reply: &[u8], judge: Judge) -> bool {
    if judge == Judge::Exact {
        return oracle.pipe.is_next(reply).unwrap();
    }
    let answer = oracle.pipe.frame().unwrap();
    let in_pairs = judge == Judge::Pairs && answer[0] == b'*' || answer[0] == b'%';
    answer == reply || sorted(answer, in_pairs) == sorted(reply, in_pairs)
}
