//! Command lines by chance: every command that the server knows, with keys where it says they are, and the options of
//! those whose keys stand among options, in any order, repeated, and with their own words as operands.

use redweir::core::command::{Begin, CommandEntry, Find, KeySpec};

use crate::support::Value;
use crate::support::rng::Rng;

/// Keys, values and consumers: ordinary ones, every word that some option has, and numbers.
const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "k1",
    "k2",
    "streams",
    "STREAMS",
    "Streams",
    "store",
    "STORE",
    "storedist",
    "keys",
    "KEYS",
    "get",
    "by",
    "limit",
    "count",
    "block",
    "group",
    "noack",
    "claim",
    "auth",
    "auth2",
    "copy",
    "replace",
    "any",
    "asc",
    "desc",
    "alpha",
    "withdist",
    "weights",
    "aggregate",
    "left",
    "min",
    "",
    "0",
    "1",
    "2",
    "3",
    "-1",
    ">",
    "$",
    "*",
    "#",
    "w_*",
    "w_*->f",
    "nosort",
    "m",
    "é\u{7f}",
];

/// What stands where a number of keys should: wrong, not a number to Redis, or beyond what 32 bits hold. Nothing for
/// which Redis 7.0.15 reserves gigabytes before it looks at what is there.
const ODD_COUNTS: &[&str] = &[
    "0",
    "-1",
    "7",
    "99",
    "abc",
    "",
    "+1",
    "01",
    "1 ",
    "1.0",
    "-9223372036854775808",
    "4294967297",
    "9223372036854775807",
    "18446744073709551617",
];

/// A command line.
pub(crate) struct Line {
    pub(crate) words: Vec<String>,
    /// Whether its keys can be known: the options are the command's, their operands are all there, a count is a number,
    /// and no pattern names keys by content.
    pub(crate) is_sound: bool,
}

impl Line {
    fn push(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    fn push_any(&mut self, rng: &mut Rng, count: usize) {
        self.words.extend((0..count).map(|_| any(rng).to_owned()));
    }
}

/// A command and what a generator must know of it.
pub(crate) struct Grammar {
    pub(crate) entry: CommandEntry,
    /// As many arguments, or at least as many if negative, the name included.
    arity: i64,
}

impl Grammar {
    /// All commands and subcommands of a reply to `COMMAND`, with their entries.
    pub(crate) fn all(command: &Value, entries: Vec<CommandEntry>) -> Vec<Self> {
        let mut arities = Vec::new();
        for item in command.items() {
            arities.push(item.items()[1].int());
            let subcommands = item.items().get(9).map(Value::items).unwrap_or_default();
            arities.extend(subcommands.iter().map(|subcommand| subcommand.items()[1].int()));
        }
        assert_eq!(arities.len(), entries.len());
        let mut all: Vec<_> =
            entries.into_iter().zip(arities).map(|(entry, arity)| Self { entry, arity }).collect();
        // The server's order is that of its hash table, which is another at each start.
        all.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        all
    }

    /// Whether the keys of its command stand among options, so that it deserves more lines than others.
    pub(crate) fn has_options(&self) -> bool {
        options_of(&self.entry.name).is_some()
    }

    /// A line of this command.
    pub(crate) fn line(&self, rng: &mut Rng) -> Line {
        let words = self.entry.name.split('|').map(|word| in_some_case(word, rng)).collect();
        let mut line = Line { words, is_sound: true };
        match options_of(&self.entry.name) {
            Some(options) if rng.below(8) > 0 => options(rng, &mut line),
            options => {
                self.by_specs(rng, &mut line);
                line.is_sound &= options.is_none();
            }
        }
        line
    }

    /// Words by chance, and counts and key words where the key specifications look for them.
    fn by_specs(&self, rng: &mut Rng, line: &mut Line) {
        let least = self.arity.unsigned_abs() as usize;
        let more = if self.arity < 0 { rng.below(7) } else { 0 };
        let length = match rng.below(20) {
            0 => least + more + 1,
            1 => (least + more).saturating_sub(1),
            _ => least + more,
        };
        line.push_any(rng, length.saturating_sub(line.words.len()));
        for spec in &self.entry.specs {
            place(spec, rng, line);
        }
    }
}

/// Puts what this specification looks for where it looks for it, most of the time.
fn place(spec: &KeySpec, rng: &mut Rng, line: &mut Line) {
    let length = line.words.len();
    let begin = match &spec.begin {
        Begin::Index(index) => *index as usize,
        Begin::Keyword { word, from } if *from > 0 && length > *from as usize => {
            let at = *from as usize + rng.below(length - *from as usize);
            line.words[at] = in_some_case(word, rng);
            at + 1
        }
        _ => return,
    };
    let Find::Count { at, first, .. } = spec.find else { return };
    let rest = length.saturating_sub(begin + first as usize);
    let Some(place) = line.words.get_mut(begin + at as usize) else { return };
    *place = match rng.below(6) {
        0 => {
            line.is_sound = false;
            ODD_COUNTS[rng.below(ODD_COUNTS.len())].to_owned()
        }
        1 => (rest + 1).to_string(),
        _ => rng.below(rest + 1).max(1).to_string(),
    };
}

type Options = fn(&mut Rng, &mut Line);

fn options_of(command: &str) -> Option<Options> {
    Some(match command {
        "sort" | "sort_ro" => sort,
        "georadius" | "georadius_ro" => |rng, line| geo_radius(rng, line, &["1", "2", "3"]),
        "georadiusbymember" | "georadiusbymember_ro" => |rng, line| geo_radius(rng, line, &["c", "3"]),
        "xread" | "xreadgroup" => streams,
        "migrate" => migrate,
        _ => return None,
    })
}

fn sort(rng: &mut Rng, line: &mut Line) {
    line.push_any(rng, 1);
    let options = [("asc", 0), ("desc", 0), ("alpha", 0), ("limit", 2), ("by", 1), ("get", 1), ("store", 1)];
    let stores = line.words[0].len() == "sort".len();
    some_options(rng, line, if stores { &options } else { &options[..6] });
    line.is_sound &= !line.words[2..].iter().any(|word| word.contains('*'));
}

fn geo_radius(rng: &mut Rng, line: &mut Line, center: &[&str]) {
    line.push_any(rng, 1);
    for word in center.iter().chain(&["km"]) {
        line.push(word);
    }
    let options =
        [("withdist", 0), ("any", 0), ("asc", 0), ("desc", 0), ("count", 1), ("store", 1), ("storedist", 1)];
    some_options(rng, line, &options);
}

fn streams(rng: &mut Rng, line: &mut Line) {
    let is_of_group = line.words[0].len() > "xread".len();
    some_options(rng, line, &[("count", 1), ("block", 1), ("noack", 0), ("group", 2)]);
    if is_of_group && rng.below(8) > 0 {
        line.push("GROUP");
        line.push_any(rng, 2);
    }
    match rng.below(16) {
        0 => line.is_sound = false,
        _ => line.push(&in_some_case("streams", rng)),
    }
    let streams = 1 + rng.below(3);
    let ids = if rng.below(10) > 0 { streams } else { rng.below(4) };
    line.is_sound &= ids == streams;
    line.push_any(rng, streams);
    for _ in 0..ids {
        match rng.below(8) {
            0 => line.push_any(rng, 1),
            _ => line.push(if is_of_group { ">" } else { "0" }),
        }
    }
}

fn migrate(rng: &mut Rng, line: &mut Line) {
    let key = if rng.below(2) > 0 { "" } else { any(rng) };
    for word in ["127.0.0.1", "1", key, "0", "1"] {
        line.push(word);
    }
    some_options(rng, line, &[("copy", 0), ("replace", 0), ("auth", 1), ("auth2", 2)]);
    if rng.below(2) > 0 {
        line.push(&in_some_case("keys", rng));
        let keys = rng.below(4);
        line.push_any(rng, keys);
        line.is_sound &= key.is_empty();
    }
}

/// Up to five of these options, each with as many operands, now and then one too few, or another word.
fn some_options(rng: &mut Rng, line: &mut Line, options: &[(&str, usize)]) {
    for _ in 0..rng.below(6) {
        let (name, mut operands) = options[rng.below(options.len())];
        line.push(&in_some_case(name, rng));
        if operands > 0 && rng.below(30) == 0 {
            operands -= 1;
            line.is_sound = false;
        }
        if ["count", "block", "limit"].contains(&name) && rng.below(4) > 0 {
            (0..operands).for_each(|_| line.push("1"));
        } else {
            line.push_any(rng, operands);
        }
        if rng.below(60) == 0 {
            line.push_any(rng, 1);
            line.is_sound = false;
        }
    }
}

fn any(rng: &mut Rng) -> &'static str {
    WORDS[rng.below(WORDS.len())]
}

fn in_some_case(word: &str, rng: &mut Rng) -> String {
    match rng.below(3) {
        0 => word.to_uppercase(),
        _ => word.to_lowercase(),
    }
}
