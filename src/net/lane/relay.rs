//! An exclusive lane as a plain relay: its replies are not counted, whatever comes is its client's.

use std::rc::Rc;

use super::passing::Passing;
use super::{Bytes, Client, Lane, Stamps};

impl Lane {
    /// Who gets what the node pushes. Only for exclusive lanes.
    pub fn listen(&self, client: Rc<Client>) {
        self.inner.borrow_mut().listener = Some(client);
    }

    /// From now on replies are not counted: whatever comes is the client's.
    pub fn relay(&self, client: Rc<Client>) {
        let mut inner = self.inner.borrow_mut();
        (inner.listener, inner.relay) = (Some(client), true);
    }

    /// Whose is what comes next, if it answers no counted command.
    pub fn relayed_to(&self) -> Option<Rc<Client>> {
        let inner = self.inner.borrow();
        if inner.relay && inner.pending.is_empty() && !cfg!(mutant = "relay-counts") {
            inner.listener.clone()
        } else {
            None
        }
    }

    /// What bytes that answer no counted command may acknowledge.
    pub fn raw_written(&self) -> Stamps {
        self.inner.borrow().raw_written.clone()
    }

    /// The client has no more to do with it.
    pub fn unlisten(&self) {
        self.inner.borrow_mut().listener = None;
    }

    /// The client that [`Lane::listen`] named.
    pub fn listener(&self) -> Option<Rc<Client>> {
        self.inner.borrow().listener.clone()
    }

    /// Bytes that expect no reply of their own, on a lane with a listener.
    pub fn push_raw(self: &Rc<Self>, request: Bytes<'_>, written: Stamps) {
        let mut inner = self.inner.borrow_mut();
        inner.raw_written.merge(written);
        match request {
            Bytes::Request(request) => {
                request.encode_into(&mut inner.buffer);
                if request.is_partial() {
                    inner.passing = Passing::Open;
                }
            }
            Bytes::Own(bytes) => inner.buffer.extend_from_slice(bytes),
        }
        self.mark_dirty(inner);
    }
}
