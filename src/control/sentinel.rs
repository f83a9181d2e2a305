//! Asks all sentinels who belongs to the shard and who is called its primary: each second, and at once when one of them tells
//! that it has switched (`+switch-master`). What their answers come to is decided elsewhere
//! ([`crate::core::nodes::sentinel`]).
//!
//! Each of them has two connections: one for questions, and one for what it tells by itself. A sentinel that is lost, or whose
//! answer makes no sense, says nothing until it answers again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use redis_protocol::resp2::types::BytesFrame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::config::Sentinel as Settings;
use crate::core::address::Address;
use crate::core::moment::Moment;
use crate::core::nodes::members::Membership;
use crate::core::nodes::node::Role;
use crate::core::nodes::sentinel::{Ground, Sentinels, Word};
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::runtime::jitter;
use crate::net::runtime::task;
use crate::net::socket::call::{ControlError, ControlLink, encode, words};
use crate::net::socket::dial::Dialer;
use crate::shard::shared::Shared;
use crate::wire::answer::AnswerDecoder;
use crate::wire::sentinel;

/// Between two questions.
const POLL: Duration = Duration::from_secs(1);

/// Pauses between attempts to connect: from the first, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// What is not as it should be is told of once it has been so for so long: while a primary is replaced, it is for a moment.
const TOLD_AFTER: Duration = Duration::from_secs(3);

/// What the sentinels have said last, and who waits for it.
#[derive(Debug)]
struct Desk {
    words: Mutex<Vec<Option<Word>>>,
    /// Counts changes of the words.
    news: watch::Sender<u64>,
    /// Counts reasons to ask all of them at once.
    looks: watch::Sender<u64>,
}

impl Desk {
    fn words(&self) -> MutexGuard<'_, Vec<Option<Word>>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, index: usize, word: Option<Word>) {
        if let Some(place) = self.words().get_mut(index) {
            *place = word;
        }
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }
}

/// Asks the sentinels from now on; what it comes to is in the receiver.
pub fn start(shared: &Arc<Shared>, dialer: &Dialer, settings: &Settings) -> watch::Receiver<Membership> {
    let count = settings.addresses.len();
    let (words, news, looks) = (Mutex::new(vec![None; count]), watch::Sender::new(0), watch::Sender::new(0));
    let desk = Arc::new(Desk { words, news, looks });
    for (index, address) in settings.addresses.iter().enumerate() {
        let sentinel = Sentinel {
            index,
            address: address.clone(),
            name: settings.master_name.clone(),
            dialer: dialer.clone(),
            shared: Arc::clone(shared),
            desk: Arc::clone(&desk),
        };
        let listener = sentinel.clone();
        task::supervise("sentinel", move || sentinel.clone().ask_for_ever());
        task::supervise("sentinel's news", move || listener.clone().listen_for_ever());
    }
    let (found, membership) = watch::channel(Membership::default());
    // It outlives a panic: what counted once is not given up.
    let believed = Sentinels::new(shared.config().upstream.address_map.clone());
    let (shared, believed) = (Arc::clone(shared), Arc::new(Mutex::new(believed)));
    task::supervise("sentinels", move || {
        weigh(Arc::clone(&shared), Arc::clone(&desk), Arc::clone(&believed), found.clone())
    });
    membership
}

/// One sentinel.
#[derive(Clone, Debug)]
struct Sentinel {
    index: usize,
    address: Address,
    /// What it calls the primary and its replicas.
    name: String,
    dialer: Dialer,
    shared: Arc<Shared>,
    desk: Arc<Desk>,
}

impl Sentinel {
    async fn ask_for_ever(self) {
        let (mut pause, mut told) = (RETRY_FIRST, String::new());
        loop {
            let begun = clock::now();
            let problem = self.ask_until_lost(&mut told).await;
            self.desk.tell(self.index, None);
            if clock::now().since(begun) >= RETRY_LONGEST {
                pause = RETRY_FIRST;
            }
            let text = problem.to_string();
            if text != told {
                tracing::warn!(sentinel = %self.address, problem = %text, "a sentinel does not answer");
                told = text;
            }
            tokio::time::sleep(jitter::around(pause)).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn connect(&self) -> Result<ControlLink, ControlError> {
        let config = self.shared.config();
        let settings = config.upstream.sentinel.as_ref();
        let (who, within) = (settings.and_then(Settings::credentials), config.upstream.connect_timeout);
        drop(config);
        ControlLink::connect(&self.dialer, &self.address, who.as_ref(), within).await
    }

    async fn ask_until_lost(&self, told: &mut String) -> ControlError {
        let mut link = match self.connect().await {
            Ok(link) => link,
            Err(problem) => return problem,
        };
        let mut looks = self.desk.looks.subscribe();
        loop {
            looks.mark_unchanged();
            match self.ask(&mut link).await {
                Ok(word) => {
                    told.clear();
                    self.desk.tell(self.index, Some(word));
                }
                Err(problem) => return problem,
            }
            // The sender lives as long as the desk.
            let _ = tokio::time::timeout(jitter::slightly_less(POLL), looks.changed()).await;
        }
    }

    async fn ask(&self, link: &mut ControlLink) -> Result<Word, ControlError> {
        let name = self.name.as_bytes();
        // In the middle of a failover the leader has the new number already, and shows the old address with it: only this
        // command tells the new one (sentinel.c, `sentinelGetCurrentMasterAddress`).
        let questions: [&[&[u8]]; 4] = [
            &[b"INFO", b"sentinel"],
            &[b"SENTINEL", b"MASTER", name],
            &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name],
            &[b"SENTINEL", b"REPLICAS", name],
        ];
        let within = self.shared.config().upstream.probe_timeout;
        let answers = link.call_many(&questions, within).await?;
        let [info, primary, address, replicas] = answers.as_slice() else { return Err(ControlError::Closed) };
        for answer in [primary, replicas] {
            if let BytesFrame::Error(text) = answer {
                return Err(ControlError::Refused(words(text)));
            }
        }
        let malformed = |problem: sentinel::SentinelError| ControlError::Malformed(problem.to_string());
        let (epoch, shown) = sentinel::primary(primary).map_err(malformed)?;
        let primary = match address {
            // Whoever may not ask for it has to do without.
            BytesFrame::Error(_) => shown,
            _ if mutant::is("shown-is-current") => shown,
            address => sentinel::address(address).map_err(malformed)?,
        };
        let replicas = sentinel::replicas(replicas).map_err(malformed)?;
        // Whoever may not ask for it has to do without.
        let tilt = matches!(info, BytesFrame::BulkString(text) if sentinel::is_in_tilt(text));
        Ok(Word { epoch, primary, replicas, tilt })
    }

    async fn listen_for_ever(self) {
        let mut pause = RETRY_FIRST;
        loop {
            let begun = clock::now();
            let problem = self.listen().await;
            // Whoever asks tells of it where it is to be seen.
            tracing::debug!(sentinel = %self.address, %problem, "a sentinel tells no news");
            if clock::now().since(begun) >= RETRY_LONGEST {
                pause = RETRY_FIRST;
            }
            tokio::time::sleep(jitter::around(pause)).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// Has all sentinels asked at once when this one tells that it has switched, until the connection is lost.
    async fn listen(&self) -> ControlError {
        let (mut socket, mut inbound): (_, BytesMut) = match self.connect().await {
            Ok(link) => link.into_parts(),
            Err(problem) => return problem,
        };
        let mut question = Vec::new();
        encode(&[b"SUBSCRIBE", b"+switch-master"], &mut question);
        if socket.write_all(&question).await.is_err() || socket.flush().await.is_err() {
            return ControlError::Closed;
        }
        let mut decoder = AnswerDecoder::default();
        loop {
            match decoder.decode(&mut inbound) {
                Ok(Some(BytesFrame::Error(text))) => return ControlError::Refused(words(&text)),
                Ok(Some(message)) => {
                    if sentinel::is_switch_of(&message, &self.name) {
                        tracing::info!(sentinel = %self.address, "a sentinel has switched to another primary");
                        self.desk.looks.send_modify(|looks| *looks = looks.wrapping_add(1));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(problem) => return ControlError::Malformed(problem.to_string()),
            }
            match socket.read_buf(&mut inbound).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return ControlError::Closed,
            }
        }
    }
}

/// Decides anew whenever a sentinel or a node has said something else.
async fn weigh(
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    believed: Arc<Mutex<Sentinels>>,
    found: watch::Sender<Membership>,
) {
    let (mut views, mut news) = (shared.shard().views.subscribe(), desk.news.subscribe());
    let (mut last, mut log) = (None, Log::default());
    loop {
        let primaries: Vec<Arc<Address>> = {
            let view = shared.shard().view.load();
            let says_so =
                view.members().filter(|node| node.role == Some(Role::Primary) && node.silent_since.is_none());
            says_so.filter_map(|node| node.address.clone()).collect()
        };
        let present = Some((*news.borrow_and_update(), primaries));
        if last != present {
            let says = |address: &Address| {
                present.iter().flat_map(|(_, said)| said).any(|primary| **primary == *address)
            };
            let (words, now) = (desk.words().clone(), clock::now());
            let mut believed = believed.lock().unwrap_or_else(PoisonError::into_inner);
            let (membership, ground) = believed.decide(&words, says, now);
            found.send_if_modified(|known| {
                let changed = *known != membership;
                if changed {
                    *known = membership;
                }
                changed
            });
            log.is(ground, now);
            last = present;
        }
        log.tell(clock::now());
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            _ = news.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// What is told of how good the sentinels' word is: once, each time.
#[derive(Default)]
struct Log {
    ground: Option<(Ground, Moment)>,
    told: Option<Ground>,
}

impl Log {
    fn is(&mut self, ground: Ground, now: Moment) {
        if self.ground.is_none_or(|(known, _)| known != ground) {
            self.ground = Some((ground, now));
        }
    }

    fn tell(&mut self, now: Moment) {
        let Some((ground, since)) = self.ground else { return };
        let is_told = self.told.unwrap_or(Ground::Confirmed) == ground;
        if is_told || ground != Ground::Confirmed && now.since(since) < TOLD_AFTER {
            return;
        }
        self.told = Some(ground);
        match ground {
            Ground::Confirmed => tracing::info!("the sentinels name a primary, and it says so itself"),
            Ground::Unconfirmed => {
                tracing::warn!("no node that the sentinels name says that it is the primary: all stay");
            }
            Ground::Outdated => {
                tracing::warn!("what the sentinels say is older than what they had said: all nodes stay");
            }
            Ground::Silence => {
                tracing::warn!("no sentinel answers, or all are in TILT: all nodes stay as they were");
            }
        }
    }
}
