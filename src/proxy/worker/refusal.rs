//! `-MASTERDOWN`, with the cause: where nodes are is told to those only who may ask for it (`REDWEIR VIEW`).

use crate::core::nodes::cause::Cause;
use crate::core::nodes::view::View;
use crate::core::reason::Reason;
use crate::mutant;
use crate::proxy::downstream::replies::Client;
use crate::proxy::worker::Worker;
use crate::shard::identity::IdentityId;
use crate::wire::say;

impl Worker {
    /// The reply to a command of `client` that nobody may answer, for this reason. It is counted.
    #[cold]
    pub(crate) fn masterdown(&self, client: &Client, reason: Reason) -> Vec<u8> {
        self.stats.masterdown.add(1);
        let view = self.shared.shard().view.load();
        let names = self.may_see_nodes(client, &view) || mutant::is("told-where-to-anybody");
        say::masterdown(Cause::of(&view).as_ref(), reason, names)
    }

    /// Whether a client is known to may ask which nodes there are. In doubt it may not: there is no primary to be asked. Whoever has
    /// given no password may, if none was needed when the primary last said so.
    fn may_see_nodes(&self, client: &Client, view: &View) -> bool {
        let identity = client.status.identity.get();
        let admitted = client.status.auth_epoch.get() == self.admission.epoch()
            || !view.primary_answers() && view.rights.let_newcomers_in() == Some(true);
        if identity == IdentityId::ANONYMOUS && !admitted {
            return false;
        }
        let user = if identity == IdentityId::ANONYMOUS {
            "default".to_owned()
        } else {
            let known = self.shared.identities.hold(identity).filter(|identity| !identity.is_revoked());
            let Some(identity) = known else { return false };
            identity.user()
        };
        view.rights.plainly_allow(user.as_bytes(), b"info")
    }
}
