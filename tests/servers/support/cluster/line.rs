//! What `CLUSTER NODES` says.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::support::resp::Conn;

/// A line of `CLUSTER NODES`.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) port: u16,
    pub(crate) flags: BTreeSet<String>,
    /// The id of its primary.
    pub(crate) primary: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) slots: Vec<RangeInclusive<u16>>,
    /// Slots on the move, as they stand there: `[7->-id]`, `[7-<-id]`.
    pub(crate) open: Vec<String>,
}

/// What a node says of all that it knows.
pub(crate) fn lines(conn: &mut Conn) -> Vec<Line> {
    conn.cmd(&["CLUSTER", "NODES"]).text().lines().map(Line::read).collect()
}

impl Line {
    fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let address = words[1].split(['@', ',']).next().unwrap();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        let (open, slots): (Vec<&str>, Vec<&str>) = words[8..].iter().partition(|word| word.starts_with('['));
        let range = |word: &&str| {
            let (low, high) = word.split_once('-').unwrap_or((word, word));
            low.parse().unwrap()..=high.parse().unwrap()
        };
        Self {
            id: words[0].to_owned(),
            port,
            flags: words[2].split(',').map(str::to_owned).collect(),
            primary: (words[3] != "-").then(|| words[3].to_owned()),
            epoch: words[6].parse().unwrap(),
            slots: slots.iter().map(range).collect(),
            open: open.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    /// Whether it is no part of the cluster any longer, or not yet.
    pub(crate) fn is_gone(&self) -> bool {
        ["fail", "fail?", "noaddr", "handshake"].iter().any(|flag| self.flags.contains(*flag))
    }

    pub(crate) fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }
}
