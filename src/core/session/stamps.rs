//! The keys that a command writes, or that a read has seen, as slots of the fence table.

use crate::core::fence::Slot;

/// So many keys are told apart. More that a transaction writes are all keys.
const KEPT: usize = 64;

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
        if matches!(self, Self::Many(slots) if slots.len() > KEPT) {
            *self = Self::All;
        }
    }

    /// Them, none for all keys; `None` if no key is meant.
    pub fn slots(&self) -> Option<&[Slot]> {
        match self {
            Self::None => None,
            Self::One(slot) => Some(std::slice::from_ref(slot)),
            Self::Many(slots) => Some(slots),
            Self::All => Some(&[]),
        }
    }

    /// Whether they are too many to be compared one by one with others.
    pub fn are_many(&self) -> bool {
        matches!(self, Self::Many(slots) if slots.len() > KEPT)
    }

    /// Whether any of the others is among them.
    pub fn touch_any_of(&self, others: &Self) -> bool {
        match others {
            Self::None => false,
            Self::One(slot) => self.touch(*slot),
            Self::Many(slots) => slots.iter().any(|slot| self.touch(*slot)),
            Self::All => *self != Self::None,
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
