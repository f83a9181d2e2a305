//! What the log tells an operator of the nodes, in sentences: when the proxy is ready and by whom, that the primary is away and
//! what that means, and which replicas come and go and why. It looks at the views that are published; nothing is decided here.
//!
//! What lasts for a moment only is not told: an election, a connection that is made anew. Whoever counts has metrics.

pub mod opening;
mod primary;
mod replicas;
mod scene;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use self::opening::Opening;
use self::primary::PrimaryStory;
use self::replicas::ReplicaStories;
use self::scene::{Line, Scene};
use crate::core::moment::Moment;
use crate::core::slots::ShardIndex;
use crate::core::stream::source::StreamSource;
use crate::net::runtime::clock;
use crate::shard::overall;
use crate::shard::shared::Shared;

/// How often it looks at least: some lines are due by the clock.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between two looks at least: views are published far more often.
const LOOK_GAP: Duration = Duration::from_millis(50);

/// What was told up to now.
#[derive(Debug, Default)]
struct Story {
    opening: Opening,
    primary: PrimaryStory,
    replicas: ReplicaStories,
    /// When it was begun with the nodes that there are.
    begun: Moment,
}

impl Story {
    fn look(&mut self, scene: &Scene<'_>) -> Vec<Line> {
        let mut lines = self.primary.look(scene);
        let ready = self.opening.look(scene);
        let opening = self.opening.is_under_way(scene);
        lines.extend(self.replicas.look(scene, opening, ready.is_some()));
        lines.extend(ready);
        lines
    }
}

/// Tells it for as long as the process runs.
pub async fn tell(shared: Arc<Shared>) {
    let mut story = Story::default();
    let mut views = shared.shard().views.subscribe();
    loop {
        // An error says that the sender is gone, which this task keeps.
        let _ = timeout(LOOK_EVERY, views.changed()).await;
        let shard = overall::label(&shared);
        for line in look(&shared, &mut story) {
            match line {
                Line::Info(text) => tracing::info!(shard, "{text}"),
                Line::Warn(text) => tracing::warn!(shard, "{text}"),
                Line::Error(text) => tracing::error!(shard, "{text}"),
            }
        }
        sleep(LOOK_GAP).await;
    }
}

fn look(shared: &Shared, story: &mut Story) -> Vec<Line> {
    let view = shared.shard().view.load();
    if shared.index() != ShardIndex::FIRST && view.members().next().is_none() {
        // A shard of which no node is known is yet to come, or has gone.
        *story = Story { begun: clock::now(), ..Story::default() };
        return Vec::new();
    }
    story.look(&Scene {
        begun: story.begun,
        view: &view,
        source: shared.shard().stream.source(),
        follows: shared.config().stream.source != StreamSource::Off,
        refused: shared.stats.iter().map(|stats| stats.masterdown.value()).sum(),
        now: clock::now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::Address;
    use crate::core::fence::AnchorSeq;
    use crate::core::nodes::node::{Facts, Link, NodeId, Role};
    use crate::core::nodes::trouble::{Problem, ProblemKind};
    use crate::core::nodes::view::{Observation, Patience, Tracker};
    use crate::core::policy::Policies;
    use crate::core::position::{History, Offset, ReplId};

    /// A primary and a replica, and what is told of them.
    struct Told {
        tracker: Tracker,
        story: Story,
        refused: u64,
    }

    const PRIMARY: NodeId = NodeId(0);
    const REPLICA: NodeId = NodeId(1);

    impl Told {
        fn new() -> Self {
            let second = Duration::from_secs(1);
            let limits = Patience { silence: second * 60, hold: second * 2 };
            let nodes = vec![Address::tcp("n", 1), Address::tcp("n", 2)];
            let tracker = Tracker::new(nodes, Some(PRIMARY), Policies::default(), limits);
            Self { tracker, story: Story::default(), refused: 0 }
        }

        fn hear(&mut self, observation: Observation, ms: u64) {
            let _ = self.tracker.apply(observation, Moment::from_millis(ms));
        }

        fn primary_answers(&mut self, ms: u64) {
            let (sent_at, offset) = (Moment::from_millis(ms), Offset::from_reported(100).unwrap());
            self.hear(Observation::Info { node: PRIMARY, facts: facts(Role::Primary, b'a') }, ms);
            self.hear(Observation::Primary { node: PRIMARY, seq: AnchorSeq(ms), sent_at, offset }, ms);
        }

        fn replica_answers(&mut self, link: Link, master: u16, id: u8, ms: u64) {
            let (node, master) = (REPLICA, ("n".to_owned(), master));
            for _ in 0..4 {
                let applied = Offset::from_reported(100).filter(|_| link == Link::Up);
                self.hear(Observation::Replica { node, link, master: master.clone(), applied }, ms);
                self.hear(Observation::Info { node, facts: facts(Role::Replica, id) }, ms);
            }
        }

        fn lose(&mut self, node: NodeId, ms: u64) {
            let problem = Problem::new(ProblemKind::ConnectionRefused, "");
            self.hear(Observation::Troubled { node, problem }, ms);
            self.hear(Observation::Lost { node }, ms);
        }

        fn look(&mut self, ms: u64) -> Vec<Line> {
            let view = self.tracker.view();
            let now = Moment::from_millis(ms);
            let begun = Moment::default();
            let (source, refused) = (Some(REPLICA), self.refused);
            self.story.look(&Scene { view, source, follows: true, refused, begun, now })
        }
    }

    fn facts(role: Role, id: u8) -> Box<Facts> {
        let history = ReplId::parse(&[id; 40]).map(|id| History { id, previous: None });
        Box::new(Facts { role: Some(role), history, ..Facts::default() })
    }

    fn info(text: &str) -> Vec<Line> {
        vec![Line::Info(text.to_owned())]
    }

    fn begun() -> Told {
        let mut told = Told::new();
        assert_eq!(told.look(1), []);
        told.primary_answers(50);
        assert_eq!(told.look(60), [], "the replica may come yet");
        told.replica_answers(Link::Up, 1, b'a', 100);
        assert_eq!(told.look(180), info("ready after 180 ms: primary n:1, 1 of 1 replicas, stream from n:2"));
        told
    }

    #[test]
    fn what_lasts_for_a_moment_is_not_told_and_an_outage_is_told_once_with_its_end() {
        let mut told = begun();
        told.lose(PRIMARY, 1000);
        assert_eq!(told.look(1400), []);
        told.primary_answers(1450);
        assert_eq!(told.look(1500), []);
        told.lose(PRIMARY, 2000);
        let down = "primary n:1 is down (connection refused): writes wait 2 s, then are refused";
        assert_eq!(told.look(2500), [Line::Error(down.to_owned())]);
        told.lose(PRIMARY, 5000);
        assert_eq!(told.look(12_000), []);
        told.refused = 412;
        told.primary_answers(13_000);
        let back = "primary n:1 answers again after 11 s; 412 commands were refused meanwhile";
        assert_eq!(told.look(13_000), info(back));
        assert_eq!(told.look(14_000), []);
    }

    #[test]
    fn whoever_begins_without_a_primary_is_told_why_and_then_that_it_is_ready() {
        let mut told = Told::new();
        told.hear(Observation::Troubled { node: PRIMARY, problem: Problem::of_error("NOAUTH needed") }, 10);
        told.hear(Observation::Lost { node: PRIMARY }, 10);
        assert_eq!(told.look(100), []);
        let why = "primary n:1 refused its password (NOAUTH): set [upstream] password-file; writes wait 2 s, then are refused";
        assert_eq!(told.look(600), [Line::Error(why.to_owned())]);
        told.lose(PRIMARY, 700);
        assert_eq!(
            told.look(5000),
            [Line::Warn("replica n:2 has not answered yet: it gets no reads".to_owned())]
        );
        let now = "still away: primary n:1 is down (connection refused): writes wait 2 s, then are refused";
        assert_eq!(told.look(11_000), [Line::Error(now.to_owned())]);
        told.primary_answers(12_000);
        told.replica_answers(Link::Up, 1, b'a', 12_000);
        let lines = [
            Line::Info("primary n:1 answers after 12 s; 0 commands were refused meanwhile".to_owned()),
            Line::Info("ready after 12 s: primary n:1, 1 of 1 replicas, stream from n:2".to_owned()),
        ];
        assert_eq!(told.look(12_000), lines);
        assert_eq!(told.look(13_000), []);
    }

    #[test]
    fn a_replica_is_told_of_with_why_and_whom_it_follows() {
        let mut told = begun();
        told.replica_answers(Link::Down, 1, b'a', 1000);
        assert_eq!(told.look(1010), []);
        let warn = |text: &str| vec![Line::Warn(text.to_owned())];
        assert_eq!(told.look(1600), warn("replica n:2 has no link to n:1: it gets no reads"));
        told.replica_answers(Link::Up, 1, b'a', 3000);
        assert_eq!(told.look(3010), info("replica n:2 is in service again after 2 s"));
        told.replica_answers(Link::Up, 9, b'b', 4000);
        assert_eq!(told.look(4010), []);
        let follows = "replica n:2 follows n:9 now and no longer n:1, and holds another history than the primary n:1: it gets no reads";
        assert_eq!(told.look(4600), warn(follows));
        assert_eq!(told.look(60_000), []);
        told.replica_answers(Link::Up, 1, b'a', 61_000);
        let back = "replica n:2 is in service again after 56 s, and follows n:1 now and no longer n:9";
        assert_eq!(told.look(61_000), info(back));
        told.lose(REPLICA, 62_000);
        assert_eq!(told.look(62_010), []);
        assert_eq!(told.look(62_600), warn("replica n:2 is down (connection refused): it gets no reads"));
    }

    #[test]
    fn a_primary_that_is_busy_is_told_of_and_that_it_is_no_longer() {
        let mut told = begun();
        let node = PRIMARY;
        told.hear(Observation::Troubled { node, problem: Problem::of_error("BUSY Redis is busy") }, 1000);
        told.hear(Observation::Busy { node }, 1000);
        assert_eq!(told.look(1100), []);
        assert_eq!(
            told.look(1600),
            [Line::Warn("primary n:1 is busy with a script (BUSY): SCRIPT KILL".to_owned())]
        );
        told.primary_answers(4000);
        assert_eq!(told.look(4100), [], "it may be busy again");
        assert_eq!(told.look(7000), info("primary n:1 answers as usual again after 3 s"));
    }
}
