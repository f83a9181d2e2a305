//! A relay to one of several shards that a client hears: what it hands on is whole, for another one may speak next, and is what one
//! server would say ([`crate::proxy::downstream::channels`]).

use std::rc::Rc;

use crate::core::slots::ShardIndex;
use crate::proxy::downstream::channels::Heard;
use crate::proxy::downstream::replies::{Client, Gone};
use crate::wire::reply::ReplyScanner;

/// What listens to one shard.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Ear {
    shard: ShardIndex,
    resp3: bool,
    scanner: ReplyScanner,
    /// What has come of the next reply.
    begun: Vec<u8>,
    /// What comes are no replies.
    lost: bool,
}

impl Ear {
    /// Listens to the primary of this shard.
    pub(in crate::proxy::upstream) fn new(shard: ShardIndex, resp3: bool) -> Self {
        Self { shard, resp3, scanner: ReplyScanner::new(), begun: Vec::new(), lost: false }
    }

    /// Hands on what is whole of what has been said.
    pub(super) fn hear(&mut self, mut bytes: &[u8], client: &Rc<Client>) {
        while !bytes.is_empty() && !self.lost {
            let used = match self.scanner.scan(bytes) {
                Ok(Some(extent)) => extent.end,
                Ok(None) => {
                    self.begun.extend_from_slice(bytes);
                    if !client.may_hold(self.begun.len()) {
                        client.leave(Gone::TooSlow);
                    }
                    return;
                }
                Err(_) => {
                    self.end(client);
                    break;
                }
            };
            if self.begun.is_empty() {
                self.decide(&bytes[..used], client);
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(&bytes[..used]);
                self.decide(&whole, client);
            }
            bytes = &bytes[used..];
        }
        client.push_raw(bytes);
    }

    /// What comes now are no replies.
    pub(super) fn end(&mut self, client: &Rc<Client>) {
        if !self.lost {
            self.lost = true;
            client.push_raw(&std::mem::take(&mut self.begun));
        }
    }

    fn decide(&self, reply: &[u8], client: &Rc<Client>) {
        let heard = client.status.channels.borrow_mut().hear(self.shard, reply, self.resp3);
        match heard {
            Heard::Passed => client.push_raw(reply),
            Heard::Changed(reply) => client.push_raw(&reply),
            Heard::Dropped => {}
            Heard::Lost(waits) => client.renews_channels(waits),
        }
    }
}
