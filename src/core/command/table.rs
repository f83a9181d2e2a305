//! The command table: name → rule.

use rustc_hash::FxHashMap;

use super::entry::{Arity, CommandEntry};
use super::keys::{KeySpec, Keys};
use super::options::Options;
use super::rule::{self, Access, BLOCK_OPTION, Handling, Stateful};
use super::{CommandId, Intent, modules};
use crate::core::argv::Args;

/// `COMMAND` of Redis 7.0.15, one line per command; `tests/servers/commands_live.rs` writes it and keeps it true.
const BUILTIN: &str = include_str!("table.txt");

/// Every server knows this word, but before 7.0 it is no command: `server.c`, `processCommand`, looks for it itself.
const UNLISTED: &str = "quit";

/// Names are compared in lower case in a buffer of this size; a longer name is no command.
const NAME_MAX: usize = 64;

#[derive(Clone, Debug)]
struct CommandRule {
    name: Box<str>,
    access: Access,
    handling: Handling,
    arity: Arity,
    specs: Box<[KeySpec]>,
    has_block_option: bool,
    /// Its one key is its first argument, as with most commands.
    has_one_key: bool,
    has_subcommands: bool,
    of_module: bool,
}

/// All commands that a server knows.
#[derive(Clone, Debug)]
pub struct CommandTable {
    rules: Vec<CommandRule>,
    by_name: FxHashMap<Box<[u8]>, CommandId>,
}

impl CommandTable {
    /// The commands of Redis 7.0.15.
    pub fn builtin() -> Self {
        Self::assemble(builtin_entries())
    }

    /// The commands that a server reports. What it leaves out (subcommands and key specifications, before 7.0) comes
    /// from the built-in table.
    pub fn from_entries(mut entries: Vec<CommandEntry>) -> Self {
        let container = |name: &str| name.split_once('|').map(|(container, _)| container.to_owned());
        let with_subcommands: Vec<String> = entries.iter().filter_map(|e| container(&e.name)).collect();
        let names: Vec<String> = entries.iter().map(|e| e.name.clone()).collect();
        for known in builtin_entries() {
            if let Some(entry) = entries.iter_mut().find(|e| e.name == known.name) {
                if !entry.described && (entry.flags.movable_keys || !entry.specs.is_empty()) {
                    entry.specs = known.specs;
                }
            } else if known.name == UNLISTED
                || container(&known.name)
                    .is_some_and(|name| names.contains(&name) && !with_subcommands.contains(&name))
            {
                entries.push(known);
            }
        }
        Self::assemble(entries)
    }

    fn assemble(entries: Vec<CommandEntry>) -> Self {
        let own = CommandEntry { name: "redweir".to_owned(), described: true, ..CommandEntry::default() };
        let other = CommandRule {
            name: "other".into(),
            access: Access::Unknown,
            handling: Handling::Shared,
            arity: Arity::UNKNOWN,
            specs: Box::default(),
            has_block_option: false,
            has_one_key: false,
            has_subcommands: false,
            of_module: false,
        };
        let mut table = Self { rules: vec![other], by_name: FxHashMap::default() };
        // Before 7.0 the words of browsers are commands (`server.c`, `securityWarningCommand`): never to be passed on.
        let refused = ["redweir", "post", "host:"];
        for entry in entries.into_iter().filter(|e| !refused.contains(&e.name.as_str())).chain([own]) {
            table.add(entry);
        }
        for index in 0..table.rules.len() {
            let name = table.rules[index].name.clone();
            if let Some((container, _)) = name.split_once('|')
                && let Some(&id) = table.by_name.get(container.as_bytes())
            {
                table.rules[usize::from(id.0)].has_subcommands = true;
            }
        }
        table
    }

    fn add(&mut self, mut entry: CommandEntry) {
        if self.rules.len() >= usize::from(u16::MAX) || entry.name.len() > NAME_MAX {
            return;
        }
        modules::correct(&mut entry);
        let access = rule::access(&entry);
        if let Some(options) = Options::of(&entry.name) {
            // The server searches for words, or calls them unknown.
            let first = options.follow_a_key().then(|| KeySpec::legacy(false, 1, 1, 1));
            entry.specs = first.into_iter().chain([KeySpec::options(entry.flags.write, options)]).collect();
        }
        if matches!(access, Access::Write { .. }) && !entry.specs.iter().any(|spec| spec.writes) {
            // `XREADGROUP` calls its keys read, but it writes who has read what.
            entry.specs.iter_mut().for_each(|spec| spec.writes = true);
        }
        let id = CommandId(self.rules.len() as u16);
        self.by_name.insert(entry.name.as_bytes().into(), id);
        self.rules.push(CommandRule {
            access,
            handling: rule::handling(&entry),
            arity: entry.arity,
            has_block_option: BLOCK_OPTION.contains(&entry.name.as_str()),
            has_one_key: matches!(entry.specs.as_slice(), [spec] if spec.is_first_argument()),
            has_subcommands: false,
            of_module: entry.flags.module,
            name: entry.name.into_boxed_str(),
            specs: entry.specs.into_boxed_slice(),
        });
    }

    /// What this command is. Total: an unknown one is [`Access::Unknown`].
    pub fn classify<A: Args + ?Sized>(&self, args: &A) -> Intent {
        let id = self.find(args);
        let rule = self.rule(id);
        let mut handling = rule.handling;
        if rule.has_block_option && blocks(args) {
            handling = Handling::Pin(Stateful::Blocking);
        }
        Intent { id, access: rule.access, handling }
    }

    /// Whether the name alone says all there is to say, so that whoever sees it again need not ask.
    pub fn is_plain(&self, id: CommandId) -> bool {
        let rule = self.rule(id);
        let is_whole = !rule.has_subcommands && !rule.name.contains('|');
        is_whole && !rule.has_block_option && id != CommandId::OTHER
    }

    /// How many arguments it takes.
    pub fn arity(&self, id: CommandId) -> Arity {
        self.rule(id).arity
    }

    /// Whether its one key is its first argument, if it has arguments.
    pub fn has_one_key(&self, id: CommandId) -> bool {
        self.rule(id).has_one_key
    }

    /// Whether it has but one key, and writes that.
    pub fn writes_one_key(&self, id: CommandId) -> bool {
        let rule = self.rule(id);
        rule.has_one_key && rule.specs.iter().all(|spec| spec.writes)
    }

    /// Whether the server's answer depends on the arguments and the data alone: nothing is drawn, nor does a module say so.
    pub fn is_answered_alike(&self, id: CommandId) -> bool {
        let rule = self.rule(id);
        let draws = ["hrandfield", "randomkey", "srandmember", "vrandmember", "zrandmember"];
        !rule.of_module && !rule.name.contains('.') && !draws.contains(&&*rule.name)
    }

    fn find<A: Args + ?Sized>(&self, args: &A) -> CommandId {
        let mut buffer = [0; NAME_MAX];
        let Some(length) = lower(&mut buffer, 0, args.arg(0)) else { return CommandId::OTHER };
        let Some(&id) = self.by_name.get(&buffer[..length]) else { return CommandId::OTHER };
        if !self.rule(id).has_subcommands || args.count() < 2 {
            return id;
        }
        let Some(bar) = buffer.get_mut(length) else { return id };
        *bar = b'|';
        let Some(length) = lower(&mut buffer, length + 1, args.arg(1)) else { return id };
        self.by_name.get(&buffer[..length]).copied().unwrap_or(id)
    }

    fn rule(&self, id: CommandId) -> &CommandRule {
        self.rules.get(usize::from(id.0)).unwrap_or(&self.rules[0])
    }

    /// Its name: `get`, `config|set`, or `other`.
    pub fn name(&self, id: CommandId) -> &str {
        &self.rule(id).name
    }

    /// How many commands there are, `other` among them.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Never: `other` is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Tells every key that the command names.
    pub fn for_each_key<A: Args + ?Sized>(
        &self,
        id: CommandId,
        args: &A,
        tell: &mut dyn FnMut(&[u8]),
    ) -> Keys {
        self.each(id, args, false, tell)
    }

    /// Tells every key that the command may change.
    pub fn for_each_written_key<A: Args + ?Sized>(
        &self,
        id: CommandId,
        args: &A,
        tell: &mut dyn FnMut(&[u8]),
    ) -> Keys {
        self.each(id, args, true, tell)
    }

    fn each<A: Args + ?Sized>(
        &self,
        id: CommandId,
        args: &A,
        writes: bool,
        tell: &mut dyn FnMut(&[u8]),
    ) -> Keys {
        let rule = self.rule(id);
        if rule.has_one_key && args.count() > 1 {
            if writes && !rule.specs[0].writes {
                return Keys::Known { count: 0 };
            }
            tell(args.arg(1));
            return Keys::Known { count: 1 };
        }
        let mut count = 0;
        for spec in rule.specs.iter().filter(|spec| !writes || spec.writes) {
            match spec.each(args, writes, tell) {
                Some(told) => count += told,
                None => return Keys::Unknowable,
            }
        }
        Keys::Known { count }
    }
}

fn builtin_entries() -> Vec<CommandEntry> {
    BUILTIN.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.parse().ok()).collect()
}

/// Appends a name in lower case; returns where it ends. `None`: too long for a command.
fn lower(buffer: &mut [u8; NAME_MAX], at: usize, name: &[u8]) -> Option<usize> {
    let place = buffer.get_mut(at..at + name.len())?;
    for (to, from) in place.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    Some(at + name.len())
}

/// Whether `XREAD`/`XREADGROUP` has the option `BLOCK` (`t_stream.c`, `xreadCommand`).
fn blocks<A: Args + ?Sized>(args: &A) -> bool {
    let mut at = 1;
    while at < args.count() {
        let word = args.arg(at);
        if word.eq_ignore_ascii_case(b"streams") {
            return false;
        }
        if word.eq_ignore_ascii_case(b"block") {
            return true;
        }
        // COUNT n · GROUP group consumer
        at += if word.eq_ignore_ascii_case(b"count") {
            2
        } else if word.eq_ignore_ascii_case(b"group") {
            3
        } else {
            1
        };
    }
    false
}
