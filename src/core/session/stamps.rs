//! The keys that a command writes, or that a read has seen, as slots of the fence table.

use super::IN_FLIGHT_KEPT;
use crate::core::fence::Slot;

/// The slots that a command writes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Stamps {
    /// None.
    #[default]
    None,
    /// One key.
    One(Slot),
    /// Several keys.
    Many(Vec<Slot>),
    /// Keys that cannot be known.
    All,
}

impl Stamps {
    /// Adds a key.
    pub fn add(&mut self, slot: Slot) {
        match self {
            Self::None => *self = Self::One(slot),
            Self::One(first) => *self = Self::Many(vec![*first, slot]),
            Self::Many(slots) => slots.push(slot),
            Self::All => {}
        }
    }

    /// Adds what another command writes. More than a connection remembers one by one are all keys.
    pub fn merge(&mut self, other: Self) {
        match other {
            Self::One(slot) if !self.touch(slot) => self.add(slot),
            Self::None | Self::One(_) => {}
            Self::Many(slots) => slots.iter().for_each(|slot| self.merge(Self::One(*slot))),
            Self::All => *self = Self::All,
        }
        if matches!(self, Self::Many(slots) if slots.len() > IN_FLIGHT_KEPT) {
            *self = Self::All;
        }
    }

    /// Whether a key of this slot is among them.
    pub fn touch(&self, slot: Slot) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => *one == slot,
            Self::Many(slots) => slots.contains(&slot),
            Self::All => true,
        }
    }
}
