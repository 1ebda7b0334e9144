//! Names become addresses here, when a connection is made, and only those that may be reached are
//! handed on: what was checked is what is connected to, whatever the name says a moment later.

use std::net::{IpAddr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use super::is_public;

/// Which addresses a client connects to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All: whoever says where requests go may reach them anyway. What the environment says of
    /// proxies holds.
    #[default]
    Anywhere,
    /// Public ones alone, and never by a proxy, which would look names up itself. Each request has a
    /// connection of its own, so each is checked.
    Internet,
}

/// A host that must not be reached.
#[derive(Debug, thiserror::Error)]
#[error("none of its addresses is a public one")]
pub(super) struct NotPublic;

/// The address that stands in a URL instead of a name. It is never looked up, so it must be checked
/// before.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Looks names up as the system does, and keeps public addresses.
pub(super) struct PublicAddresses;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is replaced by that of the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|it| is_public(it.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}
