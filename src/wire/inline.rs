//! Inline commands: a line of words instead of RESP, with the quoting rules of `sdssplitargs` (Redis, sds.c).
//! They are rare (telnet, health checks, `redis-benchmark`), so the words are copied into a scratch.

/// Where one argument lies in the bytes it was found in: `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgSpan {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl ArgSpan {
    /// The argument's bytes; empty when `data` is not the buffer that was scanned.
    pub fn of(self, data: &[u8]) -> &[u8] {
        data.get(self.start..self.end).unwrap_or_default()
    }
}

/// A quote that is never closed, or a closing quote with something other than a blank behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

/// Splits `line` (without its line end) into words: their bytes are appended to `scratch`, their places in it
/// to `words`. A line of blanks gives none.
///
/// A word ends at space, tab, CR or LF; *between* words and behind a closing quote vertical tab and form feed
/// count as blank too, as `isspace` says. A quote may open inside a word. Like C strings, the line ends at a
/// NUL; the scanner never passes one, because Redis does not find the end of a line behind it.
pub fn split(line: &[u8], scratch: &mut Vec<u8>, words: &mut Vec<ArgSpan>) -> Result<(), Unbalanced> {
    let line = memchr::memchr(0, line).map_or(line, |nul| &line[..nul]);
    let mut rest = line;
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            return Ok(());
        }
        let start = scratch.len();
        rest = word(rest, scratch)?;
        words.push(ArgSpan { start, end: scratch.len() });
    }
}

/// Copies the word at the front of `rest` and returns what follows it.
fn word<'a>(rest: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    let plain = rest.iter().position(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'"' | b'\''));
    let (bare, tail) = rest.split_at(plain.unwrap_or(rest.len()));
    scratch.extend_from_slice(bare);
    let behind = match tail {
        [b'"', quoted @ ..] => double_quoted(quoted, scratch)?,
        [b'\'', quoted @ ..] => single_quoted(quoted, scratch)?,
        blank_or_end => return Ok(blank_or_end),
    };
    // A closing quote ends the word, and only a blank or the end may follow it.
    match behind.first() {
        Some(byte) if !is_blank(*byte) => Err(Unbalanced),
        _ => Ok(behind),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let special = memchr::memchr2(b'"', b'\\', rest).ok_or(Unbalanced)?;
        scratch.extend_from_slice(&rest[..special]);
        rest = match &rest[special..] {
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                scratch.push(hex(*high) << 4 | hex(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                scratch.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [b'"', tail @ ..] => return Ok(tail),
            // A backslash is the last byte: the quote cannot close any more.
            _ => return Err(Unbalanced),
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let quote = memchr::memchr(b'\'', rest).ok_or(Unbalanced)?;
        // Only `\'` is an escape here: the byte before the quote decides, however many backslashes precede it.
        if let Some((b'\\', before)) = rest[..quote].split_last() {
            scratch.extend_from_slice(before);
            scratch.push(b'\'');
            rest = &rest[quote + 1..];
        } else {
            scratch.extend_from_slice(&rest[..quote]);
            return Ok(&rest[quote + 1..]);
        }
    }
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    &bytes[blanks..]
}

/// `isspace` in the C locale.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let (mut scratch, mut spans) = (Vec::new(), Vec::new());
        split(line, &mut scratch, &mut spans)?;
        Ok(spans.iter().map(|span| span.of(&scratch).to_vec()).collect())
    }

    #[test]
    fn words_are_split_as_sdssplitargs_splits_them() {
        let table: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b" \t\r\x0b\x0c", &[]),
            (b"PING", &[b"PING"]),
            (b"  SET  a\tb ", &[b"SET", b"a", b"b"]),
            (b"a\rb", &[b"a", b"b"]),
            (b"a\x0bb", &[b"a\x0bb"]),
            (b"\x0ba", &[b"a"]),
            (br#"ECHO "a\x41b""#, &[b"ECHO", b"aAb"]),
            (br#"ECHO "\n\r\t\b\a\q\"\\""#, &[b"ECHO", b"\n\r\t\x08\x07q\"\\"]),
            (br#"ECHO "\x4""#, &[b"ECHO", b"x4"]),
            (br#"ECHO "\xzz\xfF""#, &[b"ECHO", b"xzz\xff"]),
            (br#"ECHO "\x00""#, &[b"ECHO", b"\0"]),
            (br"ECHO 'a\'b\n\\ '", &[b"ECHO", b"a'b\\n\\\\ "]),
            (br#"ECHO 'a"b'"#, &[b"ECHO", b"a\"b"]),
            (br#"ECHO foo"bar baz""#, &[b"ECHO", b"foobar baz"]),
            (br#""" ''"#, &[b"", b""]),
            (b"\"a\"\x0bb", &[b"a", b"b"]),
            (b"ECHO \xff\xfe", &[b"ECHO", b"\xff\xfe"]),
            (br"a\nb", &[br"a\nb"]),
            (b"a\0b", &[b"a"]),
        ];
        for (line, expected) in table {
            let expected: Vec<Vec<u8>> = expected.iter().map(|word| word.to_vec()).collect();
            assert_eq!(words(line), Ok(expected), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [
            br#"ECHO "a"#.as_slice(),
            br#"ECHO "a"b"#,
            br#"ECHO "a""b""#,
            br"ECHO 'a",
            br"ECHO 'a'b",
            br"ECHO 'a\'",
            br#"ECHO "a\"#,
            br#"ECHO "a\""#,
            br#"GET "x\x4"#,
            b"ECHO \"a\0\"",
            b"'",
            b"\"",
        ] {
            assert_eq!(words(line), Err(Unbalanced), "{}", line.escape_ascii());
        }
    }
}
