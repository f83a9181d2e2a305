//! A blocking command that is asked again, because its slot has moved while it waited (`cluster.c`,
//! `clusterRedirectBlockedClientIfNeeded`): with the time that is left of its own.

use std::time::Duration;

use crate::core::argv::Args;
use crate::mutant;

/// What is left of the time that it wants to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeLeft {
    /// It waits for as long as before: for ever, or not at all, because it is an error.
    AsBefore,
    /// This argument has to say this.
    Some(usize, String),
    /// Nothing: it is answered that nothing has come.
    Over,
}

/// What is left after it has waited for so long.
pub fn time_left<A: Args + ?Sized>(args: &A, waited: Duration) -> TimeLeft {
    let Some((at, whole, is_millis)) = timeout(args) else { return TimeLeft::AsBefore };
    let left = whole - waited.as_secs_f64();
    if left < LEAST && !mutant::is("blocked-for-ever") {
        return TimeLeft::Over;
    }
    let left = left.max(LEAST);
    TimeLeft::Some(at, if is_millis { format!("{:.0}", (left * 1e3).ceil()) } else { format!("{left:.3}") })
}

/// Seconds that are not worth to be waited for. None at all would be for ever.
const LEAST: f64 = 0.001;

/// Which argument says for how many seconds it waits, what it says, and whether in milliseconds.
fn timeout<A: Args + ?Sized>(args: &A) -> Option<(usize, f64, bool)> {
    let name = args.arg(0).to_ascii_lowercase();
    let (at, is_millis) = match name.as_slice() {
        b"blmpop" | b"bzmpop" => (1, false),
        b"xread" | b"xreadgroup" => {
            let block = (1..args.count()).find(|at| args.arg(*at).eq_ignore_ascii_case(b"block"))?;
            (block + 1, true)
        }
        _ => (args.count().checked_sub(1)?, false),
    };
    let text = std::str::from_utf8(args.arg(at)).ok()?;
    let unit = if is_millis { 1e-3 } else { 1.0 };
    let whole = text.parse::<f64>().ok().filter(|number| *number > 0.0)? * unit;
    Some((at, whole, is_millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_what_is_left() {
        let after = |command: &str, millis| {
            let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            time_left(args.as_slice(), Duration::from_millis(millis))
        };
        let at = |at, text: &str| TimeLeft::Some(at, text.to_owned());
        assert_eq!(after("BLPOP a b 10", 2500), at(3, "7.500"));
        assert_eq!(after("BLPOP a 1", 2500), TimeLeft::Over);
        assert_eq!(after("XREAD BLOCK 5 STREAMS s $", 5), TimeLeft::Over);
        assert_eq!(after("blmpop 5 1 a LEFT", 1000), at(1, "4.000"));
        assert_eq!(after("XREAD COUNT 1 BLOCK 500 STREAMS s $", 100), at(4, "400"));
        assert_eq!(after("BLPOP a 0", 2500), TimeLeft::AsBefore, "for ever");
        assert_eq!(after("BLPOP a x", 2500), TimeLeft::AsBefore);
    }
}
