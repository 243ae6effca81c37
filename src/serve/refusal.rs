//! What is said where a request is not answered: OpenAI's error object.

use crate::error::Error;
use axum::http::{header, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{json, Value};

/// Seconds after which a client may ask again where all places are taken.
const RETRY_AFTER: &str = "1";

/// A request that is not answered, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A field that is not what was expected.
    pub(super) fn field(param: impl Into<String>, expected: &str, found: &str) -> Self {
        let param = param.into();
        Refusal {
            message: format!("{param}: expected {expected}, found {found}"),
            param: Some(param),
            ..Refusal::new(StatusCode::BAD_REQUEST, "")
        }
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.message += "; hint: ";
        self.message += hint;
        self
    }

    /// An error of the house's, in one line: the request's own, at `param`, or the server's.
    pub(super) fn of(error: &Error, param: Option<&str>) -> Self {
        let status = match param {
            Some(_) => StatusCode::BAD_REQUEST,
            None => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal {
            param: param.map(str::to_owned),
            ..Refusal::new(status, error.to_string().replace("\n  hint: ", "; hint: "))
        }
    }

    pub(super) fn stopping() -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping").code("stopping")
    }

    pub(super) fn full() -> Self {
        let message = "as many requests as may wait are waiting: ask again later";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, message).code("queue_full")
    }

    pub(super) fn late(seconds: u64) -> Self {
        let message = format!("no answer within {seconds} s");
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, message).code("timeout")
    }

    /// `{"error": {…}}`
    pub(super) fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            s if s.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let body = self.body().to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], body).into_response();
        let more = match self.status {
            StatusCode::TOO_MANY_REQUESTS => Some((header::RETRY_AFTER, RETRY_AFTER)),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        if let Some((name, value)) = more {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
