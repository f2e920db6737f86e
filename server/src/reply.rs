//! Answers: one envelope around everything, and errors in it.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use condo::error::Error;
use condo::image::hex;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::operations::Operation;

/// Headers of an answer beside those of its kind.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// What a request gets.
pub(crate) type Answer = Result<Reply, Problem>;

/// A good answer.
pub(crate) enum Reply {
    /// What was asked for.
    Sync(Value),
    /// The same with the mark of its version, which a change may name (`If-Match`).
    Marked(Value, String),
    /// Something new is there, at this address.
    Created(String),
    /// It goes on in the background.
    Async(Value),
    /// Bytes without an envelope, of a type, with further headers.
    Raw(&'static str, Headers, Body),
    /// What was asked for, with further headers.
    With(Headers, Value),
    /// Anything else.
    Other(Response),
}

impl Reply {
    /// Done, and there is nothing to say.
    pub(crate) fn empty() -> Self {
        Self::Sync(json!({}))
    }

    /// Something as its JSON.
    pub(crate) fn of(value: &impl Serialize) -> Answer {
        Ok(Self::Sync(serde_json::to_value(value).map_err(Error::from)?))
    }

    /// The same, with its mark.
    pub(crate) fn marked(value: &Value, marked: &Value) -> Self {
        Self::Marked(value.clone(), etag(marked))
    }

    /// An operation that was begun.
    pub(crate) fn begun(operation: &Operation) -> Self {
        Self::Async(operation.view())
    }
}

/// The mark of a version: whoever changes what they have read can say so.
pub(crate) fn etag(of: &Value) -> String {
    hex(&Sha256::digest(of.to_string().as_bytes()))
}

/// The envelope of a good answer.
fn envelope(kind: &str, status: &str, code: u16, operation: &str, metadata: &Value) -> Json<Value> {
    Json(json!({
        "type": kind, "status": status, "status_code": code, "operation": operation,
        "error_code": 0, "error": "", "metadata": metadata,
    }))
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let sync = |metadata: &Value| envelope("sync", "Success", 200, "", metadata);
        match self {
            Self::Sync(metadata) => sync(&metadata).into_response(),
            Self::Marked(metadata, mark) => {
                let headers = [(header::ETAG, format!("\"{mark}\""))];
                (headers, sync(&metadata)).into_response()
            }
            Self::Created(location) => {
                let headers = [(header::LOCATION, location)];
                (StatusCode::CREATED, headers, sync(&json!({}))).into_response()
            }
            Self::Async(operation) => {
                let id = operation["id"].as_str().unwrap_or_default();
                let location = format!("/1.0/operations/{id}");
                let body = envelope("async", "Operation created", 100, &location, &operation);
                (StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response()
            }
            Self::Raw(kind, headers, bytes) => {
                with(([(header::CONTENT_TYPE, kind)], bytes).into_response(), headers)
            }
            Self::With(headers, metadata) => with(sync(&metadata).into_response(), headers),
            Self::Other(response) => response,
        }
    }
}

fn with(mut response: Response, headers: Headers) -> Response {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Why there is no good answer.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// The status of the answer, also in its envelope.
    pub(crate) code: StatusCode,
    /// What is wrong, and what would be right.
    pub(crate) text: String,
}

impl Problem {
    fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The request cannot be fulfilled as it is.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// A value in the request cannot be used.
    pub(crate) fn value(field: &str, value: &str, problem: &str) -> Self {
        Error::invalid(field, value, problem).into()
    }

    /// Whoever asks may not.
    pub(crate) fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    /// There is no such thing.
    pub(crate) fn missing(kind: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{kind} `{name}` not found"))
    }

    /// There is such a thing already.
    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, text)
    }

    /// What is to be changed is not any more what it was.
    pub(crate) fn changed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "it has been changed since you read it: read it again (ETag does not match)",
        )
    }

    /// Our own failure.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// An answer of another layer, put into words.
    pub(crate) fn of_status(code: StatusCode, text: &str) -> Self {
        let said = if text.is_empty() {
            code.canonical_reason().unwrap_or("error").to_lowercase()
        } else {
            text.to_owned()
        };
        Self::new(code, said)
    }
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Self::new(status(&e), e.to_string())
    }
}

/// What a failure of the library is in HTTP's terms.
fn status(e: &Error) -> StatusCode {
    match e.root() {
        Error::Invalid { .. } | Error::Status(_) | Error::Unsupported { .. } | Error::Exec { .. } => {
            StatusCode::BAD_REQUEST
        }
        Error::NotFound { .. } | Error::Elsewhere { .. } => StatusCode::NOT_FOUND,
        Error::Exists { .. } => StatusCode::CONFLICT,
        Error::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Json(json!({
            "type": "error", "status": "", "status_code": 0, "operation": "",
            "error_code": self.code.as_u16(), "error": self.text, "metadata": null,
        }));
        (self.code, body).into_response()
    }
}
