//! Where a server is.

use crate::error::{Error, Result};
use ureq::http::Uri;

/// A server's address up to `/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    secure: bool,
    /// With the port, where one is named.
    host: String,
    /// Without the slash at its end.
    path: String,
}

impl Endpoint {
    /// Reads `http://HOST:PORT/v1` or `https://…`. An address without a path gets `/v1`; one of `…/chat/completions` is cut to what
    /// stands before it.
    ///
    /// # Errors
    /// Another scheme, no host, a name and password, a query: keys do not belong into addresses, which are shown.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |found: &str| {
            let e = Error::usage(format!(
                "expected an address such as http://127.0.0.1:8000/v1, found {found}"
            ));
            e.hint("the part before /chat/completions; keys come from the environment or a file")
        };
        let text = text.trim();
        let uri: Uri = text.parse().map_err(|_| wrong("another text"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("one that begins neither with http:// nor with https://")),
        };
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        if authority.contains('@') {
            return Err(wrong("one with a name or a key before the host"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(wrong("one with something behind `?` or `#`"));
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err(wrong("one without a host"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/chat/completions").unwrap_or(path);
        Ok(Endpoint {
            secure,
            host: authority.to_ascii_lowercase(),
            path: if path.is_empty() { "/v1" } else { path }.to_owned(),
        })
    }

    /// Host and port, as they were named.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without its port.
    pub(super) fn name(&self) -> &str {
        let bracketed = self.host.find(']').map_or(0, |at| at + 1);
        let port = self.host[bracketed..].find(':').map(|at| bracketed + at);
        &self.host[..port.unwrap_or(self.host.len())]
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether a key sent there can be read on the way.
    pub fn is_open(&self) -> bool {
        let own = self.name() == "localhost" || self.name() == "[::1]" || self.name().starts_with("127.");
        !self.secure && !own
    }

    /// Where chat completions are asked for.
    pub(super) fn chat(&self) -> String {
        format!("{}{}/chat/completions", self.origin(), self.path)
    }

    fn origin(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }

    /// The address that a redirect leads to, where it is this server's.
    pub(super) fn within(&self, location: &str) -> Option<String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(self.origin() + location);
        }
        let uri: Uri = location.parse().ok()?;
        let same = uri.scheme_str() == Some(if self.secure { "https" } else { "http" })
            && uri.authority()?.as_str().eq_ignore_ascii_case(&self.host);
        same.then(|| location.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        for (text, chat) in [
            (
                "http://127.0.0.1:8000/v1",
                "http://127.0.0.1:8000/v1/chat/completions",
            ),
            (
                "http://127.0.0.1:8000",
                "http://127.0.0.1:8000/v1/chat/completions",
            ),
            (
                " https://API.openai.com/v1/ ",
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "https://host/a/b/chat/completions",
                "https://host/a/b/chat/completions",
            ),
            ("http://[::1]:9/v1", "http://[::1]:9/v1/chat/completions"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().chat(), chat);
        }
        for text in [
            "",
            "host",
            "ftp://host/v1",
            "https://",
            "https://user:secret@host/v1",
            "https://host/v1?key=secret",
            "https://host/v1#secret",
            "http://ho st/",
        ] {
            let e = Endpoint::parse(text).unwrap_err();
            assert!(e.exit_code() == 2 && !e.to_string().contains("secret"), "{e}");
        }
    }

    #[test]
    fn a_redirect_stays_with_its_server() {
        let here = Endpoint::parse("http://host:80/v1").unwrap();
        let to = |l: &str| here.within(l);
        assert_eq!(to("/v2/x").as_deref(), Some("http://host:80/v2/x"));
        assert_eq!(to("http://HOST:80/x").as_deref(), Some("http://HOST:80/x"));
        for other in [
            "https://host:80/x",
            "http://host:81/x",
            "//evil/x",
            "http://host.evil:80/x",
            "x",
            "",
        ] {
            assert_eq!(to(other), None, "{other}");
        }
    }

    #[test]
    fn who_can_read_a_key_on_the_way_is_known() {
        for (text, open, name) in [
            ("http://127.0.0.1:1/v1", false, "127.0.0.1"),
            ("http://[::1]:1/v1", false, "[::1]"),
            ("http://localhost", false, "localhost"),
            ("https://a.b", false, "a.b"),
            ("http://a.b:8000", true, "a.b"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.is_open(), endpoint.name()), (open, name));
        }
    }
}
