//! RESP out of bytes that nearly are: what fits no longer after a mutation (lengths, counts) is made to fit, so that what
//! a reply *says* is mutated, not only its frame.

/// Deeper than any reply that is looked for.
const DEPTH: usize = 12;

/// One value, made of the lines of `input`.
pub(crate) fn mend(input: &[u8]) -> Vec<u8> {
    let text: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let mut lines = text.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    value(&mut lines, 0).unwrap_or_else(|| b"*0\r\n".to_vec())
}

fn value<'a>(lines: &mut impl Iterator<Item = &'a [u8]>, depth: usize) -> Option<Vec<u8>> {
    let line = lines.next()?;
    let number =
        std::str::from_utf8(line.get(1..).unwrap_or_default()).ok().and_then(|n| n.parse::<i64>().ok());
    match (line.first(), number) {
        (Some(b'*'), count) if depth < DEPTH => {
            let count = count.unwrap_or(0).clamp(0, 200);
            let items: Vec<_> = (0..count).map_while(|_| value(lines, depth + 1)).collect();
            Some([format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat())
        }
        (Some(b'$'), Some(-1)) => Some(b"$-1\r\n".to_vec()),
        (Some(b'$'), _) => Some(bulk(lines.next()?)),
        (Some(b':'), Some(number)) => Some(format!(":{number}\r\n").into_bytes()),
        (Some(b'+'), _) if !line.contains(&b'\r') => Some([line, b"\r\n"].concat()),
        _ => Some(bulk(line)),
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}
