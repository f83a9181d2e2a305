//! What is counted: fixed amounts of work at two levels.

use crate::callgrind::Measured;

/// Levels, each with a proxy of its own.
pub(crate) const LEVELS: [&str; 2] = ["eventual", "fenced"];
pub(crate) const REPLICAS: usize = 2;

/// What is added to the name of a case for the thread that follows the stream.
pub(crate) const STREAM: &str = ", stream";

/// One kind of work.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) level: &'static str,
    pub(crate) command: Command,
    pub(crate) bytes: usize,
    pub(crate) pipeline: usize,
    pub(crate) clients: usize,
    /// In each, every client sends one pipeline.
    pub(crate) rounds: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Get,
    Set,
}

use Command::{Get, Set};

/// In this order: what is written is read afterwards, so that reads find fences.
pub(crate) const CASES: [Case; 10] = [
    case("eventual", Get, 32, 1, 1, 2_000),
    case("eventual", Get, 32, 1, 50, 300),
    case("eventual", Get, 32, 16, 50, 30),
    case("eventual", Get, 32, 64, 50, 10),
    case("eventual", Set, 32, 16, 50, 30),
    case("eventual", Get, 1024, 16, 10, 60),
    case("fenced", Set, 32, 1, 50, 300),
    case("fenced", Set, 32, 16, 50, 30),
    case("fenced", Get, 32, 1, 50, 300),
    case("fenced", Get, 32, 16, 50, 30),
];

const fn case(
    level: &'static str,
    command: Command,
    bytes: usize,
    pipeline: usize,
    clients: usize,
    rounds: usize,
) -> Case {
    Case { level, command, bytes, pipeline, clients, rounds }
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let Self { level, bytes, pipeline, clients, .. } = self;
        let command = if self.command == Get { "GET" } else { "SET" };
        let s = if *clients == 1 { "" } else { "s" };
        format!("{level}: {command} {bytes} B P{pipeline}, {clients} client{s}")
    }

    /// What is compared: the worker's instructions and, for writes, those of the thread that follows the stream.
    pub(crate) fn figures(&self, measured: &Measured) -> Vec<(String, f64)> {
        let name = self.name();
        let mut figures = vec![(name.clone(), measured.worker)];
        if self.command == Set {
            figures.push((name + STREAM, measured.control));
        }
        figures
    }
}
