//! Browsers are no clients of this API, but pages in them can reach it. A request that looks like
//! one of a page is refused.
//!
//! A page of another origin may send a POST without asking, so a write that names another origin is
//! refused. It may also ask for anything that is no write, and draw conclusions from what it is not
//! shown, so what a browser says is for a page of another site is refused, too. And a page may have
//! the name that it came from resolve to this node ("DNS rebinding"): then the browser takes the
//! node for the page's own server, and `Host` is the page's name. So only names that cannot be
//! owned outside are served, and those that the node was told.

use crate::api::http::answer::Answer;
use crate::api::http::v1::problem::Problem;
use crate::codec::host_of;
use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};
use std::net::Ipv4Addr;

/// What a browser says of where a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Domains that cannot be owned in the public name system.
const PRIVATE_DOMAINS: [&str; 3] = ["localhost", "local", "internal"];
/// No name that is served.
const UNREADABLE: &str = "un.readable";
/// Any name is served.
const ANY: &str = "*";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// `Host` is a name that this node is not served under.
    Misdirected,
    /// A page of another origin writes, or one of another site asks.
    OtherOrigin,
}

impl Refused {
    pub(super) fn answer(self) -> Answer {
        let (status, _, detail) = self.words();
        Answer::message(status, detail)
    }

    /// The same for the versioned API.
    pub(super) fn problem(self) -> Answer {
        let (status, code, detail) = self.words();
        Problem::new(status, code, detail).answer()
    }

    const fn words(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                "this node is not served under the name in the header Host; if it is one of its names, start it with --allow-host",
            ),
            Self::OtherOrigin => (
                StatusCode::FORBIDDEN,
                "other-origin",
                "a page of another origin may not ask; send the request without a browser",
            ),
        }
    }
}

/// The refusal of a request that a browser may have been tricked into; `None` for any other.
pub(super) fn refuse(head: &Parts, hosts: &[String]) -> Option<Refused> {
    let Parts { method, headers, .. } = head;
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(UNREADABLE));
    // HTTP/2 says it here, and HTTP/1 may. Where both are there, both have to be ours.
    let authority = head.uri.authority().map(Authority::as_str);
    if [host, authority].into_iter().flatten().any(|host| !is_served(host, hosts)) {
        return Some(Refused::Misdirected);
    }
    let host = authority.or(host);
    let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
    let same_site = matches!(site, None | Some(b"same-origin" | b"none"));
    if same_site && (method == Method::GET || method == Method::HEAD) {
        return None;
    }
    let same_origin = headers.get(ORIGIN).is_none_or(|origin| {
        let authority =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
        authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    });
    (!same_site || !same_origin).then_some(Refused::OtherOrigin)
}

/// Whether a request for `host` (`name`, `name:port`, an address) is one for this node.
fn is_served(host: &str, hosts: &[String]) -> bool {
    if host.starts_with('[') {
        return true;
    }
    let name = host_of(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    // A name of one label belongs to the machine, the network or the container. It cannot be owned
    // outside.
    if !name.contains('.') || name.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let domain = name.rsplit_once('.').map_or(name, |(_, domain)| domain);
    PRIVATE_DOMAINS.iter().any(|private| domain.eq_ignore_ascii_case(private))
        || hosts.iter().any(|known| known == ANY || known.eq_ignore_ascii_case(name))
}
