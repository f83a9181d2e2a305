//! Connections that are half dead: something between here and the node drops what is said on one of them, acknowledges it
//! all the same, and lets the others be. Neither keep-alive probes nor the prober notice that.
//!
//! A node answers in order on each connection, and does one thing at a time: one that goes on answering its prober has
//! answered what came before. So a lane that owes a reply for [`limits::STALLED_SILENCES`] times the silence of a node,
//! while the node answers elsewhere all the time, is given up. A slow command is none of that: it holds up the prober as
//! well. What is looked at, once a second, is how many times in a row that was so, and not the clock: a proxy that was
//! itself held up has yet to read what is there.
//!
//! A write may have to wait while reads are answered: `CLIENT PAUSE … WRITE`, `FAILOVER`, `SHUTDOWN`. Where the
//! oldest command writes, the node is asked first, on another connection, to run a script that does nothing, which waits with
//! all writes. If our own user may not, nobody knows, and the lane is left as it is.

use std::rc::Rc;

use redis_protocol::resp2::types::BytesFrame;

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::mutant;
use crate::net::runtime::limits;
use crate::net::runtime::task;
use crate::net::socket::call::{ControlError, ControlLink};
use crate::proxy::upstream::lane::{Broken, Closed, Lane, Phase};
use crate::proxy::worker::Worker;

impl Worker {
    /// Gives up lanes on which nothing comes. To be called every [`limits::UPKEEP_EVERY`].
    pub(crate) fn give_up_stalled(self: &Rc<Self>) {
        let view = self.shared.shard().view.load_full();
        let limit =
            view.silence_limit.as_millis() * limits::STALLED_SILENCES / limits::UPKEEP_EVERY.as_millis();
        let (mut dead, mut doubtful) = (Vec::new(), Vec::new());
        self.lanes.each_shared(|lane| {
            let answered = view.node(lane.key.node).filter(|node| node.silent_since.is_none());
            if !is_owed(lane, answered.and_then(|node| node.heard_at)) {
                return lane.hearing.owes_nothing();
            }
            if u128::from(lane.hearing.still_owes()) > limit.max(2) {
                if lane.front_reads() { &mut dead } else { &mut doubtful }.push(Rc::clone(lane));
            }
        });
        for lane in dead {
            self.give_up(&lane);
        }
        for lane in doubtful {
            let heard = lane.hearing.last();
            lane.hearing.owes_nothing();
            let worker = Rc::clone(self);
            task::spawn_local("stalled lane", async move {
                let executes = worker.executes_writes(lane.key.node).await;
                if executes.is_ok_and(|executes| executes) && lane.hearing.last() == heard {
                    worker.give_up(&lane);
                }
            });
        }
    }

    fn give_up(&self, lane: &Lane) {
        if mutant::is("stalled-for-ever") {
            return;
        }
        self.stats.stalled.add(1);
        let node = self.node_name(lane.key.node);
        tracing::warn!(
            "a connection to {node} was given up: nothing comes on it, while the node answers on others"
        );
        lane.close(Closed::Broken(Broken::Stalled));
    }

    /// Whether a node executes at once what waits with all writes while those are paused.
    async fn executes_writes(&self, node: NodeId) -> Result<bool, ControlError> {
        if mutant::is("pauses-are-stalls") {
            return Ok(true);
        }
        let config = self.shared.config();
        let (login, within) = (config.upstream.credentials(), config.upstream.connect_timeout);
        let probe_timeout = config.upstream.probe_timeout;
        drop(config);
        let address = self.shared.shard().address(node).ok_or(ControlError::Closed)?;
        let dialer = &self.shared.dialer;
        let mut link = ControlLink::connect(dialer, &address, login.as_ref(), within).await?;
        let answer = link.call(&[b"EVAL", b"return 1", b"0"], probe_timeout).await?;
        Ok(answer == BytesFrame::Integer(1))
    }
}

/// Whether a lane owes a reply to something that its node must have come across, for it has answered what was asked at
/// `answered`, later than that.
fn is_owed(lane: &Lane, answered: Option<Moment>) -> bool {
    let owed = lane.oldest().map(|sent| sent.max(lane.hearing.last()));
    lane.phase() == Phase::Up && owed.zip(answered).is_some_and(|(owed, answered)| answered > owed)
}
