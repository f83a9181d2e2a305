//! Where a command goes in a cluster, for EXPLAIN: what traffic does with it is decided by the same parts
//! (`core::slots::about`, [`Cluster::floor`]).

use std::sync::Arc;

use crate::config::KeylessScripts;
use crate::core::argv::Args;
use crate::core::command::in_force::Commands;
use crate::core::command::{Access, Intent};
use crate::core::moment::Moment;
use crate::core::nodes::view::View;
use crate::core::policy::{Consistency, Policy};
use crate::core::reason::Reason;
use crate::core::route::Demand;
use crate::core::slots::Floor;
use crate::core::slots::{
    About, Expected, HashSlot, ShardIndex, SlotPlace, SlotState, Spread, about, spread,
};
use crate::shard::cluster::Cluster;
use crate::shard::shared::Shared;

/// Where a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The hash slot of its keys, if it has any.
    pub slot: Option<HashSlot>,
    /// The shard that is asked; `None`: nobody, or every one.
    pub shard: Option<ShardIndex>,
    /// That of the slot.
    pub state: SlotState,
    /// If it only reads, a replica may answer.
    pub replicas: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent.
    Sent,
    /// It waits for somebody to have its slot.
    Unowned,
    /// Redweir answers an error, and why.
    Refused(&'static str),
}

/// A command, or the part of it that is explained, and where that goes.
pub struct Asked {
    /// Where.
    pub place: Place,
    /// The words.
    pub args: Vec<Vec<u8>>,
    /// The shard that decides.
    pub shared: Arc<Shared>,
}

/// Where `args` goes; `None`: there is no cluster.
pub fn of<A: Args + ?Sized>(shared: &Arc<Shared>, args: &A, commands: &Commands) -> Option<Asked> {
    let cluster = shared.cluster()?;
    let intent = commands.table.classify(args);
    let what = about(args, intent, &commands.table);
    let whole = || (0..args.count()).map(|at| args.arg(at).to_vec()).collect::<Vec<_>>();
    let place = match what {
        About::Slot { slot, expected } => at(cluster, slot, expected != Expected::Unseen),
        About::Nothing => keyless(shared, spread(intent, &commands.table, false)),
        About::Several => {
            let step = match spread(intent, &commands.table, true) {
                Spread::Elements => 0,
                Spread::Sum => 1,
                Spread::Writes if splits(shared) => 2,
                _ => {
                    return Some(here(shared, Place { fate: Fate::Refused(CROSS_SLOT), ..NOWHERE }, whole()));
                }
            };
            let args = first_part(args, step);
            let slot = HashSlot::of(args.get(1).map_or(&[], Vec::as_slice));
            let place = at(cluster, slot, true);
            return Some(here(shared, place, args));
        }
    };
    Some(here(shared, place, whole()))
}

/// Decided by the shard that is asked, or by the present one.
fn here(shared: &Arc<Shared>, place: Place, args: Vec<Vec<u8>>) -> Asked {
    let owner = place.shard.and_then(|shard| shared.cluster()?.shard(shard));
    Asked { place, args, shared: owner.unwrap_or_else(|| Arc::clone(shared)) }
}

impl Place {
    /// With what is demanded of replicas for the slot.
    pub(super) fn demand(
        self,
        demand: Demand,
        shared: &Shared,
        (intent, policy): (Intent, &Policy),
        (view, now): (&View, Moment),
    ) -> Demand {
        let is_bounded = policy.consistency >= Consistency::Bounded;
        if is_bounded && shared.shard().is_unconfirmed_for(policy.max_lag, now) {
            return Demand::Unknown(Reason::SlotMoving);
        }
        self.floor(shared, intent, view).and(demand)
    }

    fn floor(self, shared: &Shared, intent: Intent, view: &View) -> Floor {
        match (shared.cluster(), self.slot, self.shard) {
            _ if intent.access != Access::Read => Floor::NONE,
            (Some(cluster), Some(slot), owner @ Some(_)) if self.replicas => {
                cluster.floor((slot, SlotPlace { owner, state: self.state }), shared, view, None)
            }
            _ => Floor::PRIMARY,
        }
    }
}

fn at(cluster: &Cluster, slot: HashSlot, replicas: bool) -> Place {
    let SlotPlace { owner, state } = cluster.place(slot);
    let fate = if owner.is_some() { Fate::Sent } else { Fate::Unowned };
    Place { slot: Some(slot), shard: owner, state, replicas, fate }
}

fn keyless(shared: &Shared, spread: Spread) -> Place {
    let config = shared.config();
    let refuses = config
        .upstream
        .cluster
        .as_ref()
        .is_some_and(|settings| settings.keyless_scripts == KeylessScripts::Refuse);
    match spread {
        Spread::Script if refuses => Place { fate: Fate::Refused(KEYLESS_SCRIPT), ..NOWHERE },
        Spread::AboutClusters => Place { fate: Fate::Refused(NO_CLUSTER), ..NOWHERE },
        Spread::Anywhere | Spread::Script => Place { shard: Some(shared.index()), ..NOWHERE },
        _ => NOWHERE,
    }
}

fn splits(shared: &Shared) -> bool {
    shared.config().upstream.cluster.as_ref().is_some_and(|settings| settings.split_writes)
}

/// The name and the first key, with what else stands for that slot: each key begins `step` arguments; 0: it stands alone.
fn first_part<A: Args + ?Sized>(args: &A, step: usize) -> Vec<Vec<u8>> {
    let mut part = vec![args.arg(0).to_vec(), args.arg(1).to_vec()];
    if step > 0 {
        let slot = HashSlot::of(args.arg(1));
        let of_slot = (1..args.count()).step_by(step).filter(|key| HashSlot::of(args.arg(*key)) == slot);
        let all = of_slot.flat_map(|key| key..(key + step).min(args.count()));
        part.truncate(1);
        part.extend(all.map(|at| args.arg(at).to_vec()));
    }
    part
}

/// No slot, and no shard in particular.
const NOWHERE: Place =
    Place { slot: None, shard: None, state: SlotState::Unowned, replicas: false, fate: Fate::Sent };

const CROSS_SLOT: &str = "its keys are in several hash slots, which is an error (CROSSSLOT)";
const KEYLESS_SCRIPT: &str = "a script without keys is refused ([upstream.cluster] keyless-scripts)";
const NO_CLUSTER: &str = "clients see no cluster";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_part_is_what_is_about_the_slot_of_the_first_key() {
        let part = |command: &str, step| {
            let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            let part = first_part(args.as_slice(), step);
            part.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(part("MGET {a}1 b {a}2", 0), "MGET {a}1");
        assert_eq!(part("DEL {a}1 b {a}2", 1), "DEL {a}1 {a}2");
        assert_eq!(part("MSET {a}1 1 b 2 {a}2 3", 2), "MSET {a}1 1 {a}2 3");
    }
}
