//! What a configuration may say, and hardly means: a route that no read can take, a policy that nobody is given.

use super::Config;
use super::names;
use crate::core::command::{Access, CommandTable};
use crate::core::policy::{Consistency, DEFAULT, Policies, PolicyId, Route};

impl Config {
    /// What is allowed but may be a mistake, in words.
    pub fn advice(&self) -> Vec<String> {
        let table = CommandTable::builtin();
        let mut advice = Vec::new();
        for (index, route) in self.policies.routes.iter().enumerate() {
            let number = index + 1;
            let idle = route.commands.iter().filter_map(|name| Some((name, idle(&table, name)?)));
            advice.extend(idle.map(|(name, why)| format!("route {number}: `{name}` {why}")));
            if let Some(first) = self.policies.routes[..index].iter().position(takes_everything) {
                advice.push(format!(
                    "route {number} is never taken: route {} matches everything before it",
                    first + 1
                ));
            }
        }
        advice.extend(unused(&self.policies));
        for policy in &self.policies.all {
            if Consistency::named(&policy.name).is_some_and(|named| named != policy.consistency) {
                let level = policy.consistency.name();
                advice.push(format!("policy `{}` is {level}, which is not what it is called", policy.name));
            }
        }
        advice
    }
}

/// Why no read of this command takes a route.
fn idle(table: &CommandTable, name: &str) -> Option<String> {
    if !names::may_exist(table, name) {
        let help = names::meant(table, name).map_or_else(String::new, |help| format!(" ({help})"));
        return Some(format!("is no command of Redis{help}"));
    }
    let sub = |known: &&str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('|'));
    let words = |name: &str| name.split('|').map(str::to_owned).collect::<Vec<String>>();
    let subcommands = names::all(table).filter(sub).map(words);
    let mut accesses =
        std::iter::once(words(name)).chain(subcommands).map(|args| table.classify(&args[..]).access);
    let first = accesses.next()?;
    if matches!(first, Access::Read | Access::Unknown) || accesses.any(|access| access == Access::Read) {
        return None;
    }
    let what =
        if matches!(first, Access::Write { .. }) { "writes" } else { "is answered by the primary only" };
    Some(format!("{what}: a policy is for what a replica may answer"))
}

fn takes_everything(route: &Route) -> bool {
    let Route { commands, keys, users, client_names, policy: _ } = route;
    [commands, keys, users, client_names].iter().all(|list| list.is_empty())
}

/// Policies that no listener and no route names.
fn unused(policies: &Policies) -> impl Iterator<Item = String> {
    let named = |place: usize| {
        let is = |id: &PolicyId| id.index() == place;
        policies.listeners.iter().any(is) || policies.routes.iter().any(|route| is(&route.policy))
    };
    let defined = policies.all.iter().enumerate().filter(|(_, policy)| policy.name != DEFAULT);
    let unused = defined.filter(move |(place, _)| !named(*place));
    unused.map(|(_, policy)| format!("policy `{}` is named by no [[listen]] and no [[route]]", policy.name))
}
