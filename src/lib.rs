//! Redweir: a replication-aware TCP proxy for Redis.
//!
//! Layers, each using only those before it:
//! `core` (decisions, pure) < `wire` (bytes and words, pure) < `config`, `telemetry` < `net` (sockets and time), `shard` (what
//! is known of one primary and its replicas), `control` (finds that out), `proxy` (serves clients by it) < `admin` < `app` < {`demo`, `cli`} < `main`. `tests/tidy.rs` enforces the order.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod demo;
pub mod mutant;
pub mod net;
pub mod proxy;
pub mod shard;
pub mod telemetry;
pub mod wire;
