//! A command that waits on a connection of its own, and that nobody takes where it was asked: it is asked again.

use std::collections::VecDeque;

use super::Shards;
use super::parts::again;
use crate::core::moment::Moment;
use crate::proxy::downstream::status::AskAgain;
use crate::proxy::session::connection::Connection;
use crate::proxy::session::step::Step;
use crate::proxy::session::waiting::On;
use crate::wire::say;

impl Shards {
    /// A blocking command, or a `WATCH`, was refused where it was asked: it is asked again, unless it has waited for as long as it wanted. `Some`:
    /// not yet.
    pub(super) fn begin_again(&mut self, connection: &mut Connection, now: Moment) -> Option<Step> {
        let AskAgain { at, asking } = connection.client.status.asks_again.take()?;
        if !self.again && self.parts.take().is_some() && std::mem::take(&mut self.joins) {
            // Of the command behind it nothing was sent: it begins anew.
            connection.client.expect_no_parts();
        }
        let Some((bytes, begun)) = &self.blocks else {
            connection.client.answer(say::SLOT_ON_ITS_WAY);
            return None;
        };
        match again(bytes, now.since(*begun), asking, &self.commands) {
            Ok(Some(_)) if now < at => {
                connection.client.status.asks_again.set(Some(AskAgain { at, asking }));
                return Some(connection.wait(On::View, at.since(now), now));
            }
            Ok(Some(part)) => {
                connection.waiting.end();
                // What is watched there is nothing, and its node may be a replica now.
                let at = connection.client.status.pinned_at.get();
                let side = self.sides.get_mut(at.index()).and_then(|side| side.connection.as_deref_mut());
                side.filter(|_| at != self.current).unwrap_or(connection).release_pin(true);
                self.parts = Some(VecDeque::from([part]));
                self.again = true;
            }
            Ok(None) => connection.client.answer(say::SLOT_NOT_SERVED),
            Err(()) => {
                connection.waiting.end();
                connection.client.status.refused.set(None);
                connection.client.answer(say::null_array(connection.who.is_resp3()));
            }
        }
        None
    }
}
