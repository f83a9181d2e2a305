//! What is done for one shard besides serving its clients: its nodes are asked how they are, its replication stream is followed,
//! and what changes is told.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::control::doctor;
use crate::control::follower::{self, Follower};
use crate::control::keeper;
use crate::control::members::Members;
use crate::control::prober::Heard;
use crate::control::stamper::{self, FailedSources, Stamper};
use crate::control::story;
use crate::core::nodes::members::{Membership, Places};
use crate::core::nodes::view::Tracker;
use crate::core::slots::ShardIndex;
use crate::net::runtime::task;
use crate::net::socket::dial::Dialer;
use crate::shard::shared::Shared;

/// Begins with it, for good. `tracker` knows those who have `places` already; who else belongs to the shard comes through `found`.
/// What is told the keeper of the view goes into the sender.
pub fn start(
    shared: &Arc<Shared>,
    tracker: Tracker,
    places: Places,
    found: watch::Receiver<Membership>,
) -> mpsc::Sender<Heard> {
    let (observations, heard) = mpsc::channel(keeper::QUEUE);
    task::spawn("keeper", keeper::keep(Arc::clone(shared), tracker, heard));
    let members = Members::start(Arc::clone(shared), observations.clone(), places);
    task::spawn("members", members.follow(found));
    let told = Arc::clone(shared);
    task::supervise("story", move || story::tell(Arc::clone(&told)));
    let failures = FailedSources::default();
    let (wanted, source) = watch::channel(None);
    let (chooser, heard_of) = (Arc::clone(shared), Arc::clone(&failures));
    task::supervise("source", move || {
        stamper::choose_source(Arc::clone(&chooser), Arc::clone(&heard_of), wanted.clone())
    });
    if shared.index() != ShardIndex::FIRST {
        // That of the first is told of the sentinels, too, which no cluster has.
        let examined = Arc::clone(shared);
        task::supervise("doctor", move || doctor::watch(Arc::clone(&examined), Dialer::new(None)));
    }
    let reader = Arc::clone(shared);
    task::supervise("follower", move || {
        let sink = Stamper::new(Arc::clone(&reader), Arc::clone(&failures));
        let follower = Follower::new(source.clone(), None, follower::FollowerLimits::DEFAULT, sink);
        let asked = Arc::clone(&reader);
        let access = move || {
            let config = asked.config();
            (config.upstream.credentials(), config.upstream.connect_timeout)
        };
        follower.through(reader.dialer.clone()).by(access).run()
    });
    observations
}
