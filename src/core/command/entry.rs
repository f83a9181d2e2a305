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

/// How many arguments a command takes, its name included (`server.c`, `commandCheckArity`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    least: u32,
    /// How many it may have beyond that.
    more: u32,
}

impl Arity {
    /// Whatever a server says nothing of.
    pub const UNKNOWN: Self = Self { least: 0, more: u32::MAX };

    /// As `COMMAND` says it: so many, or at least so many if it is negative. 0 says nothing.
    pub const fn new(number: i32) -> Self {
        match number {
            0 => Self::UNKNOWN,
            1.. => Self { least: number.unsigned_abs(), more: 0 },
            _ => Self { least: number.unsigned_abs(), more: u32::MAX },
        }
    }

    /// Whether a command may have so many arguments.
    pub fn allows(self, count: usize) -> bool {
        (count as u64).wrapping_sub(u64::from(self.least)) <= u64::from(self.more)
    }

    /// What is left of it where fewer than `least` are of no interest; `None`: nothing.
    pub const fn from(self, least: u32) -> Option<Self> {
        let Some(missing) = least.checked_sub(self.least) else { return Some(self) };
        match (self.more, self.more.checked_sub(missing)) {
            (u32::MAX, _) => Some(Self { least, more: u32::MAX }),
            (_, Some(more)) => Some(Self { least, more }),
            (_, None) => None,
        }
    }
}

impl Default for Arity {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// One command or subcommand.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommandEntry {
    /// Lower case; a subcommand as `config|set`.
    pub name: String,
    /// What it says of itself.
    pub flags: Flags,
    /// How many arguments it takes.
    pub arity: Arity,
    /// Where its keys are.
    pub specs: Vec<KeySpec>,
    /// Whether the server described the keys (7.0); if not, `specs` is made of first, last and step.
    pub described: bool,
}

/// A line: `name flags arity keys…`, without the arity if that is unknown; flags are letters (`r`eadonly, `w`rite, `b`locking, `m`ovable, `x`: a module's) or `-`.
impl fmt::Display for CommandEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flags { readonly, write, blocking, movable_keys, module } = self.flags;
        let letters = [(readonly, 'r'), (write, 'w'), (blocking, 'b'), (movable_keys, 'm'), (module, 'x')];
        let mut flags: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
        if flags.is_empty() {
            flags.push('-');
        }
        write!(f, "{} {flags}", self.name)?;
        match self.arity {
            Arity::UNKNOWN => {}
            Arity { least, more: 0 } => write!(f, " {least}")?,
            Arity { least, .. } => write!(f, " -{least}")?,
        }
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
        let mut words = words.peekable();
        let arity =
            words.next_if(|word| word.starts_with(['-', '1', '2', '3', '4', '5', '6', '7', '8', '9']));
        let arity = arity.map_or(Ok(0), str::parse).map_err(|_| BadLine)?;
        let specs = words.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { name, flags, arity: Arity::new(arity), specs, described: true })
    }
}
