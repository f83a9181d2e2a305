//! The text being read: where a span of it is, and what has been found wrong with it so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use super::error::{ConfigError, Position, Problem};

/// A text, its name, and its problems.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    pub(super) path: &'a Path,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Self {
        Self { text, path, problems: RefCell::default() }
    }

    /// Notes a mistake at a place. Nobody reads more than a screen of them.
    pub(super) fn report(&self, span: Range<usize>, key: String, message: String, help: Option<String>) {
        if self.problems.borrow().len() >= PROBLEMS_MAX {
            return;
        }
        let position = Some(self.position(&span));
        let (message, help) = (without_userinfo(message), help.map(without_userinfo));
        let problem = Problem { path: Some(self.path.to_owned()), position, key, message, help };
        self.problems.borrow_mut().push((span.start, problem));
    }

    /// Notes that something is missing.
    pub(super) fn report_missing(&self, key: &str, message: &str, help: &str) {
        let (path, help) = (Some(self.path.to_owned()), Some(help.to_owned()));
        let problem =
            Problem { path, position: None, key: key.to_owned(), message: message.to_owned(), help };
        self.problems.borrow_mut().push((self.text.len(), problem));
    }

    /// `value`, if nothing was found wrong.
    pub(super) fn finish<T>(&self, value: T) -> Result<T, ConfigError> {
        let mut problems = self.problems.take();
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|(at, _)| *at);
        problems.dedup_by(|a, b| a.1 == b.1);
        Err(ConfigError { problems: problems.into_iter().map(|(_, problem)| problem).collect() })
    }

    /// The number of the line that `at` is in, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        let bytes = self.text.as_bytes();
        1 + bytes.iter().take(at).filter(|&&b| b == b'\n').count()
    }

    fn position(&self, span: &Range<usize>) -> Position {
        // A syntax error at the very end points at the last line, not at nothing after it.
        let at = span.start.min(self.text.trim_end_matches(['\n', '\r']).len());
        let at = (0..=at).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0);
        let start = self.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |i| at + i);
        let line = self.text[start..end].trim_end_matches('\r');
        let column = self.text[start..at].chars().count();
        let marked =
            self.text.get(at..span.end.min(start + line.len()).max(at)).map_or(0, |s| s.chars().count());
        // Within a text of many lines nothing says whether it is a password.
        let within = ["\"\"\"", "'''"].iter().any(|quote| self.text[..start].matches(quote).count() % 2 == 1);
        // Nor does a line tell whose value it is.
        let before = self.text[..start].trim_end().lines().next_back().unwrap_or_default();
        let before = before.trim_end_matches(|c: char| "=: \t".contains(c));
        let continued = is_secret(
            before.rsplit(|c: char| !(c.is_alphanumeric() || "-_".contains(c))).next().unwrap_or(""),
        );
        let shown =
            if within || continued && !line.contains('=') { "…".to_owned() } else { without_secrets(line) };
        let skip = column.saturating_sub(EXCERPT / 2);
        let skip = if shown.chars().count() > EXCERPT { skip } else { 0 };
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let excerpt: String = shown.chars().skip(skip).take(EXCERPT).map(clean).collect();
        let caret = (column - skip).min(excerpt.chars().count());
        let length = marked.min(excerpt.chars().count() - caret).max(1);
        Position { line: self.line(at), column: column + 1, excerpt, caret, length }
    }
}

/// The line, with whatever follows a word that looks like that for a password replaced, and what stands before the `@` of
/// a URL.
fn without_secrets(line: &str) -> String {
    let mut at = 0;
    for word in line.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c))) {
        let end = at + word.len();
        let rest = line.get(end..).unwrap_or_default();
        if is_secret(word) && rest.contains(char::is_alphanumeric) {
            let shown = rest.find(char::is_alphanumeric).map_or(end, |first| end + first);
            let shown = line.get(..shown).unwrap_or(line).trim_end_matches(|c: char| "\"'[{".contains(c));
            return format!("{shown}…");
        }
        // The separator is one character.
        at = end + rest.chars().next().map_or(0, char::len_utf8);
    }
    without_userinfo(line.to_owned())
}

/// Whether a word is one that names a password, or nearly.
fn is_secret(word: &str) -> bool {
    let lower = word.to_lowercase();
    let names = [
        "password",
        "passphrase",
        "passwd",
        "pass",
        "pwd",
        "secret",
        "token",
        "requirepass",
        "masterauth",
        "auth",
    ];
    names.iter().any(|name| strsim::jaro_winkler(&lower, name) > 0.85) && !lower.ends_with("file")
}

/// `user:password@host` without user and password: no address has an `@` in it.
fn without_userinfo(text: String) -> String {
    if !text.contains('@') {
        return text;
    }
    let ends = |c: char| c.is_whitespace() || "\"'`,[]{}()/".contains(c);
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        let begin = before
            .rfind(ends)
            .map_or(0, |last| last + before[last..].chars().next().map_or(1, char::len_utf8));
        out.push_str(&before[..begin]);
        out.push_str("…@");
        rest = &after[1..];
    }
    out + rest
}

/// The most mistakes that are told at once.
const PROBLEMS_MAX: usize = 50;

/// The most characters of a line that are shown.
const EXCERPT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for line in [
            "password = \"hunter2\"",
            "pasword=\"hunter2\"",
            "upstream = { \"password\" = \"hunter2\" }",
            "#passwd = hunter2",
            "passwrod: \"hunter2\"",
            "requirepass hunter2",
            "secret = \"hunter2\"",
            "pwd='hunter2'",
            "primary = \"redis://:hunter2@h:6379\"",
            "replicas = [\"h:1\", \"rediss://user:hunter2@h/0\", \"x\"]",
            "replicas = [\"user:hunter2@h:6379\"]",
        ] {
            assert!(!without_secrets(line).contains("hunter2"), "{line}");
        }
        for line in ["password-file = \"/run/secret\"", "primary = \"a:1\"", "max-lag = \"1s\" # = password"]
        {
            assert_eq!(without_secrets(line), line);
        }
    }

    #[test]
    fn a_place_is_told_in_lines_and_characters() {
        let document = Document::new("a = 1\r\né = \"ü\"\r\n", Path::new("x"));
        let at = |span| {
            let position = document.position(&span);
            (position.line, position.column, position.caret, position.length)
        };
        assert_eq!(at(0..1), (1, 1, 0, 1));
        assert_eq!(at(12..16), (2, 5, 4, 3));
        assert_eq!(at(18..18), (2, 8, 7, 1));
        assert_eq!(at(900..901), (2, 8, 7, 1));
        let long = format!("k = \"{}\" ?", "x".repeat(500));
        let document = Document::new(&long, Path::new("x"));
        let position = document.position(&(507..508));
        assert_eq!((position.column, position.excerpt.chars().nth(position.caret)), (508, Some('?')));
    }
}
