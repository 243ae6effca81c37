//! The proxy that the environment names, as curl reads it.

use super::endpoint::Endpoint;
use crate::error::{Error, Result};
use ureq::Proxy;

/// Of the address's scheme, else for all; none for hosts of `NO_PROXY`.
///
/// # Errors
/// A variable that holds no proxy's address; its value may hold a password and is not told.
pub(super) fn of_environment(endpoint: &Endpoint) -> Result<Option<Proxy>> {
    choose(endpoint, |name| {
        std::env::var(name).ok().filter(|v| !v.trim().is_empty())
    })
}

fn choose(endpoint: &Endpoint, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    let except = ["no_proxy", "NO_PROXY"].iter().find_map(|n| variable(n));
    if except.is_some_and(|list| excepted(endpoint.name(), &list)) {
        return Ok(None);
    }
    let names: &[&str] = match endpoint.is_secure() {
        true => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        false => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let Some((name, address)) = names.iter().find_map(|n| Some((*n, variable(n)?))) else {
        return Ok(None);
    };
    let proxy = Proxy::new(address.trim()).map_err(|_| {
        Error::data(
            name,
            "proxy",
            "the address of an HTTP proxy: http://HOST:PORT",
            "another one",
        )
    })?;
    Ok(Some(proxy))
}

/// Whether a host is named by a list: itself, a domain that it lies in, or `*`.
fn excepted(host: &str, list: &str) -> bool {
    list.split([',', ' '])
        .map(str::trim)
        .filter(|e| !e.is_empty())
        .any(|entry| {
            let entry = entry
                .trim_start_matches("*.")
                .trim_start_matches('.')
                .to_ascii_lowercase();
            entry == "*"
                || host == entry
                || host.trim_matches(['[', ']']) == entry
                || host.ends_with(&format!(".{entry}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_proxy() {
        let of = |address: &str, set: &[(&str, &str)]| {
            let endpoint = Endpoint::parse(address).unwrap();
            let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            choose(&endpoint, variable).map(|p| p.map(|p| p.host().to_owned()))
        };
        let set = [
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "http://p:1"),
            ("NO_PROXY", "localhost, .in.org,10.0.0.1"),
        ];
        assert_eq!(of("https://a.org/v1", &set).unwrap().as_deref(), Some("s"));
        assert_eq!(of("http://a.org/v1", &set).unwrap().as_deref(), Some("p"));
        for own in [
            "http://localhost:8000",
            "https://x.in.org",
            "https://in.org",
            "http://10.0.0.1:5",
        ] {
            assert_eq!(of(own, &set).unwrap(), None, "{own}");
        }
        assert_eq!(of("https://begin.org", &set).unwrap().as_deref(), Some("s"));
        assert_eq!(
            of("http://a", &[("ALL_PROXY", "http://q:9")]).unwrap().as_deref(),
            Some("q")
        );
        assert_eq!(
            of("http://a", &[("ALL_PROXY", "http://q:9"), ("no_proxy", "*")]).unwrap(),
            None
        );
        assert_eq!(of("http://a", &[]).unwrap(), None);
        let e = of("http://a", &[("http_proxy", "nonsense://u:secret@h")])
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("http_proxy: ") && !e.contains("secret"), "{e}");
    }
}
