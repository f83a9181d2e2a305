//! Whether a name has moved: a node that is configured by the name of its host is wherever the name leads, and connections
//! that were made before stay where they are.

use std::collections::BTreeSet;

/// Answers in a row that must say so: one alone may be a mistake, or the turn of others in a list that is told in parts.
const SAID_SO: u32 = 2;

/// More addresses than any one node has; a name that has led to so many is looked at anew.
const MOST_ADDRESSES: usize = 64;

/// Where the name of one host leads.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Where connections may have been made to.
    present: BTreeSet<String>,
    /// What the last answers said instead, none of which had any of those.
    instead: BTreeSet<String>,
    said_so: u32,
}

impl Host {
    /// The name was answered. True: it leads elsewhere now, and whatever was connected by it is at the wrong node.
    pub fn moves_to(&mut self, addresses: impl IntoIterator<Item = String>) -> bool {
        let answer: BTreeSet<String> = addresses.into_iter().collect();
        if answer.is_empty() {
            return false;
        }
        if self.present.is_empty() || !self.present.is_disjoint(&answer) {
            if self.present.len() > MOST_ADDRESSES {
                self.present.clear();
            }
            self.present.extend(answer);
            self.present.append(&mut self.instead);
            self.said_so = 0;
            return false;
        }
        self.instead.extend(answer);
        self.said_so += 1;
        let moves = self.said_so >= SAID_SO;
        if moves {
            (self.present, self.said_so) = (std::mem::take(&mut self.instead), 0);
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(host: &mut Host, answers: &[&str]) -> Vec<bool> {
        let words = |answer: &&str| answer.split(' ').map(str::to_owned).collect::<Vec<_>>();
        answers.iter().map(|answer| host.moves_to(words(answer))).collect()
    }

    #[test]
    fn a_name_has_moved_once_two_answers_say_so() {
        let mut host = Host::default();
        assert_eq!(moves(&mut host, &["a", "a", "b", "b", "b"]), [false, false, false, true, false]);
        assert_eq!(moves(&mut host, &["a", "b", "a", "b"]), [false; 4], "one alone may be a mistake");
        assert!(!host.moves_to([]), "no answer says nothing");
    }

    #[test]
    fn who_is_named_in_turn_has_not_moved() {
        let mut host = Host::default();
        assert_eq!(moves(&mut host, &["a b", "b c", "c a", "b", "c", "a"]), [false; 6]);
        let turns = moves(&mut Host::default(), &["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
        assert!(turns[3..].iter().all(|moved| !moved), "{turns:?}");
    }
}
