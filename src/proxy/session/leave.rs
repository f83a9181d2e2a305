//! What Redweir answers itself and would tell, to users whom the primary forbids it: about the servers, other clients, the
//! connection. A user who may not do everything is asked about at the primary first, by a question of the same kind.

use crate::core::argv::Args;
use crate::core::nodes::view::View;
use crate::mutant;
use crate::proxy::session::connection::Connection;
use crate::wire::reply::ErrorCode;

/// The question whose refusal by the primary is that of the command. `None`: whoever is in may use it.
fn question<A: Args + ?Sized>(args: &A) -> Option<&'static [&'static [u8]]> {
    let is = |at, word: &[u8]| args.arg(at).eq_ignore_ascii_case(word);
    let any = |words: &[&[u8]]| words.iter().any(|word| is(1, word));
    if is(0, b"redweir") && any(&[b"view", b"explain", b"token", b"after"])
        || is(0, b"info") && any(&[b"redweir"])
    {
        return Some(&[b"INFO", b"server"]);
    }
    match () {
        () if is(0, b"wait") => Some(&[b"WAIT", b"0", b"0"]),
        () if is(0, b"client") && is(1, b"id") => Some(&[b"CLIENT", b"ID"]),
        () if is(0, b"client") && is(1, b"info") => Some(&[b"CLIENT", b"INFO"]),
        () => None,
    }
}

impl Connection {
    /// Whether the primary has to be asked whether its user may have this.
    pub(crate) fn needs_leave<A: Args + ?Sized>(&self, args: &A, view: &View) -> bool {
        question(args).is_some()
            && !view.rights.allow_everything(self.user.as_bytes())
            && !mutant::is("told-to-anybody")
    }

    /// Asks it. An error is the answer to the command.
    pub(crate) async fn ask_leave<A: Args + ?Sized>(&self, args: &A) -> Result<(), Vec<u8>> {
        let Some(question) = question(args) else { return Ok(()) };
        let identity = self.worker.shared.identities.hold(self.identity);
        let credentials = identity.as_ref().map(|identity| &identity.credentials);
        match self.worker.inquiry.inquire(credentials, question).await {
            // Whatever else is wrong says nothing of what it may.
            Err(error)
                if matches!(ErrorCode::of(&error), Some(ErrorCode::NoPerm | ErrorCode::MasterDown)) =>
            {
                Err(error)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
