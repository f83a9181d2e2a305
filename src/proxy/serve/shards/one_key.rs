//! The usual command: about one key, of a client that has nothing else going on, in a slot whose replicas may be asked, and like
//! the one before it that went to the same shard. All that [`Shards::dispatch`] looks at before it sends it is looked at here
//! in one go; whatever is unusual is left to it.

use super::Shards;
use super::sides::known;
use crate::core::argv::Args as _;
use crate::core::command::in_force::Commands;
use crate::core::command::{Handling, Intent};
use crate::core::moment::Moment;
use crate::core::slots::{Expected, Floor, HashSlot};
use crate::mutant;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::wire::request::Request;

impl Shards {
    /// Sends a command behind one like it. `None`: nothing is sent, and nothing is settled.
    #[allow(clippy::inline_always, reason = "measured: 2 % of the instructions of a small command")]
    #[inline(always)]
    pub(super) fn follow(
        &mut self,
        connection: &mut Box<Connection>,
        request: &Request<'_>,
        intent: Intent,
        commands: &Commands,
        now: Moment,
    ) -> Option<Step> {
        // Before the place of the slot is: what is kept of that holds for as long as this stays.
        let generation = self.cluster.generation();
        let is_usual = generation == self.generation
            && connection.client.status.astray.is_empty()
            && intent.handling == Handling::Shared
            && commands.table.has_one_key(intent.id)
            && request.count() > 1
            && !request.is_partial()
            && !self.is_occupied()
            && connection.pin.is_none();
        if !is_usual {
            return None;
        }
        let slot = HashSlot::of(request.arg(1));
        let place = self.cluster.place(slot);
        let shard = place.stable_owner()?;
        if shard != self.current
            && let Some(step) = self.switch(connection, shard)
        {
            return Some(step);
        }
        let known = known(&mut self.sides, self.current, self.arrival, connection, now)?;
        let fast_path = connection.routing.fast_path().filter(|fast_path| fast_path.command == intent.id)?;
        let mut floor = Floor::NONE;
        if let Some(route) = &fast_path.read {
            let shared = &connection.worker.shared;
            floor = self.cluster.floor((slot, place), shared, &known.view, Some(route.applied));
            if !floor.is_met_by(route.applied) && !mutant::is("one-key-below-floor") {
                return None;
            }
        }
        if known.commands.version != self.commands.version {
            return None;
        }
        (connection.floor, connection.expected, connection.map) = (floor, Expected::Anything, generation);
        connection.follow_fast_path(request, intent, &known.view, now)
    }

    /// Whether the client has begun something that its next command may be a part of, or has to wait for.
    #[inline]
    fn is_occupied(&self) -> bool {
        self.begins
            || self.again
            || self.parts.is_some()
            || self.listening.is_some()
            || !self.queued.is_empty()
    }
}
