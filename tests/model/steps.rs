//! What each step does: as the tasks of `net`, and the nodes, do it.

use redweir::core::nodes::node::{Facts, GOOD_SAMPLES, Role};
use redweir::core::nodes::view::Effect;
use redweir::core::session::Stamps;
use redweir::core::stream::resume::{Offer, Start};

use super::*;

impl World {
    /// `dispatch`: the slots are in flight before the bytes are.
    pub(super) fn execute(&mut self, index: usize) {
        let write = self.scenario.writes[index];
        let Some(node) = self.target(&write) else { return };
        if write.by == By::Reader {
            self.session.sent(index as u64, &self.stamps(write), 0);
        }
        self.servers[node].log.push(index as u8);
        self.writes[index] = Phase::Executed;
    }

    fn stamps(&self, write: Write) -> Stamps {
        write.key.map_or(Stamps::All, |key| Stamps::One(self.slots[key]))
    }

    /// `worker::acknowledged`: stamped before anyone can see the answer.
    pub(super) fn acknowledge(&mut self, index: usize) {
        let write = self.scenario.writes[index];
        if write.by != By::Direct {
            let anchor = self.next();
            match write.key {
                Some(key) => self.fences.stamp_pending(self.slots[key], anchor),
                None => self.fences.raise_floor(anchor),
            }
        }
        if write.by == By::Reader {
            let (stamps, next) = (self.stamps(write), self.next());
            self.session.acknowledged(&stamps, next);
        }
        self.writes[index] = Phase::Acked(self.now);
        // Its replies reach a client in order.
        let owed = |index: &usize| {
            self.scenario.writes[*index].by == By::Reader && !matches!(self.writes[*index], Phase::Acked(_))
        };
        let oldest = (0..self.writes.len()).find(owed).unwrap_or(self.writes.len());
        self.session.forget(oldest as u64);
    }

    /// `prober::poll`. A replica answers at once: what it says later would only be more.
    pub(super) fn poll(&mut self, node: usize, inform: bool) {
        self.question(node, inform);
        if !self.servers[node].primary {
            self.answer(node);
            if !self.scenario.fine {
                self.deliver(node);
                self.publish();
            }
        }
    }

    pub(super) fn question(&mut self, node: usize, inform: bool) {
        if self.servers[node].primary || self.left.promotions > 0 {
            // Of a replica's answer the number is not looked at.
            self.anchors += 1;
        }
        self.asked[node] = Some(Asked { seq: AnchorSeq(self.anchors), sent_at: self.now(), inform });
    }

    pub(super) fn answer(&mut self, node: usize) {
        let Some(Asked { seq, sent_at, inform }) = self.asked[node].take() else { return };
        let (server, of) = (&self.servers[node], NodeId(node as u32));
        let master = address(server.follows);
        let mut answers = Vec::new();
        if inform {
            let facts = Facts {
                role: Some(if server.primary { Role::Primary } else { Role::Replica }),
                master: (!server.primary).then(|| master.clone()),
                history: Some(server.history),
                sync_in_progress: server.link == Link::Syncing,
                ..Facts::default()
            };
            answers.push(Observation::Info { node: of, facts: Box::new(facts) });
        }
        let (link, offset) = (server.link, server.head());
        answers.push(if server.primary {
            Observation::Primary { node: of, seq, sent_at, offset }
        } else {
            let applied = (link == Link::Up).then_some(offset);
            Observation::Replica { node: of, link, master, applied }
        });
        self.answered[node] = answers;
    }

    /// `keeper::keep`. A replica's answer counts as often as a gate asks for: as if it had been asked so many times
    /// while nothing happened.
    pub(super) fn deliver(&mut self, node: usize) {
        let (answers, now) = (std::mem::take(&mut self.answered[node]), self.now());
        let mut tracker = (*self.tracker).clone();
        for answer in answers {
            if let Observation::Primary { sent_at, offset, .. } = answer {
                self.anchors_told.push((sent_at, offset));
            }
            let times = if matches!(answer, Observation::Primary { .. }) { 1 } else { GOOD_SAMPLES };
            for _ in 0..times {
                let (era, counter) = (tracker.view().era, self.counter());
                let restarted = tracker.apply(answer.clone(), now) == Effect::HistoryRestarted;
                self.fences.turn(era, tracker.view().era, restarted, || counter.next());
            }
        }
        self.tracker_digest = digest_of(tracker.view());
        self.tracker = Rc::new(tracker);
    }

    /// `keeper::publish`, and every worker's `settle`.
    pub(super) fn publish(&mut self) {
        let view = self.tracker.view();
        (self.published, self.published_digest) = (Rc::new(view.clone()), self.tracker_digest);
        if let Some(read) = &mut self.arrived {
            // Who waits looks again.
            read.barrier.settle(&self.published);
        }
        if let Some(head) = view.head {
            self.fences.settle_floor(view.anchor, head.offset);
            self.slots.iter().for_each(|slot| self.fences.settle(*slot, view.anchor, head.offset));
        }
        let view = Rc::clone(&self.published);
        self.proofs.renew(&view, self.now());
    }

    /// `stamper::command`, `stamper::progressed`.
    pub(super) fn tell(&mut self) {
        let Some(mut stream) = self.stream else { return };
        let Some((write, end)) = self.command_after(&stream) else { return };
        let next = self.next();
        let view = &self.published;
        let ours = view.history.map(|history| history.id);
        match self.scenario.writes[usize::from(write)].key {
            Some(key) => self.coverage.wrote(&self.fences, &[(self.slots[key], end)], ours, next),
            None => self.coverage.wrote_anything(&self.fences, end, ours, next),
        }
        self.told |= 1 << write;
        let history = (ours, view.era);
        self.coverage.progressed(&self.fences, end, history, next);
        stream.known_to = end;
        self.reached = Some(Reached { id: stream.id, offset: end });
        self.stream = Some(stream);
    }

    /// `follower::link`: after what was read before, if the source has it.
    pub(super) fn attach(&mut self, source: usize) {
        let server = &self.servers[source];
        let offer =
            Offer { history: server.history, head: server.head(), backlog_from: Some(Offset::new(1)) };
        let start = Start::plan(&offer, self.reached);
        let (id, known_to) = (server.history.id, start.known_to);
        self.reached = Some(Reached { id, offset: known_to });
        let (ours, next) = (self.published.history.map(|history| history.id), self.next());
        self.coverage.attached(&self.fences, (id, known_to), start.resumed, ours, next);
        self.stream = Some(Stream { source, id, known_to });
    }

    /// A node whose history changes drops those who follow it.
    pub(super) fn detach(&mut self, node: usize) {
        if self.stream.is_some_and(|stream| stream.source == node) {
            self.stream = None;
        }
    }

    /// `evidence::take_proof`: with the view of that moment.
    pub(super) fn take_proof(&mut self) {
        let Some((node, link, master, applied)) = self.proof.take() else { return };
        let (view, node) = (&self.published, NodeId(node as u32));
        if let Some(applied) = view.proves(node, link, &master, applied) {
            let generation = self.proofs.generation(node);
            self.proofs.prove(node, applied, view.era, generation);
        }
    }

    /// `REPLICAOF NO ONE`, after the old primary has died, or while nobody has told it.
    pub(super) fn promote(&mut self, node: usize) {
        self.left.promotions -= 1;
        let end = self.servers[node].head().advanced(1);
        let server = &mut self.servers[node];
        server.history = History { id: id(b'b'), previous: Some((server.history.id, end)) };
        (server.primary, server.follows) = (true, node);
        self.detach(node);
        if !self.scenario.split {
            self.servers[0].alive = false;
            self.detach(0);
        }
        for other in (1..NODES).filter(|other| *other != node) {
            self.servers[other].link = Link::Down;
        }
    }

    /// `REPLICAOF new`: a replica that has no more than the new primary had goes on; another one begins anew.
    pub(super) fn follow(&mut self, node: usize) {
        let primary = self.primary();
        let (source, server) = (self.servers[primary].clone(), &self.servers[node]);
        let goes_on =
            source.log.starts_with(&server.log) && source.history.covers(server.history.id, server.head());
        let end = server.head().advanced(1);
        let server = &mut self.servers[node];
        server.follows = primary;
        if goes_on {
            let previous = Some((server.history.id, end));
            (server.history, server.link) = (History { id: source.history.id, previous }, Link::Up);
        } else {
            server.link = Link::Syncing;
        }
        self.detach(node);
    }
}
