//! What is wrong with a configuration, said so that it can be put right without the manual.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong with one configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file; `None` for the command line.
    pub path: Option<PathBuf>,
    /// Where in the file; `None` when something is missing from it.
    pub position: Option<Position>,
    /// The key in full, such as `policy.default.max-lag`. Empty when there is none.
    pub key: String,
    /// What was expected and what was found.
    pub message: String,
    /// What was probably meant, or what to do.
    pub help: Option<String>,
}

/// A place in the file, with the line for show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line, without secrets and cut to a readable length.
    pub excerpt: String,
    /// Where in the excerpt the mistake is, in characters from 0.
    pub caret: usize,
    /// How many characters it has; at least 1.
    pub length: usize,
}

impl ConfigError {
    /// The file cannot be read.
    pub(super) fn unreadable(path: &Path, why: &str) -> Self {
        let help = Some("`redweir config` prints a file to start from".to_owned());
        let message = format!("cannot read the configuration: {why}");
        let path = Some(path.to_owned());
        Self { problems: vec![Problem { path, position: None, key: String::new(), message, help }] }
    }
}

impl ConfigError {
    /// The first mistake in one line, without the text of the file, and how many there are besides.
    pub fn brief(&self) -> (String, usize) {
        let first = self.problems.first().map(|problem| Head(problem).to_string());
        (first.unwrap_or_default(), self.problems.len().saturating_sub(1))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A path, with nothing in it that a terminal would obey.
pub fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

fn plain(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

/// Where a mistake is, and what.
struct Head<'a>(&'a Problem);

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, position, key, message, .. } = self.0;
        if let Some(path) = path {
            write!(f, "{}:", shown(path))?;
            if let Some(Position { line, column, .. }) = position {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(&plain(message))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Head(self).fmt(f)?;
        let gutter = self.position.as_ref().map_or(0, |p| p.line.to_string().len());
        if let Some(Position { line, excerpt, caret, length, .. }) = &self.position {
            write!(f, "\n{:gutter$} |\n{line} | {excerpt}\n", "")?;
            write!(f, "{:gutter$} | {:caret$}{}", "", "", "^".repeat(*length))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {}", "", plain(help))?;
        }
        Ok(())
    }
}
