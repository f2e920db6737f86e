//! People at browsers: a link, good once, brings a session, which a cookie proves from then on.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use condo::error::Result;
use condo::vps::record::instance::Condo;
use serde::{Deserialize, Serialize};

use super::Reach;
use super::secrets::{self, Projects, must_exist, reach_of};

const LINK: (&str, Duration) = ("ui-link", Duration::from_secs(10 * 60));
const SESSION: (&str, Duration) = ("ui-session", LASTS);
/// How long somebody stays logged in.
const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Browsers keep a cookie with this beginning for this host alone, and over TLS alone (RFC 6265bis, 4.1.3).
const COOKIE: &str = "__Host-condo";

#[derive(Debug, Serialize, Deserialize)]
struct Person {
    projects: Projects,
}

/// The secret of a new link, for somebody who is trusted with these projects.
pub(super) fn link(condo: &Condo, projects: Projects) -> Result<String> {
    must_exist(condo, &projects)?;
    Ok(secrets::give(condo, LINK, Person { projects })?.secret)
}

/// The cookie of a new session, for whoever brings a link that is good.
pub(crate) fn begin(condo: &Condo, link: &str) -> Result<Option<String>> {
    let Some(person) = secrets::take::<Person>(condo, LINK.0, link)? else {
        return Ok(None);
    };
    let secret = secrets::give(condo, SESSION, person)?.secret;
    Ok(Some(cookie(&secret, LASTS)))
}

/// Ends a session; the cookie that makes the browser forget it.
pub(crate) fn end(condo: &Condo, secret: &str) -> Result<String> {
    secrets::forget(condo, SESSION.0, secret)?;
    Ok(cookie("", Duration::ZERO))
}

fn cookie(value: &str, lasts: Duration) -> String {
    let seconds = lasts.as_secs();
    format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}")
}

/// The session that a request says it belongs to.
pub(crate) fn named(headers: &HeaderMap) -> Option<String> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned())
}

/// How far whoever has this session is trusted.
pub(super) fn reach(condo: &Condo, secret: &str) -> Result<Reach> {
    let person = secrets::look::<Person>(condo, SESSION.0, secret)?;
    Ok(person.map_or(Reach::Nothing, |person| reach_of(person.projects)))
}

/// Whether a request that changes something, or opens a stream, was made by our own pages. A browser sends the cookie along with what
/// other pages of the same site (another port of this host) have it ask.
pub(super) fn is_of_our_pages(request: &Request) -> bool {
    let headers = request.headers();
    let looks =
        matches!(*request.method(), Method::GET | Method::HEAD) && !headers.contains_key(header::UPGRADE);
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let own = text(header::HOST).map(|host| format!("https://{host}"));
    looks || (own.is_some() && text(header::ORIGIN) == own.as_deref())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let builder = Request::builder().method(method).uri("/1.0/instances");
        let builder = headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn other_pages_change_nothing() {
        let host = ("host", "one.example:8443");
        assert!(is_of_our_pages(&request("GET", &[host])));
        assert!(is_of_our_pages(&request(
            "POST",
            &[host, ("origin", "https://one.example:8443")]
        )));
        for headers in [
            &[host][..],
            &[host, ("origin", "https://one.example")],
            &[host, ("origin", "http://one.example:8443")],
            &[host, ("origin", "null")],
            &[("origin", "https://one.example:8443")],
        ] {
            assert!(!is_of_our_pages(&request("DELETE", headers)), "{headers:?}");
        }
        let stream = [host, ("upgrade", "websocket"), ("origin", "https://two.example")];
        assert!(!is_of_our_pages(&request("GET", &stream)), "a stream is no look");
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let of = |line: &str| named(request("GET", &[("cookie", line)]).headers());
        assert_eq!(of("a=b; __Host-condo=12; c=d").as_deref(), Some("12"));
        assert_eq!(of("a=b; condo=12"), None);
    }
}
