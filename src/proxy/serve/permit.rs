//! Standing in line for an exclusive connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::{Server, WaitEnd};
use crate::proxy::session::exclusive::pin::Permit;

impl Server {
    /// Waits for a place among the exclusive connections; reads ahead a little, to notice a client that leaves.
    pub(super) async fn wait_for_permit(&mut self) -> WaitEnd {
        let shared = Arc::clone(&self.worker.shared);
        let place = Arc::clone(&shared.exclusive).acquire_owned();
        let mut place = std::pin::pin!(tokio::time::timeout(shared.config().upstream.exclusive_wait, place));
        loop {
            let event = poll_fn(|cx| {
                if let Some(why) = self.client.poll(cx) {
                    return Poll::Ready(WaitEnd::Gone(why));
                }
                if let Poll::Ready(place) = Future::poll(place.as_mut(), cx) {
                    self.connection.permit = match place {
                        Ok(Ok(place)) => Permit::Served(place),
                        Ok(Err(_)) | Err(_) => Permit::GaveUp,
                    };
                    return Poll::Ready(WaitEnd::Changed);
                }
                if self.input.may_read_ahead() {
                    return self.input.poll(&self.worker, &mut self.read, cx);
                }
                Poll::Pending
            })
            .await;
            match event {
                WaitEnd::Input(0) => self.input.ended = true,
                WaitEnd::Input(_) => self.connection.waiting.arrive(),
                event => return event,
            }
        }
    }
}
