//! From the tables of a file to [`ListenTls`] and [`UpstreamTls`].

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use super::{ListenTls, Pair, TlsFault, UpstreamTls};
use crate::config::section::Section;
use crate::core::address::Address;

/// `[listen.tls]` of a listener at `address`. Relative paths are looked for in `beside`.
pub(in crate::config) fn listen(
    section: &Section<'_>,
    address: Option<&Address>,
    beside: &Path,
) -> Option<ListenTls> {
    if !section.is_present() {
        return None;
    }
    if let Some(Address::Unix(_)) = address {
        section.fault("", "a Unix socket speaks no TLS: expected a listener at host:port".to_owned(), None);
    }
    let pair = pair(section, beside);
    if !section.has("cert") && !section.has("key") {
        section.fault("cert", "it is missing".to_owned(), None);
    }
    let client_ca = file(section, "client-ca", beside);
    let tls = ListenTls { pair: pair?, client_ca };
    tell(section, tls.faults());
    Some(tls)
}

/// `[upstream.tls]`, for these nodes.
pub(in crate::config) fn upstream(
    section: &Section<'_>,
    nodes: &[&Address],
    beside: &Path,
) -> Option<UpstreamTls> {
    if !section.is_present() {
        return None;
    }
    let name = section.text("server-name");
    let server_name = name.as_ref().and_then(|at| ServerName::try_from(at.value.clone()).ok());
    if let Some(at) = name.filter(|_| server_name.is_none()) {
        section.fault_at(&at, format!("expected a host name or an IP address, found {:?}", at.value), None);
    }
    for node in nodes {
        match node {
            Address::Unix(_) => {
                let message = format!("{node} cannot be reached by TLS: expected all nodes at host:port");
                section.fault("", message, None);
            }
            Address::Tcp { host, .. } if !section.has("server-name") => {
                if ServerName::try_from(host.as_str()).is_err() {
                    let message = format!("expected a name, because no certificate can be for {host}");
                    section.fault("server-name", message, None);
                }
            }
            Address::Tcp { .. } => {}
        }
    }
    let tls = UpstreamTls { ca: file(section, "ca", beside), pair: pair(section, beside), server_name };
    tell(section, tls.faults());
    Some(tls)
}

fn pair(section: &Section<'_>, beside: &Path) -> Option<Pair> {
    let (cert, key) = (file(section, "cert", beside), file(section, "key", beside));
    for (one, other, what) in [("cert", "key", "a certificate needs"), ("key", "cert", "a key needs")] {
        if section.has(one) && !section.has(other) {
            section.fault(one, format!("`{other}` is missing: {what} its `{other}`"), None);
        }
    }
    Some(Pair { cert: cert?, key: key? })
}

fn file(section: &Section<'_>, key: &str, beside: &Path) -> Option<PathBuf> {
    section.text(key).map(|at| beside.join(at.value))
}

fn tell(section: &Section<'_>, faults: Vec<TlsFault>) {
    for TlsFault { key, message } in faults {
        section.fault(key, message, None);
    }
}
