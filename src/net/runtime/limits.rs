//! Limits of the data plane that are not worth a config key. Every queue, buffer and wait has one.

use std::time::Duration;

/// Bytes a client's read buffer offers to one read.
pub const CLIENT_READ: usize = 16 * 1024;

/// Bytes a lane's read buffer offers to one read.
pub const LANE_READ: usize = 64 * 1024;

/// Connections to a replica that are made before one leads to the process that is known by its address.
pub const PROCESS_TRIES: u32 = 16;

/// The longest reply to a command of the handshake, in bytes. `HELLO` names the modules, and is the longest of them.
pub const HANDSHAKE: usize = 64 * 1024;

/// The longest push on a shared lane, in bytes. The only one that is asked for has 33.
pub const PUSH: usize = 64 * 1024;

/// The most that is kept of the words of an error that a node has answered to Redweir itself, in bytes.
pub const ERROR_WORDS: usize = 1024;

/// Buffers above this are given back when they run empty.
pub const BUFFER_KEPT: usize = 64 * 1024;

/// The longest that a read waits for a replica so that its connection gets away from the primary, once in a while, if that is
/// longer than `wait-timeout`.
pub const COME_BACK_WITHIN: Duration = Duration::from_millis(250);

/// For so long reads of a key follow one another to the primary; then all of them are waited for.
pub const FOLLOWED_LONGEST: Duration = Duration::from_millis(20);

/// Replies that one client may have outstanding before its input is no longer read.
pub const CLIENT_PENDING: usize = 4096;

/// Replies that a client may have outstanding of which nothing is known yet.
pub const CLIENT_WINDOW_FIRST: usize = 4;

/// Bytes of replies that one client may have asked for at once; one reply, however long it is.
pub const CLIENT_WINDOW: usize = 1024 * 1024;

/// Bytes that may wait for a client whatever `reply-budget` says.
pub const CLIENT_OUTPUT_LEAST: usize = 256 * 1024;

/// Bytes for a client that may wait for more replies to come, for a round.
pub const GATHERED: usize = 16 * 1024;

/// Room for outstanding replies that an idle client keeps.
pub const SLOTS_KEPT: usize = 128;

/// Bytes in a client's output buffer above which a long reply to it that is still arriving makes its lane wait.
pub const LANE_PAUSE: usize = 4 * 1024 * 1024;

/// A reply of more bytes than this is long: its lane leaves the pool until it is through.
pub const LONG_REPLY: usize = 4 * 1024 * 1024;

/// Bytes of a reply that are read though its client has left, before the lane is given up if all that it owes is nobody's.
pub const READ_FOR_NOBODY: usize = 16 * 1024 * 1024;

/// How long others, in all, wait behind a long reply for a client that does not keep up. From then on its replies pile
/// up, until it has taken them all or reaches `client-output-buffer-limit`.
pub const LANE_PAUSE_LONGEST: Duration = Duration::from_millis(200);

/// How long a lane waits for a client that takes nothing but has sent more commands.
pub const STALLED_PIPELINE: Duration = Duration::from_secs(1);

/// A client that takes nothing of a long reply for this long is disconnected.
pub const STALLED_LONGEST: Duration = Duration::from_mins(1);

/// How often a lane that waits for a client looks whether it takes anything.
pub const PACE_EVERY: Duration = Duration::from_millis(50);

/// Lanes kept per key that others have taken the place of while a long reply was on them.
pub const LANES_KEPT: usize = 4;

/// Commands that a shared lane may have outstanding.
pub const LANE_PENDING: usize = 32 * 1024;

/// Request bytes that a shared lane may hold.
pub const LANE_BYTES: usize = 16 * 1024 * 1024;

/// Marks on a plain relay that may be unanswered: then its client waits, or, if it has switched replies off, is
/// disconnected.
pub const RELAY_MARKS: usize = 1024;

/// Keys that were written on a plain relay before the node is asked at once whether that is done, …
pub const FORGET_AT: usize = 32;

/// … and how often it is asked about fewer.
pub const FORGET_EVERY: Duration = Duration::from_millis(100);

/// Shard channels that one client may hear.
pub const MOST_CHANNELS: usize = 1 << 16;

/// Before a channel is asked for anew that was refused.
pub const RENEW_AFTER: Duration = Duration::from_millis(20);

/// How often shards are looked for whose keyspace events a client does not hear yet.
pub const SHARDS_EVERY: Duration = Duration::from_secs(1);

/// How long the node may take nothing, or not come to the end, of what a plain relay has taken from a client that is
/// gone.
pub const RELAY_LINGER: Duration = Duration::from_secs(5);

/// Bytes of a long command that are taken from its client before the node has taken them.
pub const PASSED_AHEAD: usize = 256 * 1024;

/// A client whose replies are longer than this, on average, has a lane with others of its kind.
pub const LARGE_REPLIES: usize = 4 * 1024;

/// Below this average it goes back to the lane that everybody uses.
pub const SMALL_REPLY: usize = 1024;

/// Of replies no longer than this nothing is noted, as long as there were no longer ones.
pub const PLAIN_REPLY: usize = 2048;

/// Lanes of large replies to each node: see the purposes of lanes.
pub const LARGE_LANES: u64 = 8;

/// Bytes of large replies that are asked for at once on each of these lanes: at a round trip of one millisecond 1 GB/s
/// to each node.
pub const LARGE_WINDOW: usize = 128 * 1024;

/// So many are asked for, however large they are.
pub const LARGE_ASKED_AT_LEAST: usize = 2;

/// Output buffers larger than [`BUFFER_KEPT`] that a worker keeps, in bytes altogether, …
pub const LARGE_BUFFERS_KEPT: usize = 4 * 1024 * 1024;

/// … until none was used for so long.
pub const LARGE_BUFFERS_IDLE: Duration = Duration::from_millis(100);

/// A reply longer than this is passed on before it is complete.
pub const CUT_THROUGH: usize = 32 * 1024;

/// Connection attempts to a node are this far apart, at least.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Whether somebody without a password may come in is asked again at most so often, as long as nobody answers.
pub const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Clean exclusive lanes that a worker keeps per key.
pub const IDLE_KEPT: usize = 16;

/// How often idle exclusive lanes are asked whether they still work. One that has not answered by then is closed.
pub const IDLE_CHECK: Duration = Duration::from_secs(5);

/// A lane that no client has had at hand for this long is closed, unless it is one that every client uses.
pub const LANE_IDLE: Duration = Duration::from_mins(1);

/// Lanes that no client has at hand and that a worker keeps all the same, until they are idle for too long.
pub const LANES_UNUSED: usize = 256;

/// A lane that owes a reply for so many times the silence of a node is given up if the node answers elsewhere meanwhile.
pub const STALLED_SILENCES: u128 = 5;

/// A node that refuses so many writes in a row as a replica does, and says each time that it is the primary, has its word.
pub const DEPOSITIONS: u32 = 32;

/// How often a worker looks for lanes that nobody uses and identities that are not accepted any longer.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// `AUTH` attempts that a worker has verified by the primary at a time; the others wait for their turn.
pub const VERIFIED_AT_ONCE: usize = 8;

/// How long a client that gave no password is told that it needs one before the primary is asked again.
pub const REFUSAL_KEPT: Duration = Duration::from_millis(100);

/// How long the workers may take to report on their clients.
pub const REPORT_WITHIN: Duration = Duration::from_millis(500);

/// Questions about its clients that may wait for a worker.
pub const ERRANDS: usize = 256;

/// Connections that may wait to be accepted on a socket that several processes listen on.
pub const BACKLOG: i32 = 1024;

/// How long a client that has connected and said nothing yet may take for its first words when the process drains.
pub const FIRST_WORDS: Duration = Duration::from_millis(250);

/// New connections waiting for a worker to take them.
pub const ACCEPT_QUEUE: usize = 1024;

/// Read buffers that a worker keeps for clients to come.
pub const BUFFERS_POOLED: usize = 64;

/// Bytes that a client may send ahead while its connection waits for something else.
pub const READ_AHEAD: usize = 64 * 1024;

/// How often a connection sees whether another replica has fewer connections than its own.
pub const BALANCE_EVERY: Duration = Duration::from_millis(250);

/// How long a connection stays away that has left the zone of the proxy because the replicas there have no room.
pub const AWAY_AT_LEAST: Duration = Duration::from_secs(5);

/// A command that waits is tried again at most so often for the sake of the replication stream.
pub const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// How long a client that has closed its sending side may take to receive what is still owed to it.
pub const LINGER: Duration = Duration::from_secs(5);

/// TLS handshakes of clients that may be under way at a time; the others wait for their turn.
pub const TLS_UNDER_WAY: usize = 512;

/// While others wait for theirs, a client may take so long for its TLS handshake. More than what all that are under way take of
/// two cores with RSA keys of 4096 bits.
pub const TLS_IN_A_CROWD: Duration = Duration::from_secs(2);

/// How long a client may take for its TLS handshake.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes that are encrypted at once, and may be waiting for the socket: four records.
pub const TLS_WRITE: usize = 64 * 1024;

/// Bytes of ciphertext that a read asks for at least.
pub const TLS_READ_LEAST: usize = 4 * 1024;

/// Failed handshakes of a listener that are this close to each other are told only to those who debug.
pub const TLS_LOGGED_EVERY: Duration = Duration::from_secs(1);

/// How often certificates and keys are looked at.
pub const TLS_LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the configuration is looked at. What one look finds counts when the next one finds the same.
pub const CONFIG_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bytes of the configuration that are looked at; larger ones are refused.
pub const CONFIG_FILE: u64 = 1024 * 1024;

/// Bytes of a certificate or key file that are looked at; larger ones are refused.
pub const TLS_FILE: u64 = 1024 * 1024;

/// How long a client that has closed its sending side may take to be answered by Redweir itself.
pub const ANSWERED_AFTER_END: Duration = Duration::from_millis(500);

/// For how many nodes descriptors are kept free where it is found out how many there are.
pub const NODES_EXPECTED: usize = 8;

/// Shards of a cluster that are looked after, at most: each has connections, tasks and fences of its own.
pub const MOST_SHARDS: usize = 128;
