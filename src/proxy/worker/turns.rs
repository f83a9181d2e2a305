//! One turn at a time, shared out fairly: between addresses, and within an address between the names that are asked about.
//!
//! Whoever guesses the password of one user from many connections gets no more turns than one, so that somebody else at the
//! same address waits for one guess, not for all of them. Everybody who waits is a connected client: there are no more
//! places than those.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::mutant;

/// Who has the turn, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    line: RefCell<Line>,
}

/// A turn, or a place in line for one; who drops it lets the next one have it.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    address: Vec<u8>,
    name: Vec<u8>,
    arrival: u64,
}

/// Those who wait with one name at one address, in order of arrival.
type Waiting = BTreeMap<u64, oneshot::Sender<()>>;

#[derive(Debug, Default)]
struct Line {
    taken: bool,
    arrivals: u64,
    addresses: Rotation<Rotation<Waiting>>,
}

/// What takes turns: whoever has had one goes to the end, and so does whoever comes, so that nobody is overtaken for ever.
#[derive(Debug, Default)]
struct Rotation<T> {
    /// Whose turn it is first.
    order: VecDeque<Vec<u8>>,
    of: FxHashMap<Vec<u8>, T>,
}

impl Turns {
    /// Waits for a turn. Cancel-safe: whoever gives up leaves its place.
    pub(crate) async fn take(&self, address: &str, name: &[u8]) -> Turn<'_> {
        let (granted, grant) = oneshot::channel();
        let place = self.line.borrow_mut().enter(address.as_bytes(), name, granted);
        let waits = place.is_some();
        let turn = Turn { turns: self, place };
        if waits {
            // Its sender goes only with the place.
            let _ = grant.await;
        }
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut line = self.turns.line.borrow_mut();
        if !self.place.as_ref().is_some_and(|place| line.leave(place)) {
            line.pass_on();
        }
    }
}

impl Line {
    /// `None`: it is its turn.
    fn enter(&mut self, address: &[u8], name: &[u8], granted: oneshot::Sender<()>) -> Option<Place> {
        if !std::mem::replace(&mut self.taken, true) {
            return None;
        }
        let name = if mutant::is("suspects-in-order") { b"" } else { name };
        self.arrivals += 1;
        self.addresses.of(address).of(name).insert(self.arrivals, granted);
        Some(Place { address: address.to_owned(), name: name.to_owned(), arrival: self.arrivals })
    }

    /// Gives up a place. False: it was its turn already.
    fn leave(&mut self, place: &Place) -> bool {
        let Some(names) = self.addresses.of.get_mut(&place.address) else { return false };
        let Some(waiting) = names.of.get_mut(&place.name) else { return false };
        let was_there = waiting.remove(&place.arrival).is_some();
        if waiting.is_empty() {
            names.forget(&place.name);
        }
        if names.of.is_empty() {
            self.addresses.forget(&place.address);
        }
        was_there
    }

    fn pass_on(&mut self) {
        let next = self.addresses.next(|names| {
            let next = names.next(|waiting| (waiting.pop_first(), waiting.is_empty()));
            (next, names.of.is_empty())
        });
        self.taken = next.is_some_and(|(_, granted)| granted.send(()).is_ok());
    }
}

impl<T: Default> Rotation<T> {
    /// What belongs to a key; a new one comes last.
    fn of(&mut self, key: &[u8]) -> &mut T {
        if !self.of.contains_key(key) {
            self.order.push_back(key.to_owned());
        }
        self.of.entry(key.to_owned()).or_default()
    }

    /// Takes something of whose turn it is. `take` says, too, whether nothing is left of it.
    fn next<U>(&mut self, take: impl FnOnce(&mut T) -> (Option<U>, bool)) -> Option<U> {
        let key = self.order.pop_front()?;
        let (taken, is_empty) = take(self.of.get_mut(&key)?);
        if is_empty {
            self.of.remove(&key);
        } else {
            self.order.push_back(key);
        }
        taken
    }

    fn forget(&mut self, key: &[u8]) {
        self.of.remove(key);
        self.order.retain(|known| known != key);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Coming<'a> = Pin<Box<dyn Future<Output = Turn<'a>> + 'a>>;

    fn poll<'a>(waiting: &mut Coming<'a>) -> Option<Turn<'a>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// Who comes, by address and name, and in which order they have their turns.
    fn order(who: &[(&str, &str)]) -> Vec<usize> {
        let turns = Turns::default();
        let mut first: Coming<'_> = Box::pin(turns.take("first", b""));
        let mut turn = poll(&mut first);
        let mut waiting: Vec<Option<Coming<'_>>> = Vec::new();
        for (address, name) in who {
            let mut one: Coming<'_> = Box::pin(turns.take(address, name.as_bytes()));
            assert!(poll(&mut one).is_none());
            waiting.push(Some(one));
        }
        let mut order = Vec::new();
        while turn.take().is_some() {
            for (number, place) in waiting.iter_mut().enumerate() {
                if let Some(got) = place.as_mut().and_then(poll) {
                    assert!(turn.is_none(), "one at a time");
                    (turn, *place) = (Some(got), None);
                    order.push(number);
                }
            }
        }
        assert!(!turns.line.borrow().taken && turns.line.borrow().addresses.of.is_empty());
        order
    }

    #[test]
    fn a_name_that_nobody_guesses_is_next() {
        let (guess, other) = (("a", "alice"), ("a", "bob"));
        assert_eq!(order(&[guess, guess, guess, guess]), [0, 1, 2, 3]);
        assert_eq!(order(&[guess, guess, guess, other]), [0, 3, 1, 2]);
        assert_eq!(order(&[guess, guess, other, other, ("a", "eve")]), [0, 2, 4, 1, 3]);
    }

    #[test]
    fn an_address_has_no_more_turns_for_trying_many_names() {
        assert_eq!(order(&[("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("b", "5")]), [0, 3, 1, 4, 2]);
    }

    #[test]
    fn names_without_end_overtake_nobody() {
        let turns = Turns::default();
        let come =
            |name: &'static str| -> (&str, Coming<'_>) { (name, Box::pin(turns.take("a", name.as_bytes()))) };
        let (mut waiting, mut order) = (vec![come("alice"), come("bob"), come("bob")], Vec::new());
        for name in ["1", "2", "3", "4"] {
            waiting.push(come(name));
            // Whoever has had the turn is gone by then.
            let got = waiting.iter_mut().enumerate().filter_map(|(at, one)| Some((at, poll(&mut one.1)?)));
            let got: Vec<_> = got.collect();
            assert_eq!(got.len(), 1, "one at a time");
            for (at, turn) in got {
                order.push(waiting.remove(at).0);
                drop(turn);
            }
        }
        assert_eq!(order, ["alice", "bob", "1", "bob"]);
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let turns = Turns::default();
        let mut first: Coming<'_> = Box::pin(turns.take("a", b"alice"));
        let turn = poll(&mut first).unwrap();
        let mut others: Vec<Coming<'_>> =
            (0..3).map(|_| -> Coming<'_> { Box::pin(turns.take("a", b"alice")) }).collect();
        assert!(others.iter_mut().all(|other| poll(other).is_none()));
        drop(others.remove(0));
        drop(turn);
        // It is its turn, and it does not know yet.
        drop(others.remove(0));
        let turn = poll(&mut others[0]).unwrap();
        assert!(turns.line.borrow().addresses.order.is_empty());
        drop(turn);
        assert!(!turns.line.borrow().taken);
    }
}
