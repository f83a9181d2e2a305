//! A command too long to be held: its beginning is dispatched, then its bytes go on as they come, as fast as the node
//! takes them. What was refused is read to its end and dropped.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Buf, BytesMut};

use super::{Server, WaitEnd};
use crate::core::command::in_force::Commands;
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::net::runtime::limits;
use crate::proxy::downstream::replies::Gone;
use crate::proxy::session::step::Step;
use crate::proxy::upstream::lane::{Closed, Lane, Phase};
use crate::wire::request::RequestError;

impl Server {
    /// Dispatches the command at the front of the input, of which only the beginning has arrived.
    pub(super) fn advance_long(&mut self, view: &View, commands: &Commands, now: Moment) -> Step {
        if !self.client.has_room() {
            return Step::Room;
        }
        let input = &mut self.input;
        let request = input.scanner.beginning(&input.buffer[input.at..]);
        let intent = self.connection.last.classify(&request, commands);
        let step = match &mut self.shards {
            None => self.connection.dispatch(&request, intent, view, commands, now),
            Some(shards) => shards.dispatch(&mut self.connection, &request, intent, commands, now),
        };
        match step {
            Step::Done => {
                self.connection.waiting.is_done();
                input.at += input.scanner.let_go();
                input.buffer.advance(std::mem::take(&mut input.at));
                Step::Body
            }
            other => other,
        }
    }

    /// Passes on the rest of the command. Returns when it is complete, or with why the client is gone.
    pub(super) async fn body(&mut self) -> Result<(), Gone> {
        let mut lane = self.connection.lanes.take_rest();
        let mut dropped = BytesMut::new();
        loop {
            if let Some(Phase::Closed(why)) = lane.as_ref().map(|lane| lane.phase()) {
                if !matches!(why, Closed::Refused(_)) {
                    // What the node said before it left, or what is said about it, is the last.
                    self.linger().await;
                    return Err(Gone::Ended);
                }
                lane = None;
            }
            match self.pass(lane.as_ref(), &mut dropped) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    self.break_off(error);
                    self.linger().await;
                    return Err(Gone::Ended);
                }
            }
            match self.more(lane.as_ref()).await {
                WaitEnd::Gone(why) => return Err(why),
                WaitEnd::Input(0) => return Err(Gone::Left),
                WaitEnd::Input(_) => self.connection.waiting.arrive(),
                WaitEnd::Changed => {}
            }
        }
    }

    /// Passes on what has arrived; true when that was the last of the command.
    fn pass(&mut self, lane: Option<&Rc<Lane>>, dropped: &mut BytesMut) -> Result<bool, RequestError> {
        let input = &mut self.input;
        let (scanner, buffer) = (&mut input.scanner, &input.buffer);
        let (used, complete) = if let Some(lane) = lane {
            lane.stream(|out| scanner.pass(buffer, out))?
        } else {
            dropped.clear();
            scanner.pass(buffer, dropped)?
        };
        input.buffer.advance(used);
        Ok(complete)
    }

    /// The client broke the protocol in the middle of a command: the node never gets the rest of it.
    fn break_off(&mut self, error: RequestError) {
        self.worker.stats.protocol_errors.add(1);
        let mut reply = BytesMut::new();
        error.put_reply(&mut reply);
        if self.connection.is_raw() {
            // What the node says now, and how much it has yet to say, nobody knows.
        } else if self.client.is_drained() {
            self.client.answer(&reply);
        } else {
            self.client.deliver(self.client.oldest(), &reply, true);
        }
        self.connection.release_pin(false);
    }

    /// Waits for more of the command, once the lane has room for it, or for the end of the lane.
    async fn more(&mut self, lane: Option<&Rc<Lane>>) -> WaitEnd {
        poll_fn(|cx| {
            if let Some(why) = self.client.poll(cx) {
                return Poll::Ready(WaitEnd::Gone(why));
            }
            if let Some(lane) = lane {
                if !lane.is_usable() {
                    return Poll::Ready(WaitEnd::Changed);
                }
                if !lane.takes_more(cx.waker()) {
                    return Poll::Pending;
                }
                lane.wake_on_change(cx.waker());
            }
            self.input.buffer.reserve(limits::LANE_READ);
            self.input.poll(&self.worker, &mut self.read, cx)
        })
        .await
    }
}
