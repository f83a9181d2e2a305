//! The splitting of inline commands against a transcription of `sdssplitargs` (Redis 7.0, sds.c) that walks
//! byte by byte, with a NUL behind the last one, just as the C does.

use redweir::wire::inline::split;

/// Both give the same words, or both find the quotes unbalanced.
pub(crate) fn check(line: &[u8]) {
    let (mut scratch, mut spans) = (Vec::new(), Vec::new());
    let ours = split(line, &mut scratch, &mut spans)
        .ok()
        .map(|()| spans.iter().map(|span| span.of(&scratch).to_vec()).collect::<Vec<_>>());
    assert_eq!(ours, sdssplitargs(line), "{}", line.escape_ascii());
}

fn sdssplitargs(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let at = |index: usize| line.get(index).copied().unwrap_or(0);
    let isspace = |byte: u8| byte == b' ' || (9..=13).contains(&byte);
    let mut vector = Vec::new();
    let mut p = 0;
    loop {
        while at(p) != 0 && isspace(at(p)) {
            p += 1;
        }
        if at(p) == 0 {
            return Some(vector);
        }
        let (mut inq, mut insq, mut done) = (false, false, false);
        let mut current = Vec::new();
        while !done {
            let c = at(p);
            if inq {
                let (one, two) = (at(p + 2), at(p + 3));
                if c == b'\\' && at(p + 1) == b'x' && one.is_ascii_hexdigit() && two.is_ascii_hexdigit() {
                    let digits = String::from_utf8(vec![one, two]).unwrap();
                    current.push(u8::from_str_radix(&digits, 16).unwrap());
                    p += 3;
                } else if c == b'\\' && at(p + 1) != 0 {
                    p += 1;
                    let escapes = [(b'n', 10), (b'r', 13), (b't', 9), (b'b', 8), (b'a', 7)];
                    let escape = escapes.iter().find(|(letter, _)| *letter == at(p));
                    current.push(escape.map_or(at(p), |(_, byte)| *byte));
                } else if c == b'"' {
                    if at(p + 1) != 0 && !isspace(at(p + 1)) {
                        return None;
                    }
                    done = true;
                } else if c == 0 {
                    return None;
                } else {
                    current.push(c);
                }
            } else if insq {
                if c == b'\\' && at(p + 1) == b'\'' {
                    p += 1;
                    current.push(b'\'');
                } else if c == b'\'' {
                    if at(p + 1) != 0 && !isspace(at(p + 1)) {
                        return None;
                    }
                    done = true;
                } else if c == 0 {
                    return None;
                } else {
                    current.push(c);
                }
            } else {
                match c {
                    b' ' | b'\n' | b'\r' | b'\t' | 0 => done = true,
                    b'"' => inq = true,
                    b'\'' => insq = true,
                    _ => current.push(c),
                }
            }
            if at(p) != 0 {
                p += 1;
            }
        }
        vector.push(current);
    }
}
