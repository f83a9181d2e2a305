//! One command as a server describes it, and its form as a line of text.

use std::fmt;
use std::str::FromStr;

use super::keys::KeySpec;

/// The flags of `COMMAND` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags {
    /// `readonly`
    pub readonly: bool,
    /// `write`
    pub write: bool,
    /// `blocking`. Servers before 7.0 do not report it.
    pub blocking: bool,
    /// `movablekeys`: the positions of the keys depend on the arguments.
    pub movable_keys: bool,
    /// `module`: a module's, whose word counts less than the server's own.
    pub module: bool,
}

impl Flags {
    /// Takes note of a flag by its name in `COMMAND`; the others do not matter.
    pub fn add(&mut self, name: &str) {
        match name {
            "readonly" => self.readonly = true,
            "write" => self.write = true,
            "blocking" => self.blocking = true,
            "movablekeys" => self.movable_keys = true,
            "module" => self.module = true,
            _ => {}
        }
    }
}

/// One command or subcommand.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommandEntry {
    /// Lower case; a subcommand as `config|set`.
    pub name: String,
    /// What it says of itself.
    pub flags: Flags,
    /// Where its keys are.
    pub specs: Vec<KeySpec>,
    /// Whether the server described the keys (7.0); if not, `specs` is made of first, last and step.
    pub described: bool,
}

/// A line: `name flags keys…`; flags are letters (`r`eadonly, `w`rite, `b`locking, `m`ovable, `x`: a module's) or `-`.
impl fmt::Display for CommandEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flags { readonly, write, blocking, movable_keys, module } = self.flags;
        let letters = [(readonly, 'r'), (write, 'w'), (blocking, 'b'), (movable_keys, 'm'), (module, 'x')];
        let mut flags: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
        if flags.is_empty() {
            flags.push('-');
        }
        write!(f, "{} {flags}", self.name)?;
        self.specs.iter().try_for_each(|spec| write!(f, " {spec}"))
    }
}

/// A line of the built-in table that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine;

impl FromStr for CommandEntry {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Self, BadLine> {
        let mut words = line.split(' ');
        let name = words.next().filter(|name| !name.is_empty()).ok_or(BadLine)?.to_owned();
        let mut flags = Flags::default();
        for letter in words.next().ok_or(BadLine)?.chars() {
            match letter {
                'r' => flags.readonly = true,
                'w' => flags.write = true,
                'b' => flags.blocking = true,
                'm' => flags.movable_keys = true,
                'x' => flags.module = true,
                '-' => {}
                _ => return Err(BadLine),
            }
        }
        let specs = words.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { name, flags, specs, described: true })
    }
}
