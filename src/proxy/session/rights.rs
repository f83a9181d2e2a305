//! From which nodes the user of a connection is barred ([`crate::proxy::worker::bars`]).

use std::sync::Arc;

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::proxy::session::connection::Connection;
use crate::proxy::worker::bars::Bars;

impl Connection {
    /// From which nodes its user is barred.
    pub(crate) fn bars(&self, view: &View, now: Moment) -> Bars {
        if self.is_free(view) { Bars::new() } else { self.worker.bars(self.identity, &self.user, view, now) }
    }

    /// Whether its user is barred from a node.
    pub(crate) fn is_barred(&mut self, node: NodeId, view: &View, now: Moment) -> bool {
        if self.is_free(view) {
            return false;
        }
        if view.rights.bars(self.user.as_bytes()).is_empty() {
            self.free_under = Some(Arc::clone(&view.rights));
        }
        let bars = self.worker.bars(self.identity, &self.user, view, now);
        bars.get(node.index()).copied().flatten().is_some()
    }

    /// Whether nothing bars it from anywhere, without looking at its rules once more.
    fn is_free(&self, view: &View) -> bool {
        self.free_under.as_ref().is_some_and(|under| Arc::ptr_eq(under, &view.rights))
            && self.worker.shut_out.borrow().is_empty()
    }
}
