//! One node, and what it answers. Each look asks for `PING`, `INFO`, `ROLE` and the replicas' connections; now and then, and over
//! each new connection, also for the settings, for what it remembers of slow and denied commands, and, over a second
//! connection, whether that leads to the same process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;

use crate::control::doctor::ward::Access;
use crate::core::address::{Address, Login};
use crate::core::diagnose::seen::{Denial, Problem, Seen, Settings, Slow, Unchecked};
use crate::core::moment::Moment;
use crate::core::nodes::rights::AclRule;
use crate::mutant;
use crate::net::runtime::clock;
use crate::net::socket::call::{ControlError, ControlLink, words};
use crate::net::socket::dial::Dialer;
use crate::wire::info::Info;
use crate::wire::inspect::{lists, report, settings};
use crate::wire::reply::ErrorCode;
use crate::wire::role::RoleReport;

/// Between two looks at what seldom changes.
const THOROUGH_EVERY: Duration = Duration::from_secs(15);
/// What was refused is asked for again after so long: each refusal is a line of the node's own log of denials.
const ASK_AGAIN: Duration = Duration::from_mins(10);
/// An answer to `PING` that took longer is doubted: it may be we who were slow.
const DOUBTED: Duration = Duration::from_millis(100);
/// Connections beside a new one that are made to see whether they lead to the same process.
const COMPARED_AT_FIRST: u32 = 3;
/// Entries of a log that are asked for.
const ENTRIES: &[u8] = b"16";

/// A question, and what of an ACL allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Info,
    Role,
    Replicas,
    Settings,
    Slow,
    Denials,
    HugePages,
}

impl Question {
    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Info => ("INFO", "+info"),
            Self::Role => ("ROLE", "+role"),
            Self::Replicas => ("CLIENT LIST", "+client|list"),
            Self::Settings => ("CONFIG GET", "+config|get"),
            Self::Slow => ("SLOWLOG GET", "+slowlog|get"),
            Self::Denials => ("ACL LOG", "+acl|log"),
            Self::HugePages => ("LATENCY DOCTOR", "+latency|doctor"),
        }
    }
}

/// What is known of a node from earlier looks.
pub(super) struct Patient {
    address: Address,
    link: Option<ControlLink>,
    login: Option<Login>,
    /// When it was last looked at thoroughly over this connection.
    thorough_at: Option<Moment>,
    /// What was learnt then.
    known: Known,
    /// What it has refused, when, and its words.
    refused: BTreeMap<Question, (Moment, String)>,
    /// What it may be asked.
    leave: Leave,
    /// What it was not asked for want of leave.
    unasked: BTreeSet<Question>,
}

/// What may be asked of a node beside what Redweir cannot do without. Each question that is refused is a line of the node's log of
/// denials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Leave {
    /// Everything.
    #[default]
    All,
    /// What this rule allows our user.
    By(AclRule),
    /// Nothing: what our user may do is not shown.
    Nothing,
}

impl Leave {
    fn covers(&self, question: Question) -> bool {
        let (_, rule) = question.text();
        match self {
            _ if matches!(question, Question::Info | Question::Role | Question::Settings) => true,
            _ if mutant::is("leave-ignored") => true,
            Self::All => true,
            Self::By(ours) => ours.plainly_allows(rule.trim_start_matches('+')),
            Self::Nothing => false,
        }
    }
}

/// What seldom changes, or is remembered by the node.
#[derive(Debug, Default)]
struct Known {
    settings: Settings,
    slow: Vec<Slow>,
    denials: Vec<Denial>,
    huge_pages: bool,
    wants_password: Option<bool>,
    other_process: Option<String>,
}

impl Patient {
    pub(super) fn new(address: Address) -> Self {
        let (known, refused) = (Known::default(), BTreeMap::new());
        let (leave, unasked) = (Leave::All, BTreeSet::new());
        Self { address, link: None, login: None, thorough_at: None, known, refused, leave, unasked }
    }

    /// Where it is.
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// Looks at it. Not cancel safe: the connection is lost.
    pub(super) async fn look(
        &mut self,
        dialer: &Dialer,
        access: &Access,
        leave: Leave,
        secret: &ahash::RandomState,
    ) -> Seen {
        let mut seen = Seen { node: self.address.to_string(), ..Seen::default() };
        self.leave = leave;
        if self.login != access.login {
            (self.link, self.login) = (None, access.login.clone());
            self.refused.clear();
        }
        let had_link = self.link.is_some();
        let mut asked = self.ask(&mut seen, dialer, access, Some(secret)).await;
        if had_link && matches!(asked, Err(Problem::Connect(_))) {
            // It was closed half-way: a new one tells why.
            asked = self.ask(&mut seen, dialer, access, Some(secret)).await;
        }
        if let Err(problem) = asked {
            (self.link, seen.problem) = (None, Some(problem));
        }
        if seen.latency.is_some_and(|latency| latency >= DOUBTED) {
            seen.connects_in = dialer.reach(&self.address, access.connect).await.ok();
        }
        self.complete(&mut seen);
        seen
    }

    /// Asks whoever is there who it is, over a connection that is closed again.
    pub(super) async fn look_briefly(&mut self, dialer: &Dialer, access: &Access) -> Seen {
        let mut seen = Seen { node: self.address.to_string(), ..Seen::default() };
        let asked = self.ask(&mut seen, dialer, access, None).await;
        (self.link, seen.problem) = (None, asked.err());
        seen
    }

    async fn ask(
        &mut self,
        seen: &mut Seen,
        dialer: &Dialer,
        access: &Access,
        secret: Option<&ahash::RandomState>,
    ) -> Result<(), Problem> {
        let mut link = match self.link.take() {
            Some(link) => self.ping_or_renew(link, seen, dialer, access).await?,
            None => self.renew(seen, dialer, access).await?,
        };
        let now = clock::now();
        let is_due = self.thorough_at.is_none_or(|at| now.since(at) >= THOROUGH_EVERY);
        if let Some(secret) = secret.filter(|_| is_due) {
            // Before the first connection says whose it is: had the process ended meanwhile, that would be lost.
            let tries = if self.thorough_at.is_none() { COMPARED_AT_FIRST } else { 1 };
            self.compare_process(dialer, access, &mut link, tries).await;
            self.report(&mut link, seen, access).await?;
            self.thorough(&mut link, access, seen, secret).await?;
            self.thorough_at = Some(now);
        } else {
            self.report(&mut link, seen, access).await?;
        }
        self.link = Some(link);
        Ok(())
    }

    async fn ping_or_renew(
        &mut self,
        mut link: ControlLink,
        seen: &mut Seen,
        dialer: &Dialer,
        access: &Access,
    ) -> Result<ControlLink, Problem> {
        match ping(&mut link, access).await {
            Ok(pong) => {
                (seen.latency, seen.misconf) = (Some(pong.latency), pong.misconf);
                Ok(link)
            }
            // Whether the node hangs or the path drops what is said is told by a new connection.
            Err(Problem::Silent | Problem::Connect(_)) => self.renew(seen, dialer, access).await,
            Err(problem) => Err(problem),
        }
    }

    async fn renew(
        &mut self,
        seen: &mut Seen,
        dialer: &Dialer,
        access: &Access,
    ) -> Result<ControlLink, Problem> {
        self.thorough_at = None;
        let mut link = connect(dialer, &self.address, access).await?;
        log_in(&mut link, access).await?;
        let pong = ping(&mut link, access).await?;
        (seen.latency, seen.misconf) = (Some(pong.latency), pong.misconf);
        Ok(link)
    }

    /// `INFO`, `ROLE`, and the connections of its replicas.
    async fn report(
        &mut self,
        link: &mut ControlLink,
        seen: &mut Seen,
        access: &Access,
    ) -> Result<(), Problem> {
        let questions: [(Question, &[&[u8]]); 3] = [
            (Question::Info, &[b"INFO"]),
            (Question::Role, &[b"ROLE"]),
            (Question::Replicas, &[b"CLIENT", b"LIST", b"TYPE", b"replica"]),
        ];
        // Little can be told without them: they are asked for again and again, as the prober does.
        let essential = [Question::Info, Question::Role];
        self.refused.retain(|question, _| !essential.contains(question));
        let (asked, at) = (clock::unix(), clock::now());
        for (question, answer) in self.ask_all(link, &questions, access).await? {
            match (question, &answer) {
                (Question::Info, BytesFrame::BulkString(text)) => {
                    let took = clock::now().since(at);
                    let ours = (asked + took / 2).as_micros() as i64;
                    seen.clock_took = Some(took);
                    seen.clock_ahead_usec =
                        report::clock(text).and_then(|usec| i64::try_from(usec).ok()).map(|usec| usec - ours);
                    seen.report = Some(report::parse(text));
                }
                (Question::Role, answer) => {
                    if let Ok(RoleReport::Replica { state, .. }) = RoleReport::parse(answer) {
                        seen.link_state = Some(state.name());
                    }
                }
                (_, answer) => seen.replicas = lists::replicas(answer),
            }
        }
        let refusal = essential.iter().find_map(|question| self.refused.get(question));
        // Where a command is not known at all, no rule would allow it.
        seen.refuses = refusal.map(|(_, words)| words.clone()).filter(|words| words.starts_with("NOPERM"));
        Ok(())
    }

    async fn thorough(
        &mut self,
        link: &mut ControlLink,
        access: &Access,
        seen: &Seen,
        secret: &ahash::RandomState,
    ) -> Result<(), Problem> {
        let mut questions: Vec<(Question, Vec<&[u8]>)> = settings::NAMES
            .iter()
            .map(|name| (Question::Settings, vec![&b"CONFIG"[..], b"GET", name.as_bytes()]))
            .collect();
        questions.push((Question::Slow, vec![b"SLOWLOG", b"GET", ENTRIES]));
        questions.push((Question::Denials, vec![b"ACL", b"LOG", ENTRIES]));
        questions.push((Question::HugePages, vec![b"LATENCY", b"DOCTOR"]));
        let questions: Vec<(Question, &[&[u8]])> =
            questions.iter().map(|(question, args)| (*question, args.as_slice())).collect();
        let unix = clock::unix().as_micros() as i64;
        // By its own clock.
        let its_seconds = unix.saturating_add(seen.clock_ahead_usec.unwrap_or(0)) / 1_000_000;
        let mut known = Known {
            wants_password: self.known.wants_password,
            other_process: self.known.other_process.take(),
            ..Known::default()
        };
        for (question, answer) in self.ask_all(link, &questions, access).await? {
            match question {
                Question::Settings => {
                    settings::take(&mut known.settings, &answer, |text| secret.hash_one(text));
                }
                Question::Slow => known.slow.extend(lists::slow(&answer).into_iter().map(|entry| {
                    let age = its_seconds.saturating_sub_unsigned(entry.unix_seconds).max(0);
                    let ago = Duration::from_secs(age.unsigned_abs());
                    Slow { ago, took: entry.took, command: entry.command }
                })),
                Question::Denials => {
                    known.denials.extend(lists::denials(&answer).into_iter().map(|entry| Denial {
                        ago: entry.age,
                        count: entry.count,
                        reason: entry.reason,
                        user: entry.user,
                        object: entry.object,
                    }));
                }
                _ => {
                    let says = |text: &[u8]| memchr::memmem::find(text, b"huge pages").is_some();
                    known.huge_pages = matches!(&answer, BytesFrame::BulkString(text) if says(text));
                }
            }
        }
        self.known = known;
        Ok(())
    }

    /// Asks what it has not refused of late, and keeps what it refuses now.
    async fn ask_all(
        &mut self,
        link: &mut ControlLink,
        questions: &[(Question, &[&[u8]])],
        access: &Access,
    ) -> Result<Vec<(Question, BytesFrame)>, Problem> {
        let now = clock::now();
        self.refused.retain(|_, (at, _)| now.since(*at) < ASK_AGAIN);
        let mut asked = Vec::new();
        for (question, args) in questions {
            if !self.leave.covers(*question) {
                self.unasked.insert(*question);
                continue;
            }
            self.unasked.remove(question);
            if !self.refused.contains_key(question) {
                asked.push((*question, *args));
            }
        }
        let (asked, commands): (Vec<Question>, Vec<&[&[u8]]>) = asked.into_iter().unzip();
        let answers = link.call_many(&commands, access.answer).await.map_err(|error| problem(&error))?;
        let mut heard = Vec::new();
        for (question, answer) in asked.into_iter().zip(answers) {
            match answer {
                BytesFrame::Error(text) => {
                    if let Some(Problem::Busy(words)) = refusal(&text) {
                        return Err(Problem::Busy(words));
                    }
                    self.refused.entry(question).or_insert_with(|| (now, words(&text)));
                }
                answer => heard.push((question, answer)),
            }
        }
        Ok(heard)
    }

    /// Whether another connection leads to another process, and whether the node wants a password.
    async fn compare_process(
        &mut self,
        dialer: &Dialer,
        access: &Access,
        link: &mut ControlLink,
        tries: u32,
    ) {
        self.known.other_process = None;
        for _ in 0..tries {
            let Ok(mut other) = connect(dialer, &self.address, access).await else { return };
            let wants = match other.call(&[b"PING"], access.answer).await {
                Err(ControlError::Refused(text)) => ErrorCode::of_text(text.as_bytes()) == ErrorCode::NoAuth,
                Ok(_) => false,
                Err(_) => return,
            };
            self.known.wants_password = Some(wants);
            if log_in(&mut other, access).await.is_err() {
                return;
            }
            self.known.other_process = process(&mut other, access).await;
            if tries > 1 && self.known.other_process != process(link, access).await {
                return;
            }
        }
    }

    /// Adds what is known from earlier looks.
    fn complete(&self, seen: &mut Seen) {
        let known = &self.known;
        seen.settings.clone_from(&known.settings);
        seen.slow.clone_from(&known.slow);
        seen.denials.clone_from(&known.denials);
        // That was so long ago when it was asked.
        let since = self.thorough_at.map_or(Duration::ZERO, |at| clock::now().since(at));
        seen.slow.iter_mut().for_each(|slow| slow.ago = slow.ago.saturating_add(since));
        seen.denials.iter_mut().for_each(|denial| denial.ago = denial.ago.saturating_add(since));
        seen.tells_of_huge_pages = known.huge_pages;
        seen.wants_password = known.wants_password;
        seen.other_process.clone_from(&known.other_process);
        let unchecked = |(question, (_, why)): (&Question, &(Moment, String))| {
            let (question, rule) = question.text();
            Unchecked { question, rule, why: why.clone() }
        };
        seen.unchecked = self.refused.iter().map(unchecked).collect();
        let unasked = self.unasked.iter().filter(|question| !self.refused.contains_key(question));
        seen.unchecked.extend(unasked.map(|question| {
            let (question, rule) = question.text();
            let why = "our user is not seen to be allowed it, and a refusal would stand in ACL LOG";
            Unchecked { question, rule, why: why.to_owned() }
        }));
    }
}

/// A connection, on which nothing was said yet.
async fn connect(dialer: &Dialer, address: &Address, access: &Access) -> Result<ControlLink, Problem> {
    ControlLink::connect(dialer, address, None, access.connect).await.map_err(|error| match error {
        ControlError::Timeout => {
            Problem::Connect(format!("no answer within {} ms", access.connect.as_millis()))
        }
        ControlError::Connect(why) => Problem::Connect(why.to_string()),
        other => Problem::Connect(other.to_string()),
    })
}

async fn log_in(link: &mut ControlLink, access: &Access) -> Result<(), Problem> {
    let Some(login) = &access.login else { return Ok(()) };
    match link.authenticate(login, access.answer).await {
        Ok(()) => Ok(()),
        Err(ControlError::Auth(text)) => match refusal(&text) {
            Some(Problem::Other(words)) => Err(Problem::Auth(words)),
            Some(problem) => Err(problem),
            None => Ok(()),
        },
        Err(error) => Err(problem(&error)),
    }
}

/// How long an answer takes; the better of two, if the first one took long: a node that is blocked now and then says so in its
/// list of slow commands.
async fn ping(link: &mut ControlLink, access: &Access) -> Result<Pong, Problem> {
    let (mut best, mut misconf) = (Duration::MAX, None);
    for _ in 0..2 {
        let asked = clock::now();
        match link.call(&[b"PING"], access.answer).await {
            Ok(_) => {}
            // It answers everything that does not write.
            Err(ControlError::Refused(text)) if text.starts_with("MISCONF") => misconf = Some(words(&text)),
            Err(ControlError::Refused(text)) => {
                if let Some(problem) = refusal(&text).filter(|_| !text.starts_with("NOPERM")) {
                    return Err(problem);
                }
            }
            Err(error) => return Err(problem(&error)),
        }
        best = best.min(clock::now().since(asked));
        if best < DOUBTED {
            break;
        }
    }
    Ok(Pong { latency: best, misconf })
}

/// The answer to `PING`.
struct Pong {
    /// How long it took.
    latency: Duration,
    /// The words of one that takes no writes because it cannot save its data.
    misconf: Option<String>,
}

/// The `run_id` of whoever is at the other end.
async fn process(link: &mut ControlLink, access: &Access) -> Option<String> {
    match link.call(&[b"INFO", b"server"], access.answer).await {
        Ok(BytesFrame::BulkString(text)) => Info::parse(&text).run_id,
        _ => None,
    }
}

/// What it means that a call failed.
fn problem(error: &ControlError) -> Problem {
    match error {
        ControlError::Timeout => Problem::Silent,
        ControlError::Closed => Problem::Connect("the connection was closed".to_owned()),
        ControlError::Connect(why) => Problem::Connect(why.to_string()),
        ControlError::Auth(text) => Problem::Auth(text.clone()),
        ControlError::Refused(text) => refusal(text).unwrap_or_else(|| Problem::Other(text.clone())),
        ControlError::Malformed(why) => Problem::Other(format!("no reply as Redis gives it: {why}")),
    }
}

/// What an error answer means for all that would be asked; `None`: only that this was not answered.
fn refusal(text: &str) -> Option<Problem> {
    let words = words(text);
    Some(match ErrorCode::of_text(text.as_bytes()) {
        ErrorCode::Busy => Problem::Busy(words),
        ErrorCode::NoAuth | ErrorCode::WrongPass | ErrorCode::NoPerm => Problem::Auth(words),
        ErrorCode::Loading | ErrorCode::MasterDown => return None,
        _ if text.starts_with("DENIED") => Problem::Denied(words),
        _ => Problem::Other(words),
    })
}
