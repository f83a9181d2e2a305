//! From the tables of a file to a [`Config`]: defaults, ranges, and what must hold between keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::document::Document;
use super::error::{ConfigError, Problem};
use super::section::{At, Replicas, Section, did_you_mean};
use super::{
    Admin, Cluster, Config, KeylessScripts, Listen, Log, LogFormat, LogLevel, PresentAs, ProxyConfig,
    ReplicaAcl, Security, Sentinel, SessionScope, Stream, Upstream, file, names, tls,
};
use crate::core::address::Address;
use crate::core::policy::{Consistency, DEFAULT, Policies, Policy, PolicyId, Route, WhenBehind};
use crate::core::stream::source::StreamSource;

/// Reads a text.
pub(super) fn read(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let document = Document::new(text, path);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        document.report(span, String::new(), format!("this is not TOML: {}", error.message()), None);
    }
    // What a parser recovered from a broken file is not worth more words.
    document.finish(())?;
    let root = Section::open(&document, "", "", root.get_ref(), root.span());
    let mut places = Places::default();
    let mut policies = read_policies(&document, &root);
    let listen = read_listen(&document, &root, &mut policies, &mut places);
    policies.listeners = listen.iter().map(|listen| listen.policy).collect();
    let config = Config {
        listen,
        admin: read_admin(&root, &mut places),
        upstream: read_upstream(&document, &root.section("upstream"), &mut places),
        policies,
        stream: read_stream(&root.section("stream")),
        proxy: read_proxy(&root.section("proxy")),
        security: read_security(&root.section("security")),
        log: read_log(&root.section("log")),
    };
    places.check(&document);
    document.finish(config)
}

/// What is wrong with a flag.
pub(super) fn wrong_flag(key: &str, message: String) -> Problem {
    Problem { path: None, position: None, key: key.to_owned(), message, help: None }
}

/// What must hold of a configuration that came from flags.
pub(super) fn check_flags(config: &Config) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    let mut fault = |key: &str, message: String| problems.push(wrong_flag(key, message));
    if config.listen.is_empty() {
        fault("--listen", "expected at least one".to_owned());
    }
    let admin = config.admin.as_ref().map(|admin| &admin.address);
    if matches!(admin, Some(Address::Unix(_))) {
        fault("--admin", "expected host:port; the admin server has no Unix socket".to_owned());
    }
    let named = |name: &'static str| move |address| (name, address);
    let all: Vec<(&str, &Address)> = (config.listen.iter().map(|l| &l.address).map(named("--listen")))
        .chain(admin.map(named("--admin")))
        .chain(config.upstream.primary.as_ref().map(named("--primary")))
        .chain(config.upstream.replicas.iter().map(named("--replica")))
        .collect();
    for (index, (key, address)) in all.iter().enumerate() {
        if let Some((first, _)) = all[..index].iter().find(|(_, other)| is_same(other, address)) {
            fault(key, format!("{address} is already given with {first}"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
}

/// All addresses of a file, to find one that is used twice.
#[derive(Default)]
struct Places(Vec<At<Address>>);

impl Places {
    fn note(&mut self, place: &At<Address>) {
        // More than this are refused anyway.
        if self.0.len() < LISTEN_MAX + REPLICAS_MAX + SENTINELS_MAX + SEEDS_MAX + 2 {
            self.0.push(place.clone());
        }
    }

    fn check(&mut self, document: &Document<'_>) {
        self.0.sort_by_key(|place| place.span.start);
        for (index, place) in self.0.iter().enumerate() {
            if let Some(first) = self.0[..index].iter().find(|other| is_same(&other.value, &place.value)) {
                let (address, line) = (&place.value, document.line(first.span.start));
                let message = format!("{address} is already used by `{}` on line {line}", first.key);
                document.report(place.span.clone(), place.key.clone(), message, None);
            }
        }
    }
}

fn is_same(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp { host: a, port: p }, Address::Tcp { host: b, port: q }) => {
            p == q && a.eq_ignore_ascii_case(b)
        }
        _ => one == other,
    }
}

fn read_listen(
    document: &Document<'_>,
    root: &Section<'_>,
    policies: &mut Policies,
    places: &mut Places,
) -> Vec<Listen> {
    let (mut listen, sections) = (Vec::new(), root.sections("listen"));
    for section in &sections {
        let policy = read_policy_name(section, policies).unwrap_or_default();
        let (address, unix_perm) = (section.address("address"), section.permissions("unixsocketperm"));
        let reuse_port = section.yes_no("reuse-port", false);
        let at = address.as_ref().map(|at| &at.value);
        if reuse_port && matches!(at, Some(Address::Unix(_))) {
            let message = "a Unix socket has one process that listens; its file can be replaced instead";
            section.fault("reuse-port", message.to_owned(), None);
        }
        let tls = tls::read::listen(&section.section("tls"), at, beside(document));
        match address {
            Some(address) => {
                places.note(&address);
                listen.push(Listen { address: address.value, policy, unix_perm, reuse_port, tls });
            }
            None if !section.has("address") => section.fault("address", "it is missing".to_owned(), None),
            None => {}
        }
    }
    if sections.is_empty() {
        let help = "add [[listen]] with address = \"127.0.0.1:6380\"";
        document.report_missing("listen", "there is no [[listen]], so no client could connect", help);
    }
    if listen.len() > LISTEN_MAX {
        root.fault(
            "listen",
            format!("there are {} [[listen]], at most {LISTEN_MAX} can be", listen.len()),
            None,
        );
    }
    listen
}

fn read_admin(root: &Section<'_>, places: &mut Places) -> Option<Admin> {
    let section = root.section("admin");
    let address = section.address("address");
    match &address {
        Some(At { value: Address::Unix(_), .. }) => {
            section.fault(
                "address",
                "expected host:port; the admin server has no Unix socket".to_owned(),
                None,
            );
        }
        Some(address) => places.note(address),
        None if section.is_present() && !section.has("address") => {
            section.fault("address", "it is missing".to_owned(), None);
        }
        None => {}
    }
    address.map(|address| Admin { address: address.value })
}

fn read_upstream(document: &Document<'_>, section: &Section<'_>, places: &mut Places) -> Upstream {
    let (primary, Replicas { from_nodes, nodes: replicas, names }) =
        (section.address("primary"), section.replicas("replicas"));
    primary.iter().chain(&replicas).for_each(|place| places.note(place));
    tell_twice(section, &names);
    tell_rivals(section);
    let is_told = section.has("sentinel") || section.has("cluster");
    let address_map = section.address_map("address-map");
    let found = is_told || from_nodes || !names.is_empty();
    if section.has("address-map") && !found {
        let message = "there is no [upstream.sentinel], [upstream.cluster], replicas = \"auto\" or \"dns:…\": no address comes from anywhere \
                       but this file";
        section.fault("address-map", message.to_owned(), None);
    }
    if !section.has("primary") && !is_told {
        let help = "add primary = \"127.0.0.1:6379\" to [upstream]";
        document.report_missing("upstream.primary", "there is no primary, so writes could go nowhere", help);
    }
    for (what, count, most) in [("replicas", replicas.len(), REPLICAS_MAX), ("names", names.len(), NAMES_MAX)]
    {
        if count > most {
            section.fault("replicas", format!("there are {count} {what}, at most {most} can be"), None);
        }
    }
    let (username, (password, password_in)) = read_login(document, section);
    let nodes: Vec<&Address> = primary.iter().chain(&replicas).map(|at| &at.value).collect();
    // A list of replicas that cannot be read is one mistake, not two.
    let zones = read_zones(section, &nodes, found || replicas.is_empty());
    let tls_section = section.section("tls");
    if tls_section.is_present() && !names.is_empty() && !tls_section.has("server-name") {
        let message =
            "expected a name: the nodes that dns: finds are known by their numbers alone".to_owned();
        tls_section.fault("server-name", message, None);
    }
    let tls = tls::read::upstream(&tls_section, &nodes, beside(document));
    let default = Upstream::default();
    Upstream {
        primary: primary.map(|at| at.value),
        replicas: replicas.into_iter().map(|at| at.value).collect(),
        replicas_from_nodes: from_nodes,
        names: names.into_iter().map(|at| at.value).collect(),
        username,
        password,
        password_in,
        poll_interval: section.duration("poll-interval", default.poll_interval, MS * 5..=SECOND * 10),
        info_interval: section.duration("info-interval", default.info_interval, MS * 10..=MINUTE),
        probe_timeout: section.duration("probe-timeout", default.probe_timeout, MS * 10..=MINUTE),
        connect_timeout: section.duration("connect-timeout", default.connect_timeout, MS * 10..=MINUTE),
        write_hold: section.duration("write-hold", default.write_hold, Duration::ZERO..=MINUTE * 5),
        fence_interval: section.duration("fence-interval", default.fence_interval, MS / 10..=SECOND),
        max_exclusive_connections: section.number(
            "max-exclusive-connections",
            default.max_exclusive_connections,
            1..=1_000_000,
            None,
        ),
        exclusive_wait: section.duration(
            "exclusive-wait",
            default.exclusive_wait,
            Duration::ZERO..=MINUTE * 5,
        ),
        address_map,
        zones,
        sentinel: read_sentinel(document, &section.section("sentinel"), places),
        cluster: read_cluster(&section.section("cluster"), places),
        tls,
    }
}

/// Tells of several that tell which nodes there are.
fn tell_rivals(section: &Section<'_>) {
    let (sentinel, cluster) = (section.has("sentinel"), section.has("cluster"));
    let fault = |key: &str, message: &str| section.fault(key, message.to_owned(), None);
    if sentinel && cluster {
        fault("cluster", "there is [upstream.sentinel]; only one of the two can be");
    }
    for key in ["primary", "replicas"].into_iter().filter(|key| section.has(key)) {
        if sentinel {
            fault(key, "the sentinels of [upstream.sentinel] tell who that is; only one of the two can be");
        } else if cluster {
            fault(key, "the nodes of [upstream.cluster] tell who that is; only one of the two can be");
        }
    }
}

/// The zones of nodes, which are these unless there are `others`.
fn read_zones(section: &Section<'_>, nodes: &[&Address], others: bool) -> BTreeMap<Address, String> {
    let zones = section.zones("zones");
    if let Some(unknown) = zones.keys().find(|address| !others && !nodes.contains(address)) {
        section.fault("zones", format!("{unknown} is neither the primary nor one of the replicas"), None);
    }
    zones
}

/// Tells of a name that is there twice. It may be that of a node that is configured as well: a record is that node, or not.
fn tell_twice(section: &Section<'_>, names: &[At<Address>]) {
    for (index, name) in names.iter().enumerate() {
        if names[..index].iter().any(|other| is_same(&other.value, &name.value)) {
            section.fault_at(name, format!("dns:{} is there twice", name.value), None);
        }
    }
}

fn read_sentinel(document: &Document<'_>, section: &Section<'_>, places: &mut Places) -> Option<Sentinel> {
    if !section.is_present() {
        return None;
    }
    let (name, addresses) = (section.text("master-name"), section.addresses("addresses"));
    for key in ["master-name", "addresses"].into_iter().filter(|key| !section.has(key)) {
        section.fault(key, "it is missing".to_owned(), None);
    }
    if let Some(at) =
        name.as_ref().filter(|at| at.value.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        section.fault_at(at, format!("expected a name without blanks, found {:?}", at.value), None);
    }
    if addresses.as_ref().is_some_and(Vec::is_empty) {
        section.fault("addresses", "expected at least one address".to_owned(), None);
    }
    let addresses = addresses.unwrap_or_default();
    if addresses.len() > SENTINELS_MAX {
        let message = format!("there are {} addresses, at most {SENTINELS_MAX} can be", addresses.len());
        section.fault("addresses", message, None);
    }
    for place in &addresses {
        places.note(place);
    }
    let (username, (password, password_in)) = read_login(document, section);
    let all: Vec<&Address> = addresses.iter().map(|at| &at.value).collect();
    let tls = tls::read::upstream(&section.section("tls"), &all, beside(document));
    Some(Sentinel {
        master_name: name.map(|at| at.value).unwrap_or_default(),
        addresses: addresses.into_iter().map(|at| at.value).collect(),
        username,
        password,
        password_in,
        tls,
    })
}

fn read_cluster(section: &Section<'_>, places: &mut Places) -> Option<Cluster> {
    if !section.is_present() {
        return None;
    }
    let addresses = section.addresses("addresses");
    if !section.has("addresses") {
        section.fault("addresses", "it is missing".to_owned(), None);
    }
    if addresses.as_ref().is_some_and(Vec::is_empty) {
        section.fault("addresses", "expected at least one address".to_owned(), None);
    }
    let addresses = addresses.unwrap_or_default();
    if addresses.len() > SEEDS_MAX {
        let message = format!("there are {} addresses, at most {SEEDS_MAX} can be", addresses.len());
        section.fault("addresses", message, None);
    }
    for place in &addresses {
        places.note(place);
    }
    Some(Cluster {
        addresses: addresses.into_iter().map(|at| at.value).collect(),
        split_writes: section.yes_no("split-writes", false),
        keyless_scripts: section.choice(
            "keyless-scripts",
            KeylessScripts::default(),
            &KeylessScripts::ALL,
            KeylessScripts::name,
        ),
        present_as: section.choice("present-as", PresentAs::default(), &PresentAs::ALL, PresentAs::name),
    })
}

type Secret = (Option<String>, Option<PathBuf>);

/// As whom Redweir logs in: the user, the password, and the file that this stands in.
fn read_login(document: &Document<'_>, section: &Section<'_>) -> (Option<String>, Secret) {
    let username = section.text("username").map(|at| at.value);
    let secret = read_password(document, section).unzip();
    if username.is_some() && !section.has("password") && !section.has("password-file") {
        let help = Some("add password-file = \"/path/to/file\"".to_owned());
        section.fault("username", "a user name needs a password".to_owned(), help);
    }
    (username, secret)
}

/// The password, and the file that it stands in.
fn read_password(document: &Document<'_>, section: &Section<'_>) -> Option<(String, PathBuf)> {
    let (password, file) = (section.text("password"), section.text("password-file"));
    if section.has("password") && section.has("password-file") {
        section.fault("password-file", "there is a `password` already; only one can be".to_owned(), None);
        return None;
    }
    let Some(file) = file else { return password.map(|at| (at.value, document.path.to_owned())) };
    let path = beside(document).join(&file.value);
    match file::read_secret(&path) {
        Ok(secret) => Some((secret, path)),
        Err(why) => {
            document.report(file.span, file.key, format!("{}: {why}", path.display()), None);
            None
        }
    }
}

/// Where relative paths are looked for.
fn beside<'a>(document: &Document<'a>) -> &'a Path {
    document.path.parent().unwrap_or(Path::new(""))
}

fn read_policies(document: &Document<'_>, root: &Section<'_>) -> Policies {
    let mut all = vec![Policy::default()];
    for (name, section) in root.section("policy").named_sections("policy.*") {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.value.is_empty() || name.value.len() > NAME_MAX || !name.value.chars().all(allowed) {
            let message = format!("expected a name of 1 to {NAME_MAX} letters, digits, `-` and `_`");
            document.report(name.span, name.key, message, None);
            continue;
        }
        let policy = read_policy(name.value, &section);
        if policy.name == DEFAULT { all[0] = policy } else { all.push(policy) }
    }
    let mut policies = Policies { all, ..Policies::default() };
    let routes = root.sections("route");
    policies.routes = routes.iter().map(|section| read_route(section, &mut policies)).collect();
    for (what, count, most) in
        [("policy", policies.all.len(), POLICIES_MAX), ("route", policies.routes.len(), ROUTES_MAX)]
    {
        if count > most {
            root.fault(what, format!("there are {count}, at most {most} can be"), None);
        }
    }
    policies
}

fn read_policy(name: String, section: &Section<'_>) -> Policy {
    let default = Policy::default();
    // One that is called like a level is meant to be it.
    let default = Policy { consistency: Consistency::named(&name).unwrap_or(default.consistency), ..default };
    Policy {
        name,
        consistency: section.choice("consistency", default.consistency, &Consistency::ALL, Consistency::name),
        max_lag: section.duration("max-lag", default.max_lag, LAG_MIN..=MINUTE * 60),
        max_lag_bytes: section.size("max-lag-bytes", default.max_lag_bytes, 1..=SIZE_MAX),
        serve_stale: section.yes_no("replica-serve-stale-data", default.serve_stale),
        max_stale: section.duration("max-stale", default.max_stale, MS..=MINUTE * 60 * 24),
        when_behind: section.choice("when-behind", default.when_behind, &WhenBehind::ALL, WhenBehind::name),
        wait_timeout: section.duration("wait-timeout", default.wait_timeout, MS..=MINUTE),
    }
}

fn read_route(section: &Section<'_>, policies: &mut Policies) -> Route {
    let names = |key: &str, plural: &str, one: &str, check| {
        let list = section.texts(key, plural, one, check);
        if section.has(key) && list.as_ref().is_some_and(Vec::is_empty) {
            let help = Some("take the key out to match everything".to_owned());
            section.fault(key, format!("expected {plural}, found none"), help);
        }
        list.unwrap_or_default().into_iter().map(|at| at.value).collect()
    };
    if !section.has("policy") {
        section.fault("policy", "it is missing".to_owned(), None);
    }
    Route {
        commands: names("commands", "command names", "a command name", command_name),
        keys: names("keys", "glob patterns", "a glob pattern", not_empty),
        users: names("users", "ACL users", "the name of an ACL user", not_empty),
        client_names: names("client-names", "client names", "a client name", not_empty),
        policy: read_policy_name(section, policies).unwrap_or_default(),
    }
}

fn read_policy_name(section: &Section<'_>, policies: &mut Policies) -> Option<PolicyId> {
    let name = section.text("policy")?;
    let known = policies.find_or_make(&name.value);
    if known.is_none() {
        let mut names: Vec<&str> = policies.all.iter().map(|policy| policy.name.as_str()).collect();
        names.extend(Consistency::ALL.map(Consistency::name));
        let help =
            did_you_mean(&name.value, names).unwrap_or_else(|| "define it in [policy.NAME]".to_owned());
        section.fault_at(&name, format!("expected the name of a policy, found {:?}", name.value), Some(help));
    }
    known
}

fn read_stream(section: &Section<'_>) -> Stream {
    let default = Stream::default();
    let power = Some(("a power of two", usize::is_power_of_two as fn(usize) -> bool));
    Stream {
        source: section.choice("source", default.source, &StreamSource::ALL, StreamSource::name),
        fence_slots: section.number("fence-slots", default.fence_slots, 1 << 10..=1 << 30, power),
    }
}

fn read_proxy(section: &Section<'_>) -> ProxyConfig {
    let default = ProxyConfig::default();
    let limit = default.client_output_buffer_limit;
    ProxyConfig {
        workers: section.number("workers", default.workers, 0..=1024, None),
        max_clients: section.number("max-clients", default.max_clients, 1..=1_000_000, None),
        client_output_buffer_limit: section.size("client-output-buffer-limit", limit, 64 << 10..=SIZE_MAX),
        timeout: section.duration("timeout", default.timeout, Duration::ZERO..=MINUTE * 60 * 24 * 30),
        client_handshake_timeout: section.duration(
            "client-handshake-timeout",
            default.client_handshake_timeout,
            Duration::ZERO..=MINUTE * 60,
        ),
        max_memory: section.size_or_zero("max-memory", default.max_memory, 1 << 20..=SIZE_MAX),
        primary_read_limit: section.number(
            "primary-read-limit",
            default.primary_read_limit,
            0..=1_000_000_000,
            None,
        ),
        share_reads: section.yes_no("share-reads", default.share_reads),
        reply_budget: section.size("reply-budget", default.reply_budget, 1 << 20..=SIZE_MAX),
        drain_timeout: section.duration("drain-timeout", default.drain_timeout, Duration::ZERO..=MINUTE * 60),
        lame_duck: section.duration("lame-duck", default.lame_duck, Duration::ZERO..=MINUTE * 60),
        maint_notifications: section.yes_no("maint-notifications", default.maint_notifications),
        zone: section.text("zone").map(|at| at.value),
        zone_limit: section.number("zone-limit", default.zone_limit, 0..=1_000_000, None),
        session_scope: read_session_scope(section, default.session_scope),
    }
}

fn read_session_scope(section: &Section<'_>, default: SessionScope) -> SessionScope {
    let scope = section.choice("session-scope", default, &SessionScope::ALL, SessionScope::name);
    if scope != SessionScope::Connection {
        let help = Some("use \"connection\", or level `fenced`, which spans all connections".to_owned());
        section.fault(
            "session-scope",
            format!("\"{}\" is not supported in this version", scope.name()),
            help,
        );
    }
    scope
}

fn read_security(section: &Section<'_>) -> Security {
    let names = section.texts("deny-commands", "command names", "the name of a command", denied_name);
    let default = Security::default();
    let names = names.map(|names| names.into_iter().map(|at| at.value).collect());
    Security {
        deny_commands: names.unwrap_or(default.deny_commands),
        replica_acl: section.choice("replica-acl", default.replica_acl, &ReplicaAcl::ALL, ReplicaAcl::name),
    }
}

fn read_log(section: &Section<'_>) -> Log {
    let default = Log::default();
    Log {
        level: section.choice("level", default.level, &LogLevel::ALL, LogLevel::name),
        format: section.choice("format", default.format, &LogFormat::ALL, LogFormat::name),
    }
}

/// A command's name that a server has.
fn denied_name(text: &str) -> Result<String, Option<String>> {
    command_name(text).and_then(names::denied)
}

/// A command's name in lower case, `name` or `name|subcommand`. Whether a server has it is not known here.
fn command_name(text: &str) -> Result<String, Option<String>> {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let (name, rest) = text.split_once('|').map_or((text, None), |(name, rest)| (name, Some(rest)));
    if word(name) && rest.is_none_or(word) {
        return Ok(text.to_ascii_lowercase());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let help = matches!(words[..], [a, b] if word(a) && word(b))
        .then(|| format!("a subcommand is written \"{}\"", words.join("|").to_ascii_lowercase()));
    Err(help)
}

fn not_empty(text: &str) -> Result<String, Option<String>> {
    if text.is_empty() { Err(None) } else { Ok(text.to_owned()) }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Nodes are polled four times within `max-lag`, and no timer is finer than 1 ms.
const LAG_MIN: Duration = Duration::from_millis(4);

/// The largest size: more than any machine has, and far from overflowing anything.
const SIZE_MAX: u64 = 1 << 40;

const NAME_MAX: usize = 64;
const LISTEN_MAX: usize = 64;
const REPLICAS_MAX: usize = 256;
const NAMES_MAX: usize = 16;
const SENTINELS_MAX: usize = 16;
const SEEDS_MAX: usize = 64;
const POLICIES_MAX: usize = 256;
const ROUTES_MAX: usize = 1024;
