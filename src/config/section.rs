//! One table of the file: its keys are checked against the schema, and each is read as what it should be.
//!
//! A mistake is noted in the document and the default stands in, so that one run finds all mistakes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::schema::{self, Table};
use super::units;
use crate::core::address::{Address, AddressError};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    /// The key in full.
    pub(super) key: String,
}

/// What `replicas` says.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// `"auto"`
    pub(super) from_nodes: bool,
    pub(super) nodes: Vec<At<Address>>,
    /// Without the `dns:` before them.
    pub(super) names: Vec<At<Address>>,
}

/// A table being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    name: String,
    table: Option<&'a DeTable<'a>>,
    pub(super) span: Range<usize>,
}

/// What else must hold of a number, in words and as a test.
type Constraint<'r> = (&'r str, fn(usize) -> bool);

/// Why a value is not as expected, when there is more to say than that.
type Fault = Option<String>;

impl<'a> Section<'a> {
    /// A table that is there. `schema` names it in [`schema::TABLES`].
    pub(super) fn open(
        document: &'a Document<'a>,
        schema: &str,
        name: &str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Self {
        let section = Self { document, name: name.to_owned(), table: Some(table), span };
        for (key, _) in table {
            section.check_key(schema, key);
        }
        section
    }

    /// A table that is not there: everything in it has its default.
    pub(super) fn absent(document: &'a Document<'a>, name: &str) -> Self {
        Self { document, name: name.to_owned(), table: None, span: 0..0 }
    }

    /// The table `key` within this one.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let name = self.full(key);
        match self.get(key) {
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => Section::open(self.document, &name, &name, table, value.span()),
                other => {
                    let message = format!("expected a table, [{name}], found {}", found(other));
                    self.document.report(value.span(), name.clone(), message, None);
                    Section::absent(self.document, &name)
                }
            },
            None => Section::absent(self.document, &name),
        }
    }

    /// The tables `[[key]]`.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let name = self.full(key);
        let mut sections = Vec::new();
        let wrong = |span, other| {
            let message = format!("expected tables, each under a line [[{name}]], found {}", found(other));
            self.document.report(span, name.clone(), message, None);
        };
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            sections.push(Section::open(self.document, &name, &name, table, item.span()));
                        }
                        other => wrong(item.span(), other),
                    }
                }
            }
            other => wrong(value.span(), other),
        }
        sections
    }

    /// The tables `[this.NAME]`, in the order of the file.
    pub(super) fn named_sections(&self, schema: &str) -> Vec<(At<String>, Section<'a>)> {
        let mut sections = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let name = self.full(key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let section = Section::open(self.document, schema, &name, table, value.span());
                    sections.push((
                        At { value: key.get_ref().to_string(), span: key.span(), key: name },
                        section,
                    ));
                }
                other => {
                    let message = format!("expected a table, [{name}], found {}", found(other));
                    self.document.report(value.span(), name, message, home_help(key.get_ref()));
                }
            }
        }
        sections.sort_by_key(|(name, _)| name.span.start);
        sections
    }

    /// Whether the table is in the file.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key is in the table.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Notes that something is wrong with a key, or with the table when the key is not there.
    pub(super) fn fault(&self, key: &str, message: String, help: Option<String>) {
        let keys = self.table.into_iter().flatten();
        let span = keys.map(|(k, _)| k).find(|k| k.get_ref() == key).map_or(self.span.clone(), Spanned::span);
        self.document.report(span, self.full(key), message, help);
    }

    /// Notes that something is wrong with a value.
    pub(super) fn fault_at<T>(&self, at: &At<T>, message: String, help: Option<String>) {
        self.document.report(at.span.clone(), at.key.clone(), message, help);
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str) -> Option<At<String>> {
        self.read(key, "a string that is not empty", |value| {
            value.as_str().filter(|s| !s.is_empty()).map(str::to_owned).ok_or(None)
        })
    }

    /// An address.
    pub(super) fn address(&self, key: &str) -> Option<At<Address>> {
        self.read(key, "an address", read_address)
    }

    /// A list of addresses.
    pub(super) fn addresses(&self, key: &str) -> Option<Vec<At<Address>>> {
        self.list(key, "addresses", "an address", read_address)
    }

    /// `"auto"`, or a list of addresses and names.
    pub(super) fn replicas(&self, key: &str) -> Replicas {
        let mut replicas = Replicas::default();
        if let Some(text) = self.get(key).and_then(|value| value.get_ref().as_str()) {
            let read = |_: &DeValue<'_>| {
                let nearest = did_you_mean(text, ["auto"]);
                let list = format!("one goes in brackets, too: [{text:?}]");
                if text == "auto" { Ok(true) } else { Err(Some(nearest.unwrap_or(list))) }
            };
            let auto = self.read(key, "a list of addresses, or \"auto\"", read);
            replicas.from_nodes = auto.is_some_and(|auto| auto.value);
            return replicas;
        }
        let read = |value: &DeValue<'_>| match value.as_str().and_then(|text| text.strip_prefix("dns:")) {
            Some(name) => read_name(name).map(|name| (true, name)),
            None => read_address(value).map(|address| (false, address)),
        };
        for at in self.list(key, "addresses", "an address", read).unwrap_or_default() {
            let (is_name, address) = at.value;
            let at = At { value: address, span: at.span, key: at.key };
            if is_name { replicas.names.push(at) } else { replicas.nodes.push(at) }
        }
        replicas
    }

    /// Addresses, each with the one that stands for it.
    pub(super) fn address_map(&self, key: &str) -> BTreeMap<Address, Address> {
        let expected =
            "addresses, each with the one that it is reached by: { \"10.0.0.5:6379\" = \"a.example:6379\" }";
        self.by_address(key, expected, read_one_of_pair)
    }

    /// Addresses, each with the availability zone of the node.
    pub(super) fn zones(&self, key: &str) -> BTreeMap<Address, String> {
        let expected = "addresses of nodes, each with its zone: { \"10.0.0.5:6379\" = \"eu-1a\" }";
        let zone = |text: &str| if text.is_empty() { Err(None) } else { Ok(text.to_owned()) };
        self.by_address(key, expected, zone)
    }

    /// Addresses, each with a text that `read` makes something of.
    fn by_address<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> BTreeMap<Address, T> {
        let read = |value: &DeValue<'_>| {
            let pairs = value.as_table().filter(|pairs| !pairs.is_empty()).ok_or(None)?;
            let pair = |(from, to): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let from: &std::borrow::Cow<'_, str> = from.get_ref();
                let to = to.get_ref().as_str().ok_or_else(|| Some(format!("{from:?} stands alone")))?;
                Ok((read_one_of_pair(from)?, read(to)?))
            };
            pairs.iter().map(pair).collect::<Result<_, Fault>>()
        };
        self.read(key, expected, read).map(|at| at.value).unwrap_or_default()
    }

    /// A list of texts, each of which `check` finds right or says what is wrong with.
    pub(super) fn texts(
        &self,
        key: &str,
        plural: &str,
        one: &str,
        check: fn(&str) -> Result<String, Fault>,
    ) -> Option<Vec<At<String>>> {
        self.list(key, plural, one, |value| value.as_str().ok_or(None).and_then(check))
    }

    /// A duration.
    pub(super) fn duration(&self, key: &str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let (low, high) = (units::duration_text(*range.start()), units::duration_text(*range.end()));
        let expected = format!("a duration from \"{low}\" to \"{high}\" (units: us, ms, s, m, h)");
        let read = |value: &DeValue<'_>| match value {
            DeValue::String(text) => units::duration(text).filter(|d| range.contains(d)).ok_or(None),
            DeValue::Integer(number) => {
                Err(Some(format!("it needs a unit: \"{number}ms\" or \"{number}s\"")))
            }
            _ => Err(None),
        };
        self.read(key, &expected, read).map_or(default, |at| at.value)
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (units::size_text(*range.start()), units::size_text(*range.end()));
        let expected =
            format!("a size from \"{low}\" to \"{high}\" (units as in redis.conf: k, kb, m, mb, g, gb)");
        let read = |value: &DeValue<'_>| match value {
            DeValue::String(text) => units::size(text).filter(|size| range.contains(size)).ok_or(None),
            DeValue::Integer(_) => integer(value).filter(|size| range.contains(size)).ok_or(None),
            _ => Err(None),
        };
        self.read(key, &expected, read).map_or(default, |at| at.value)
    }

    /// A size, or 0, which switches off what it limits.
    pub(super) fn size_or_zero(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (units::size_text(*range.start()), units::size_text(*range.end()));
        let expected = format!(
            "0, or a size from \"{low}\" to \"{high}\" (units as in redis.conf: k, kb, m, mb, g, gb)"
        );
        let fits = |size: &u64| *size == 0 || range.contains(size);
        let read = |value: &DeValue<'_>| match value {
            DeValue::String(text) => units::size(text).filter(fits).ok_or(None),
            DeValue::Integer(_) => integer(value).filter(fits).ok_or(None),
            _ => Err(None),
        };
        self.read(key, &expected, read).map_or(default, |at| at.value)
    }

    /// A whole number. `also` is what else must hold of it.
    pub(super) fn number(
        &self,
        key: &str,
        default: usize,
        range: RangeInclusive<usize>,
        also: Option<Constraint<'_>>,
    ) -> usize {
        let what = also.map_or("a whole number", |(what, _)| what);
        let expected = format!("{what} from {} to {}", range.start(), range.end());
        let read = |value: &DeValue<'_>| {
            let number = integer(value).and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n));
            number.filter(|&n| also.is_none_or(|(_, holds)| holds(n))).ok_or(None)
        };
        self.read(key, &expected, read).map_or(default, |at| at.value)
    }

    /// One of some names.
    pub(super) fn choice<T: Copy>(&self, key: &str, default: T, all: &[T], name: fn(T) -> &'static str) -> T {
        let names: Vec<&str> = all.iter().map(|&choice| name(choice)).collect();
        let read = |value: &DeValue<'_>| {
            let text = value.as_str().ok_or(None)?;
            let chosen = all.iter().copied().find(|&choice| name(choice) == text);
            chosen.ok_or_else(|| did_you_mean(text, names.iter().copied()))
        };
        self.read(key, &format!("one of {}", quoted(&names)), read).map_or(default, |at| at.value)
    }

    /// `yes` or `no`, as in `redis.conf`; TOML's booleans mean the same.
    pub(super) fn yes_no(&self, key: &str, default: bool) -> bool {
        let read = |value: &DeValue<'_>| match value {
            DeValue::Boolean(yes) => Ok(*yes),
            DeValue::String(text) if text == "yes" => Ok(true),
            DeValue::String(text) if text == "no" => Ok(false),
            _ => Err(None),
        };
        self.read(key, "\"yes\" or \"no\"", read).map_or(default, |at| at.value)
    }

    /// The permissions of a file in octal digits, as a text or as they stand in `redis.conf`.
    pub(super) fn permissions(&self, key: &str) -> Option<u32> {
        let read = |value: &DeValue<'_>| {
            let number = integer(value).map(|number| number.to_string());
            units::permissions(value.as_str().or(number.as_deref()).unwrap_or("")).ok_or(None)
        };
        self.read(key, "permissions in octal digits, such as \"700\"", read).map(|at| at.value)
    }

    fn list<T>(
        &self,
        key: &str,
        plural: &str,
        one: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<Vec<At<T>>> {
        let value = self.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            let message = format!("expected a list of {plural}, found {}", found(value.get_ref()));
            let help = value.get_ref().as_str().map(|text| format!("one goes in brackets, too: [{text:?}]"));
            self.document.report(value.span(), self.full(key), message, help);
            return None;
        };
        // All are read before one that is wrong makes the list wrong, so that every mistake is told.
        let items: Vec<_> = items.iter().map(|item| self.read_value(key, item, one, &read)).collect();
        items.into_iter().collect()
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        self.get(key).and_then(|value| self.read_value(key, value, expected, read))
    }

    fn read_value<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<At<T>> {
        match read(value.get_ref()) {
            Ok(read) => Some(At { value: read, span: value.span(), key: self.full(key) }),
            Err(help) => {
                let secret = key == "password";
                let found =
                    if secret { value.get_ref().type_str().to_owned() } else { found(value.get_ref()) };
                let message = format!("expected {expected}, found {found}");
                self.document.report(value.span(), self.full(key), message, help);
                None
            }
        }
    }

    fn check_key(&self, schema: &str, key: &Spanned<std::borrow::Cow<'_, str>>) {
        let (name, full) = (key.get_ref().as_ref(), self.full(key.get_ref()));
        let Some(table) = schema::TABLES.iter().find(|table| table.name == schema) else { return };
        if table.keys.contains(&name) {
            return;
        }
        if table.later.contains(&name) {
            let message = format!("[{full}] is not supported in this version");
            let help =
                Some("take it out; without it, nothing in this file promises what it would give".to_owned());
            return self.document.report(key.span(), full, message, help);
        }
        let help = Some(self.help_for(table, name));
        let what = if table.name.is_empty() { "table" } else { "key" };
        self.document.report(key.span(), full, format!("unknown {what} `{}`", printable(name)), help);
    }

    fn help_for(&self, table: &Table, name: &str) -> String {
        if let Some(help) = did_you_mean(name, table.keys.iter().copied()) {
            return help;
        }
        if let Some(help) = home_help(name) {
            return help;
        }
        let here = if self.name.is_empty() { "there are".to_owned() } else { format!("[{}] has", self.name) };
        format!("{here} {}", table.keys.join(", "))
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let table = self.table?;
        table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value)
    }

    fn full(&self, key: &str) -> String {
        let key = printable(key);
        match (self.name.as_str(), key.as_str()) {
            ("", _) => key,
            (name, "") => name.to_owned(),
            (name, key) => format!("{name}.{key}"),
        }
    }
}

/// "did you mean …?", when something is near.
pub(super) fn did_you_mean<'n>(found: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    schema::nearest(found, names).map(|name| format!("did you mean `{}`?", printable(name)))
}

/// Which table a key belongs in, when that is clear.
fn home_help(key: &str) -> Option<String> {
    schema::home_of(key).map(|home| format!("`{key}` belongs in [{}]", home.name.replace('*', "NAME")))
}

/// `"a", "b" or "c"`.
fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A value in words, short enough for one line.
fn found(value: &DeValue<'_>) -> String {
    let short = |text: &dyn Display| {
        let text = text.to_string();
        let cut: String = text.chars().take(SHOWN).collect();
        if cut.len() < text.len() { format!("{cut}…") } else { cut }
    };
    match value {
        DeValue::String(text) => format!("{:?}", short(text)),
        DeValue::Integer(number) => format!("the number {}", short(number)),
        DeValue::Float(number) => format!("the number {}", short(number)),
        DeValue::Boolean(yes) => format!("the boolean {yes}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn printable(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn read_address(value: &DeValue<'_>) -> Result<Address, Fault> {
    let text = value.as_str().ok_or(None)?;
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Some(format!("expected host:port alone, without {}://", printable(scheme))));
    }
    if text.starts_with("dns:") {
        return Err(Some(
            "only among `replicas` each record of a name is a node; without dns: it is one node".to_owned(),
        ));
    }
    text.parse().map_err(|fault: AddressError| Some(fault.to_string()))
}

/// One of the two addresses of a pair: a mistake says which.
fn read_one_of_pair(text: &str) -> Result<Address, Fault> {
    text.parse().map_err(|problem: AddressError| Some(format!("{text:?}: {problem}")))
}

/// A name and a port, after `dns:`.
fn read_name(text: &str) -> Result<Address, Fault> {
    let expected = || Some("expected dns:name:port".to_owned());
    let address: Address = text.parse().map_err(|_| expected())?;
    match &address {
        Address::Tcp { host, .. } if !host.contains(':') => Ok(address),
        _ => Err(expected()),
    }
}

/// The most characters of a name or value that a message repeats.
const SHOWN: usize = 60;
