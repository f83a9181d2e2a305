//! From which nodes the user of a connection is barred ([`crate::proxy::worker::bars`]).

use crate::core::moment::Moment;
use crate::core::nodes::node::NodeId;
use crate::core::nodes::view::View;
use crate::proxy::session::connection::Connection;
use crate::proxy::worker::bars::Bars;

impl Connection {
    /// From which nodes its user is barred.
    pub(crate) fn bars(&self, view: &View, now: Moment) -> Bars {
        if self.is_free(view) {
            Bars::new()
        } else {
            self.worker.bars(self.who.identity(), self.who.user(), view, now)
        }
    }

    /// Whether its user is barred from a node.
    pub(crate) fn is_barred(&mut self, node: NodeId, view: &View, now: Moment) -> bool {
        if self.is_free(view) {
            return false;
        }
        if view.rights.bars(self.who.user().as_bytes()).is_empty() {
            self.who.be_free_under(&view.rights);
        }
        let bars = self.worker.bars(self.who.identity(), self.who.user(), view, now);
        bars.get(node.index()).copied().flatten().is_some()
    }

    /// Whether nothing bars it from anywhere, without looking at its rules once more.
    fn is_free(&self, view: &View) -> bool {
        self.who.is_free_under(&view.rights) && self.worker.shut_out.borrow().is_empty()
    }
}
