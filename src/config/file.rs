//! Files that the configuration names.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use crate::config::units;

/// Reads a whole file, if it is not absurdly large.
pub(crate) fn read_file(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("it is larger than {}", units::size_text(FILE_MAX)));
    }
    String::from_utf8(bytes).map_err(|e| format!("it is not UTF-8 (byte {})", e.utf8_error().valid_up_to()))
}

/// Reads a password: the one line of a file.
pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_file(path).map_err(|why| format!("cannot read it: {why}"))?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    if secret.is_empty() || secret.contains('\n') {
        return Err("expected the password on one line, and nothing else".to_owned());
    }
    Ok(secret.to_owned())
}

/// The largest file that is read.
const FILE_MAX: u64 = 1 << 20;
