//! Which proxy a request goes through, as curl and Python's requests decide it.

use std::net::IpAddr;

/// The proxies that requests go through; by default none.
///
/// `HTTPS_PROXY` is for https, `HTTP_PROXY` for http, `ALL_PROXY` for what has none of its own; names in
/// lower case count before those in upper case. `NO_PROXY` lists, separated by commas, what is asked
/// directly: a host name with everything below it, an address, a block of addresses (`10.0.0.0/8`), each
/// perhaps with a port, or `*` for everything.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<String>,
    http: Option<String>,
    all: Option<String>,
    /// The entries of `NO_PROXY`, in lower case.
    bypass: Vec<String>,
}

impl Proxies {
    /// The proxies that the environment names.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| {
            let value = variable(&name.to_lowercase()).or_else(|| variable(name))?;
            Some(value.trim().to_string()).filter(|value| !value.is_empty())
        };
        let bypass = set("NO_PROXY").unwrap_or_default();
        Self {
            https: set("HTTPS_PROXY"),
            http: set("HTTP_PROXY"),
            all: set("ALL_PROXY"),
            bypass: bypass.split(',').map(|entry| entry.trim().to_lowercase()).filter(|e| !e.is_empty()).collect(),
        }
    }

    /// The address of the proxy for a host, if there is one.
    pub(super) fn of(&self, scheme: &str, host: &str, port: u16) -> Option<&str> {
        let own = if scheme == "https" { &self.https } else { &self.http };
        let proxy = own.as_deref().or(self.all.as_deref())?;
        let host = host.trim_matches(['[', ']']).to_lowercase();
        (!self.bypass.iter().any(|entry| covers(entry, &host, port))).then_some(proxy)
    }
}

/// Whether an entry of `NO_PROXY` is about that host.
fn covers(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some(subnet), Ok(address)) = (Subnet::parse(entry), host.parse::<IpAddr>()) {
        return subnet.contains(address);
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
        _ => (entry, None),
    };
    let name = name.trim_matches(['[', ']']).trim_start_matches('*').trim_start_matches('.');
    let below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    below && !name.is_empty() && wanted.is_none_or(|wanted: u16| wanted == port)
}

/// A block of addresses: those that share the first `prefix_length` bits.
struct Subnet {
    address: IpAddr,
    prefix_length: u32,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        Some(Self { address: address.parse().ok()?, prefix_length: length.parse().ok()? })
    }

    fn contains(&self, other: IpAddr) -> bool {
        let length = self.prefix_length;
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= length.min(32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= length.min(128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let some = proxies(&[("HTTPS_PROXY", "http://one:3128"), ("http_proxy", "two"), ("HTTP_PROXY", "three")]);
        assert_eq!(some.of("https", "hub.example", 443), Some("http://one:3128"));
        assert_eq!(some.of("http", "hub.example", 80), Some("two"));
        let all = proxies(&[("ALL_PROXY", "socks5h://four:1080"), ("HTTPS_PROXY", " ")]);
        assert_eq!(all.of("https", "hub.example", 443), Some("socks5h://four:1080"));
        assert_eq!(proxies(&[]).of("https", "hub.example", 443), None);
    }

    #[test]
    fn what_is_asked_directly() {
        let list = "localhost, .corp.example,mirror.example:8080,10.0.0.0/8,fd00::/8,192.168.1.5,[::1]:99";
        let some = proxies(&[("ALL_PROXY", "proxy:3128"), ("NO_PROXY", list)]);
        let direct = |host: &str, port| some.of("https", host, port).is_none();
        for (host, port) in [
            ("localhost", 1),
            ("LOCALHOST", 1),
            ("corp.example", 443),
            ("hub.corp.example", 443),
            ("mirror.example", 8080),
            ("10.1.2.3", 443),
            ("[fd12::1]", 443),
            ("192.168.1.5", 443),
            ("[::1]", 99),
        ] {
            assert!(direct(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("notlocalhost", 1),
            ("example", 443),
            ("mirror.example", 443),
            ("11.1.2.3", 443),
            ("[fe80::1]", 443),
            ("192.168.1.50", 443),
            ("[::1]", 98),
        ] {
            assert!(!direct(host, port), "{host}:{port}");
        }
        assert!(proxies(&[("ALL_PROXY", "proxy"), ("no_proxy", "*")]).of("http", "any", 80).is_none());
    }
}
