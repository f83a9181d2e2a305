//! What a client has with each shard, and what that shard knew when something arrived last.

use std::rc::Rc;
use std::sync::Arc;

use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::slots::ShardIndex;
use crate::proxy::session::connection::Connection;
use crate::shard::snapshot::InForce;

/// What it has with one of them.
#[derive(Default)]
pub(super) struct Side {
    /// `None`: it is the present one, or there is none.
    pub(super) connection: Option<Box<Connection>>,
    /// What the shard knew when it was last looked at, which is once for all that has arrived together.
    pub(super) known: Option<Known>,
}

/// What a shard knows.
pub(super) struct Known {
    /// The number of that arrival.
    pub(super) arrival: u64,
    pub(super) view: Arc<View>,
    pub(super) commands: Arc<Commands>,
}

impl Known {
    fn new(known: &InForce, arrival: u64) -> Self {
        Self { arrival, view: Arc::clone(&known.view), commands: Arc::clone(&known.commands) }
    }

    /// With the arrival of this number as well, as it mostly is.
    fn renew(&mut self, known: &InForce, arrival: u64) {
        self.arrival = arrival;
        if !Arc::ptr_eq(&self.view, &known.view) {
            self.view = Arc::clone(&known.view);
        }
        if !Arc::ptr_eq(&self.commands, &known.commands) {
            self.commands = Arc::clone(&known.commands);
        }
    }
}

/// What the present shard knows: it is looked at once for each arrival.
#[inline]
pub(super) fn known<'a>(
    sides: &'a mut Vec<Side>,
    current: ShardIndex,
    arrival: u64,
    connection: &mut Connection,
    now: Moment,
) -> Option<&'a Known> {
    let is_known = |side: &Side| side.known.as_ref().is_some_and(|known| known.arrival == arrival);
    if !sides.get(current.index()).is_some_and(is_known) {
        look(sides, current, arrival, connection, now);
    }
    sides.get(current.index())?.known.as_ref()
}

/// Looks at what the present shard knows, and whether what was said there before may go on.
fn look(sides: &mut Vec<Side>, current: ShardIndex, arrival: u64, connection: &mut Connection, now: Moment) {
    let worker = Rc::clone(&connection.worker);
    let fresh = worker.snapshot.look();
    note(sides, current, &fresh, arrival);
    connection.resume_fast_path(&fresh.view, &fresh.commands, now);
}

/// This is what the present shard knows.
pub(super) fn note(sides: &mut Vec<Side>, current: ShardIndex, known: &InForce, arrival: u64) {
    if sides.len() <= current.index() {
        sides.resize_with(current.index() + 1, Side::default);
    }
    let Some(side) = sides.get_mut(current.index()) else { return };
    match &mut side.known {
        Some(side) => side.renew(known, arrival),
        none => *none = Some(Known::new(known, arrival)),
    }
}
