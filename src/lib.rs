//! Redweir: a replication-aware TCP proxy for Redis.
//!
//! Layers, each using only those before it:
//! `core` (decisions, pure) < `wire` (bytes and words, pure) < `config`, `telemetry` < `net` (sockets) <
//! `admin` < `app` < `cli` < `main`. `tests/tidy.rs` enforces the order.

pub mod cli;
pub mod config;
pub mod core;
pub mod net;
pub mod wire;
