//! One exchange over HTTP.

use super::endpoint::Endpoint;
use super::key::Key;
use super::proxy;
use super::retry::retry_after;
use crate::error::{Error, Result};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};
use ureq::http::HeaderMap;
use ureq::tls::{parse_pem, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

/// How long is waited for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOuts {
    /// For its name and a connection.
    pub connect: Duration,
    /// From the request to the first line of the answer: a model may think for long.
    pub first: Duration,
    /// From the beginning to the last byte.
    pub total: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        TimeOuts {
            connect: Duration::from_secs(10),
            first: Duration::from_secs(300),
            total: Duration::from_secs(600),
        }
    }
}

/// What came of an exchange.
pub(super) enum Met {
    Reply(Reply),
    /// The answer is larger than an answer may be.
    TooLarge,
    /// The server has not got the request.
    NotReached(String),
    /// It may have got it, and broke off.
    Broken(String),
    /// It cannot be spoken with.
    Never(String),
}

pub(super) struct Reply {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub location: Option<String>,
    pub body: Vec<u8>,
}

pub(super) struct Wire {
    agent: Agent,
    bearer: Option<String>,
    most: u64,
}

impl Wire {
    pub(super) fn new(
        endpoint: &Endpoint,
        key: Option<&Key>,
        times: TimeOuts,
        most: u64,
        at_once: usize,
    ) -> Result<Self> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A key must not go where nobody has sent it.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::of_environment(endpoint)?)
            .user_agent(concat!("af2/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(times.connect))
            .timeout_recv_response(Some(times.first))
            .timeout_global(Some(times.total))
            .max_idle_connections(at_once)
            .max_idle_connections_per_host(at_once);
        if endpoint.is_secure() {
            config = config.tls_config(trusted()?);
        }
        Ok(Wire {
            agent: config.build().new_agent(),
            bearer: key.map(Key::bearer),
            most,
        })
    }

    /// Sends JSON and reads what comes back, whatever its status.
    pub(super) fn post(&self, url: &str, body: &[u8]) -> Met {
        let mut request = self
            .agent
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(e) => return failed(&e),
        };
        let status = response.status().as_u16();
        let (retry_after, location) = said(response.headers());
        if response.body().content_length().is_some_and(|n| n > self.most) {
            return Met::TooLarge;
        }
        let mut body = Vec::new();
        match response
            .body_mut()
            .as_reader()
            .take(self.most + 1)
            .read_to_end(&mut body)
        {
            Err(e) => read_failed(&e),
            Ok(n) if n as u64 > self.most => Met::TooLarge,
            Ok(_) => Met::Reply(Reply {
                status,
                retry_after,
                location,
                body,
            }),
        }
    }
}

fn said(headers: &HeaderMap) -> (Option<Duration>, Option<String>) {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let millis = text("retry-after-ms")
        .and_then(|ms| ms.trim().parse().ok())
        .map(Duration::from_millis);
    let wait = millis.or_else(|| retry_after(text("retry-after")?, SystemTime::now()));
    (wait, text("location").map(str::to_owned))
}

fn failed(e: &ureq::Error) -> Met {
    match e {
        ureq::Error::HostNotFound => Met::NotReached("no such host is known".into()),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            Met::NotReached("no connection in time".into())
        }
        ureq::Error::Timeout(_) => Met::Broken("no answer in time".into()),
        ureq::Error::ConnectionFailed => Met::NotReached("no connection".into()),
        ureq::Error::Io(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Met::NotReached(e.to_string()),
            // What rustls does not take: a certificate of a root that is not trusted, or of another name.
            io::ErrorKind::InvalidData => Met::Never(format!(
                "TLS: {e}; SSL_CERT_FILE names the roots that are trusted"
            )),
            _ => Met::Broken(format!("the connection broke off: {e}")),
        },
        ureq::Error::Protocol(e) => Met::Broken(format!("what came back is not HTTP: {e}")),
        ureq::Error::ConnectProxyFailed(_) => Met::Never("the proxy does not connect".into()),
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::TlsRequired => {
            Met::Never(format!("TLS: {e}"))
        }
        e => Met::Never(e.to_string()),
    }
}

fn read_failed(e: &io::Error) -> Met {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match inner {
        Some(ureq::Error::Timeout(_)) => Met::Broken("no whole answer in time".into()),
        _ => Met::Broken(format!("the answer broke off: {e}")),
    }
}

/// The roots of Mozilla's list, or those of the file that `SSL_CERT_FILE` names.
fn trusted() -> Result<TlsConfig> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty()) else {
        return Ok(TlsConfig::default());
    };
    let path = Path::new(&path);
    let text = crate::fsutil::read_text_within(path, 16 << 20)?;
    let found = parse_pem(text.as_bytes()).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = found.collect();
    if certificates.is_empty() {
        return Err(Error::data(path, "SSL_CERT_FILE", "certificates in PEM", "none"));
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .build())
}
