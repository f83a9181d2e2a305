//! Decisions, pure: no I/O, no async, no clock, no random numbers, no logging. Time and chance are arguments.
//!
//! # Glossary: one word, one meaning
//!
//! Of the servers:
//! - **primary**, **replica**, **replication ID**, **offset**, **backlog**, **link**: as Redis uses them.
//! - **stream**: the replication stream. **source**: the node whose stream is followed.
//! - **history**: what one replication ID names; offsets compare only within one.
//! - **era**: counts the histories of the view, so that an offset can be told from one of another history.
//! - **head**: the primary's offset. **applied**: the offset up to which a replica has executed the stream.
//! - **lag**: head − applied, in bytes.
//! - **staleness**: an upper bound, in time, on how old a replica's data can be.
//! - **place**: where a view keeps a node; **vacant** while nobody has it. **tenancy**: the number of those who have had it.
//! - **incarnation**: the number of a node's data, as the view knows it: another one when they may be older than they were.
//!   **generation**: the same as one worker knows it, which hears some of it earlier. A proof is void in the next.
//! - **zone**: the availability zone of a node, as the configuration or the node itself says. **near**: in that of the proxy.
//! - **proof**: the offset that a replica has said, in front of a reply on the same connection, to have applied.
//! - **rules**: what a node says of its users (`ACL LIST`). **rights**: what follows from comparing them.
//!   **barred**: a replica that gets no reads of a user because of them.
//! - **hash slot**: one of the 16384 parts of the keys of a Redis Cluster; in `core::slots` just slot. **owner**: the shard
//!   where its commands go. **stable**, **moving**: whether replicas of the owner may be asked. **sign**: whatever shows that it
//!   moves, or may. **claim**: that a primary names it as its own, under a **config epoch**; the higher one counts.
//!
//! Of a decision:
//! - **shard**: all that is known of one primary and its replicas. **view**: the immutable snapshot of all
//!   nodes that decisions read.
//! - **anchor**: (sent at, offset): every write acknowledged before `sent at` has an offset ≤ `offset`.
//! - **fence**: the offset that a replica must have applied before it may serve a key.
//! - **slot**: the place of a key in the table of fences, by its hash; of a client's replies, the place of one command.
//! - **mark**: what a slot of the table says: nothing, an offset, or **pending**: an offset that the next anchor will bound.
//!   To **stamp** is to raise a mark, to **settle** is to give one that is pending its offset.
//! - **floor**: the mark that holds for all keys, whatever their slots say.
//! - **life**: the number of times that the table of fences was emptied.
//! - **session**: what one client connection has written and seen. **home**: the replica that serves it.
//! - **token**: a session's offset, for another connection to start from (`REDWEIR TOKEN`).
//! - **barrier**: the anchor that a strong read waits for, sent after the read had arrived.
//! - **intent**: what a command is. **demand**: what a replica must have applied to serve a read.
//! - **policy**: what a read may tolerate. **reason**: why a decision was taken.
//!
//! Of the proxy:
//! - **worker**: one thread, with its clients and its lanes.
//! - **lane**: one connection to a node. It is shared by clients for whom replies are the same, or exclusive to one.
//! - **detour**: a lane with a long reply that has left the pool; what would wait behind it goes another way.
//! - **pin**: the exclusive connection of a client to the primary, and what state the client has left on it.
//!   **permit**: the leave to have one, of which there are so many.
//! - **plain relay**: an exclusive connection whose replies are not counted any longer (`SUBSCRIBE`, `MONITOR`, …).
//! - **tombstone**: what stands in a lane's queue for a command that has gone elsewhere, until its reply was read.
//!   **the drain**: the client that gets such replies; they are dropped. To drain, of the process: to end with its clients.
//! - **run**: a client's commands that went one after the other to the primary on a lane of their own.
//! - **held**: a write that no node has got, kept for the next primary.
//! - **identity**: as whom commands run: credentials that the primary has accepted.
//! - **admission**: whether clients without a password are let in. **epoch**: the number of the primary's word on that.
//! - **fast path**: a command goes the way of the one before it without a decision of its own.

pub mod address;
pub mod argv;
pub mod command;
pub mod cursor;
pub mod demand;
pub mod diagnose;
pub mod fence;
pub mod moment;
pub mod nodes;
pub mod plan;
pub mod policy;
pub mod position;
pub mod reason;
pub mod repeat;
pub mod route;
pub mod session;
pub mod slots;
pub mod stream;
