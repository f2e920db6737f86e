//! What a request holds.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use condo::vps::record::name::Name;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::reply::{Problem, etag};

/// The longest body that is JSON, in bytes.
pub(crate) const MOST: usize = 4 << 20;

/// How long a client may take for a body.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The project there always is.
pub(crate) const DEFAULT: &str = "default";

/// The part of the address after `?`.
#[derive(Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl From<Vec<(String, String)>> for Params {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Params {
    /// A parameter, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// How deep objects are shown: as addresses (0), whole (1), with state and snapshots (2).
    pub(crate) fn recursion(&self) -> u8 {
        self.get("recursion").and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Whether it is about the VPSs of all projects.
    pub(crate) fn all_projects(&self) -> bool {
        self.get("all-projects") == Some("true")
    }

    /// The project it is about.
    pub(crate) fn project(&self) -> &str {
        self.get("project").unwrap_or(DEFAULT)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = query.map_err(|e| Problem::bad(format!("the query cannot be read: {e}")))?;
        Ok(pairs.into())
    }
}

/// A body that is JSON, whatever its `Content-Type` says, which Ansible leaves out.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state))
            .await
            .map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?
            .map_err(|e| Problem::of_status(e.status(), &e.body_text()))?;
        json(&bytes).map(Self)
    }
}

/// A body's JSON. Clients write `null` for what they leave out.
pub(crate) fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let read = serde_json::from_slice::<Value>(text).and_then(|mut value| {
        leave_out_nulls(&mut value);
        serde_json::from_value(value)
    });
    read.map_err(|e| Problem::bad(format!("the body is not the JSON that was expected: {e}")))
}

fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// Refuses a value for something that there is no place for; `problem` says so.
pub(crate) fn must_be_empty(field: &str, value: &str, problem: &str) -> Result<(), Problem> {
    match value.is_empty() {
        true => Ok(()),
        false => Err(Problem::value(field, value, problem)),
    }
}

/// A VPS's name out of an address.
pub(crate) fn name(text: &str) -> Result<Name, Problem> {
    // What can be no name is nobody's.
    text.parse().map_err(|_| Problem::missing("Instance", text))
}

/// Refuses a change of something that is not any more what whoever asks has read.
pub(crate) fn unchanged(headers: &HeaderMap, now: &Value) -> Result<(), Problem> {
    let Some(wanted) = headers.get(header::IF_MATCH) else {
        return Ok(());
    };
    let wanted = wanted.to_str().unwrap_or_default().trim();
    if wanted == "*" || wanted.trim_matches('"') == etag(now) {
        return Ok(());
    }
    Err(Problem::changed())
}
