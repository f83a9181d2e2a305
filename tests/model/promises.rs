//! Reads, decided as `net` decides them, and what they must find.

use redweir::core::demand::{Barrier, Writes};
use redweir::core::nodes::proof::suffices;
use redweir::core::policy::PolicyId;
use redweir::core::reason::Reason;
use redweir::core::route::{Ask, Decision, Demand, decide, judge};
use redweir::core::session::{Home, Stamps};

use super::*;

impl World {
    /// Every read that could be decided now goes where it finds what it was promised.
    pub(crate) fn check(&self, served: &mut u64) -> Result<(), String> {
        let barrier = Barrier::new(self.next());
        for level in self.scenario.probes {
            for key in 0..KEYS {
                let owed = self.owed(*level, key);
                self.probe(*level, key, &self.published, barrier, owed, served)?;
            }
        }
        if let Some(read) = &self.arrived {
            let views = [&read.view, &self.published];
            // One that waits looks at the new view; the barrier stays.
            let views = if read.level == Consistency::Strong { &views[..] } else { &views[..1] };
            for view in views {
                // What it has kept since the first view that told it anything counts, whatever this one tells.
                self.probe(read.level, read.key, view, read.barrier, read.owed, served)?;
            }
        }
        Ok(())
    }

    fn probe(
        &self,
        level: Consistency,
        key: usize,
        view: &View,
        barrier: Barrier,
        owed: Set,
        served: &mut u64,
    ) -> Result<(), String> {
        // Nobody in particular, except for the levels that promise something to a session.
        let mut session = (level >= Consistency::Session).then(|| self.session.clone());
        let demand = self.demand(level, key, view, session.as_mut(), barrier);
        for tie in 0..2 {
            let decision = self.decide(level, view, demand, self.sticky, tie);
            let Some(node) = self.served_by(decision, view) else { continue };
            *served += 1;
            let missing = owed & self.surviving(view) & !self.servers[node].holds();
            if missing != 0 {
                return Err(format!(
                    "{level:?} read of k{key} by n{node} ({decision:?}) lacks writes {missing:#b}; demand {demand:?}"
                ));
            }
        }
        for node in 1..NODES {
            let of = NodeId(node as u32);
            let answers = self.served_by(Decision::Send { node: of, reason: Reason::Fresh }, view);
            if answers != Some(node) || !self.follows(level, key, view, of) {
                continue;
            }
            let missing = owed & self.surviving(view) & !self.servers[node].holds();
            if missing != 0 {
                return Err(format!(
                    "{level:?} read of k{key} that follows one at n{node} lacks writes {missing:#b}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a read goes to this replica without being decided: the session's last one went there, and more has arrived
    /// since.
    fn follows(&self, level: Consistency, key: usize, view: &View, node: NodeId) -> bool {
        let fresh = self.with_ask(level, view, Demand::Nothing, None, 0, |ask| {
            view.node(node).filter(|node| judge(node, ask).is_ok()).and_then(|node| node.applied)
        });
        let Some(applied) = fresh else { return false };
        let home = Home { node, generation: self.proofs.generation(node) };
        let mut session =
            if level >= Consistency::Session { self.session.clone() } else { Session::default() };
        session.home = Some(home);
        let known = self.known(view);
        let keyed = level >= Consistency::Session;
        known.may_resume(&session, home, level, applied)
            && (!keyed || known.may_follow(&mut session, (self.slots[key], || level), applied, 0))
    }

    /// The replica that answers, if one does: a read sent on hope is served only behind a proof that is enough.
    fn served_by(&self, decision: Decision, view: &View) -> Option<usize> {
        let (node, need) = match decision {
            Decision::Send { node, .. } if view.primary != Some(node) => (node, None),
            Decision::Try { node, need } => (node, Some(need)),
            _ => return None,
        };
        let server = &self.servers[node.index()];
        let applied = (server.link == Link::Up).then(|| server.head());
        let proof = || {
            let link = if server.primary { return None } else { server.link };
            self.published.proves(node, link, &address(server.follows), applied)
        };
        // While it loads it answers -LOADING.
        let answers = server.alive && server.link != Link::Syncing;
        (answers && need.is_none_or(|need| suffices(proof(), need))).then_some(node.index())
    }

    /// The writes that a read at this level must find, if it arrives now.
    pub(super) fn owed(&self, level: Consistency, key: usize) -> Set {
        let mut owed = 0;
        for (index, write) in self.scenario.writes.iter().enumerate() {
            let touches = write.key.is_none_or(|written| written == key);
            let Phase::Acked(at) = self.writes[index] else {
                let told = self.told & 1 << index != 0;
                owed |= Set::from(told && touches && level >= Consistency::Fenced) << index;
                continue;
            };
            let is_old = level >= Consistency::Bounded && self.now - at > MAX_LAG;
            let is_owed = match level {
                Consistency::Eventual | Consistency::Bounded => false,
                Consistency::Session => write.by == By::Reader,
                Consistency::Fenced => write.by != By::Direct || self.told & 1 << index != 0,
                Consistency::Strong => true,
            };
            owed |= Set::from(is_old || (is_owed && touches)) << index;
        }
        if level >= Consistency::Session { owed | self.saw[key] } else { owed }
    }

    /// What no failover has lost: what the primary of this view holds while it is one, else what the real one does.
    fn surviving(&self, view: &View) -> Set {
        let believed = view.primary.map(NodeId::index).filter(|n| {
            let server = &self.servers[*n];
            server.primary && server.alive
        });
        self.servers[believed.unwrap_or(self.primary())].holds()
    }

    fn demand(
        &self,
        level: Consistency,
        key: usize,
        view: &View,
        session: Option<&mut Session>,
        barrier: Barrier,
    ) -> Demand {
        self.known(view).demand(level, Some(barrier), session, |each| {
            each(self.slots[key]);
            false
        })
    }

    fn known<'a>(&'a self, view: &'a View) -> Writes<'a> {
        Writes { view, fences: &self.fences, next: self.next() }
    }

    fn decide(
        &self,
        level: Consistency,
        view: &View,
        demand: Demand,
        sticky: Option<NodeId>,
        tie: u32,
    ) -> Decision {
        self.with_ask(level, view, demand, sticky, tie, decide)
    }

    fn with_ask<T>(
        &self,
        level: Consistency,
        view: &View,
        demand: Demand,
        sticky: Option<NodeId>,
        tie: u32,
        then: impl FnOnce(&Ask<'_>) -> T,
    ) -> T {
        let index =
            policies().all.iter().position(|policy| policy.consistency == level).expect("every level");
        let mut proofs = self.proofs.clone();
        proofs.renew(view, self.now());
        then(&Ask {
            view,
            policy: &policies().all[index],
            policy_id: PolicyId(index as u32),
            demand,
            sticky,
            load: &[],
            in_flight: &[],
            proven: proofs.proven(),
            in_doubt: proofs.in_doubt(),
            barred: &[],
            may_try: proofs.may_try(),
            now: self.now(),
            tie,
            waited: false,
            avoid: None,
        })
    }

    pub(super) fn move_on(&mut self) {
        self.sticky = None;
        let next = self.next();
        self.session.moves_on(next);
    }

    /// `dispatch::read`, and what comes of it.
    pub(super) fn read(&mut self, level: Consistency, key: usize, tie: u32) -> Result<(), String> {
        let view = Rc::clone(&self.published);
        let owed = self.owed(level, key);
        let decision = loop {
            let mut session = std::mem::take(&mut self.session);
            let demand = self.demand(level, key, &view, Some(&mut session), Barrier::new(self.next()));
            self.session = session;
            let decision = self.decide(level, &view, demand, self.sticky, tie);
            match decision {
                Decision::Send { node, .. } | Decision::Try { node, .. }
                    if view.primary != Some(node) && self.sticky.is_some_and(|sticky| sticky != node) =>
                {
                    self.move_on();
                }
                other => break other,
            }
        };
        if let Decision::Send { node, .. } | Decision::Try { node, .. } = decision
            && view.primary != Some(node)
        {
            self.sticky = Some(node);
            self.session.home = Some(Home { node, generation: self.proofs.generation(node) });
        }
        if let Some(node) = self.served_by(decision, &view) {
            return self.found(key, node, owed);
        }
        self.ask_primary(key);
        Ok(())
    }

    /// A replica has answered.
    fn found(&mut self, key: usize, node: usize, owed: Set) -> Result<(), String> {
        self.served += 1;
        let (holds, surviving) = (self.servers[node].holds(), self.surviving(&self.published));
        let moved = self.last.is_some_and(|last| last.index() != node);
        let all = if moved { self.saw_all } else { 0 };
        let missing = (owed | all) & surviving & !holds;
        if missing != 0 {
            return Err(format!("the session's read of k{key} by n{node} goes back: it lacks {missing:#b}"));
        }
        self.last = Some(NodeId(node as u32));
        self.saw[key] |= holds & self.touching(key);
        self.saw_all |= holds;
        Ok(())
    }

    fn ask_primary(&mut self, key: usize) {
        let Some(node) = self.published.usable_primary(self.now()).map(NodeId::index) else { return };
        if !self.servers[node].alive {
            return;
        }
        let seen = self.servers[node].holds() & self.touching(key);
        self.saw[key] |= seen;
        let next = self.next();
        let stamps = Stamps::One(self.slots[key]);
        self.session.remember(0, &stamps, false, Some(u64::from(seen)), next);
    }

    fn touching(&self, key: usize) -> Set {
        let writes = self.scenario.writes.iter().enumerate();
        writes.fold(0, |set, (n, w)| set | Set::from(w.key.is_none_or(|written| written == key)) << n)
    }
}
