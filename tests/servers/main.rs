//! Everything that is shown on real servers. One program, so that what is slow in one file runs beside another's, and
//! what all stand on is compiled once. `cargo test --test servers corners::` runs a file's.

mod support;

mod admin;
mod admission;
mod bounded;
mod cli;
mod client_command;
mod clients;
mod commands_live;
mod consistency;
mod corners;
mod dirty;
mod disconnects;
mod discovery;
mod doctor;
mod drain;
mod dropin;
mod every_command;
mod explained;
mod failovers;
mod faults;
mod handover;
mod handshakes;
mod hangs;
mod harness;
mod hostile;
mod identity;
mod keys_live;
mod large;
mod losses;
mod managed;
mod offload;
mod panics;
mod pipelines;
mod pools;
mod relays;
mod reload;
mod replicas_differ;
mod rights;
mod routing;
mod scans;
mod sentinel;
mod stateful;
mod story;
mod tls;
