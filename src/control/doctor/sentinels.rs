//! Whom the sentinels name, and by which number of their configuration.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use redis_protocol::resp2::types::BytesFrame;

use crate::config::Sentinel as Settings;
use crate::control::doctor::ward::Access;
use crate::core::address::Address;
use crate::core::diagnose::seen::SentinelSeen;
use crate::net::socket::call::{ControlError, ControlLink, words};
use crate::net::socket::dial::Dialer;
use crate::wire::sentinel;

/// The sentinels, with a connection to each.
pub(super) struct Sentinels {
    dialer: Dialer,
    links: BTreeMap<Address, ControlLink>,
}

/// What one of them says: the number, the primary and its replicas, as they are announced.
type Word = (u64, Address, Vec<Address>);

impl Sentinels {
    pub(super) const fn new(dialer: Dialer) -> Self {
        Self { dialer, links: BTreeMap::new() }
    }

    /// Asks all of them at once. None, where there are none.
    pub(super) async fn ask(
        &mut self,
        settings: Option<&Settings>,
        map: &BTreeMap<Address, Address>,
        access: &Access,
    ) -> Vec<SentinelSeen> {
        let seen = self.ask_all(settings, access).await.into_iter().map(|(address, word)| {
            let sentinel = address.to_string();
            match word {
                Ok((epoch, names, _)) => SentinelSeen {
                    sentinel,
                    problem: None,
                    epoch: Some(epoch),
                    names: Some(map.get(&names).unwrap_or(&names).to_string()),
                },
                Err(problem) => {
                    SentinelSeen { sentinel, problem: Some(problem.to_string()), ..SentinelSeen::default() }
                }
            }
        });
        seen.collect()
    }

    /// The nodes that they list, the primary of the newest configuration first, by the addresses by which they are reached.
    pub(super) async fn list(
        &mut self,
        settings: &Settings,
        map: &BTreeMap<Address, Address>,
        access: &Access,
    ) -> Vec<Address> {
        let words = self.ask_all(Some(settings), access).await.into_iter().filter_map(|(_, word)| word.ok());
        let newest = words.max_by_key(|(epoch, ..)| *epoch);
        let all =
            newest.into_iter().flat_map(|(_, primary, replicas)| std::iter::once(primary).chain(replicas));
        all.map(|address| map.get(&address).cloned().unwrap_or(address)).collect()
    }

    async fn ask_all(
        &mut self,
        settings: Option<&Settings>,
        access: &Access,
    ) -> Vec<(Address, Result<Word, ControlError>)> {
        let Some(settings) = settings else { return Vec::new() };
        let asked = settings.addresses.iter().map(|address| {
            let link = self.links.remove(address);
            let dialer = &self.dialer;
            async move {
                let (link, word) = ask(link, dialer, address, settings, access).await;
                (address.clone(), link, word)
            }
        });
        let heard = join_all(asked).await;
        let mut all = Vec::new();
        for (address, link, word) in heard {
            if let Some(link) = link {
                self.links.insert(address.clone(), link);
            }
            all.push((address, word));
        }
        all
    }
}

/// Asks one, over the connection that there is, or a new one. The connection comes back if it is still good.
async fn ask(
    link: Option<ControlLink>,
    dialer: &Dialer,
    address: &Address,
    settings: &Settings,
    access: &Access,
) -> (Option<ControlLink>, Result<Word, ControlError>) {
    let mut link = match link {
        Some(link) => link,
        None => match ControlLink::connect(dialer, address, settings.credentials().as_ref(), access.connect)
            .await
        {
            Ok(link) => link,
            Err(problem) => return (None, Err(problem)),
        },
    };
    let name = settings.master_name.as_bytes();
    let questions: [&[&[u8]]; 3] = [
        &[b"SENTINEL", b"MASTER", name],
        &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name],
        &[b"SENTINEL", b"REPLICAS", name],
    ];
    let word = match link.call_many(&questions, access.answer).await {
        Ok(answers) => word(&answers),
        Err(problem) => Err(problem),
    };
    let is_good = word.as_ref().err().is_none_or(|problem| !problem.is_fatal());
    (is_good.then_some(link), word)
}

fn word(answers: &[BytesFrame]) -> Result<Word, ControlError> {
    let [primary, address, replicas] = answers else { return Err(ControlError::Closed) };
    if let BytesFrame::Error(text) = primary {
        return Err(ControlError::Refused(words(text)));
    }
    let malformed = |problem: sentinel::SentinelError| ControlError::Malformed(problem.to_string());
    let (epoch, shown) = sentinel::primary(primary).map_err(malformed)?;
    // In the middle of a failover only this tells the new one.
    let named = sentinel::address(address).unwrap_or(shown);
    let listed = sentinel::replicas(replicas).unwrap_or_default();
    // One that is down is to be found so.
    let announced = listed.into_iter().filter(|replica| !replica.unannounced);
    Ok((epoch, named, announced.filter_map(|replica| replica.address).collect()))
}
