//! What errors of a connection mean, in words for people.

use std::time::{Duration, SystemTime};

/// How long it may take to connect, TLS included. A host is tried for twice as long: over IPv6 and then over
/// IPv4 alone.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// How long it may take to look a host's name up.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The server that a request goes to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `host` or `host:port`
    pub host: String,
    /// The address of the hub, `https://host`.
    pub hub: String,
    /// Whether this server is the hub, and not the one that keeps the content for it.
    pub is_hub: bool,
    /// The address of the proxy in between, if there is one.
    pub proxy: Option<String>,
}

/// Why a request brought no content, or no more of it.
pub enum RequestError {
    /// Another attempt may succeed, after `retry_after` if the server says how long.
    Transient { problem: String, retry_after: Option<Duration> },
    /// There is no connection to the host.
    Unreachable { host: String, problem: String },
    /// Another attempt would end in the same way.
    Permanent(String),
}

impl Peer {
    /// The host, and the proxy if there is one.
    fn shown(&self) -> String {
        self.by_proxy(&self.host)
    }

    /// The same, and what it is to the hub.
    fn described(&self) -> String {
        if self.is_hub {
            self.by_proxy(&format!("the Hugging Face hub at {}", self.hub))
        } else {
            format!("{}, where {} keeps the content,", self.shown(), self.hub)
        }
    }

    fn by_proxy(&self, host: &str) -> String {
        match &self.proxy {
            Some(proxy) => format!("{host}, through the proxy {}", without_secrets(proxy)),
            None => host.into(),
        }
    }
}

impl RequestError {
    /// What an error of ureq means; `timeout` is how long the answer was waited for.
    pub fn new(error: &ureq::Error, peer: &Peer, timeout: Duration) -> Self {
        let text = error.to_string();
        let text = text.trim_start_matches("io: ");
        let host = peer.shown();
        let transient = |problem| Self::Transient { problem, retry_after: None };
        let unreachable = |problem: String| Self::Unreachable { host: peer.described(), problem };
        match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve) => {
                unreachable(format!("its name was not found within {} s", RESOLVE_TIMEOUT.as_secs()))
            }
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                unreachable(format!("no connection within {} s", 2 * CONNECT_TIMEOUT.as_secs()))
            }
            ureq::Error::Timeout(_) => transient(format!("no answer for {} s from {host}", timeout.as_secs_f64())),
            ureq::Error::HostNotFound => unreachable("there is no host of that name".into()),
            ureq::Error::Io(io) if is_no_connection(io) => unreachable(text.into()),
            // 4xx: another attempt would get the same response.
            ureq::Error::ConnectProxyFailed(_) if !text.contains("responded 4") => {
                transient(format!("no way to {host}: {text}"))
            }
            ureq::Error::ConnectProxyFailed(_) | ureq::Error::InvalidProxyUrl => {
                Self::Permanent(format!("no way to {host}: {text}{}", proxy_advice(text, &peer.hub)))
            }
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
                Self::Permanent(format!("{host} cannot be asked ({text}); look at HF_ENDPOINT and HF_TOKEN"))
            }
            _ if text.contains("certificate") => Self::Permanent(certificate_problem(text, &host)),
            // In the words of ureq's SOCKS client.
            _ if text.contains("acceptable auth") || text.contains("password authentication") => {
                Self::Permanent(format!("no way to {host}: {text}{WANTS_PASSWORD}"))
            }
            _ => transient(format!("the connection to {host} broke ({text})")),
        }
    }
}

/// Whether there was no connection at all: the name is not known, there is no route, or no server listens.
fn is_no_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
    // Names that are not found have no kind of their own. WSAHOST_NOT_FOUND to WSANO_DATA.
    let windows = cfg!(windows) && error.raw_os_error().is_some_and(|code| (11001..=11004).contains(&code));
    matches!(error.kind(), AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable)
        || windows
        || error.to_string().contains("failed to lookup address")
}

const WANTS_PASSWORD: &str = "; it wants a name and a password, as in HTTPS_PROXY=http://NAME:PASSWORD@proxy:3128";

fn proxy_advice(text: &str, hub: &str) -> &'static str {
    if text.contains("407") {
        WANTS_PASSWORD
    } else if hub.starts_with("http:") {
        "; it may allow tunnels for https alone: name the host in NO_PROXY, or have an https address in HF_ENDPOINT"
    } else {
        ""
    }
}

/// What a certificate that is not accepted most likely means. rustls says it in words alone.
fn certificate_problem(text: &str, host: &str) -> String {
    if text.contains("expired") || text.contains("not valid yet") || text.contains("NotValidYet") {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A mean year of the Gregorian calendar.
        let year = 1970 + now.as_secs() / 31_556_952;
        let when = if text.contains("expired") { "has expired" } else { "is not valid yet" };
        format!(
            "the certificate of {host} {when} by this machine's clock, which is in the year {year}: if that is wrong, \
             set it"
        )
    } else if text.contains("UnknownIssuer") {
        let advice = if cfg!(target_os = "linux") {
            "name its certificate with SSL_CERT_FILE=ca.pem"
        } else {
            "install its certificate in the system"
        };
        format!(
            "the certificate of {host} is signed by an authority that this machine does not know: if a proxy or \
             mirror of your organisation is in between, {advice}"
        )
    } else {
        format!("{host} does not prove that it is who it should be ({text})")
    }
}

/// An address without the name and password that may stand in it.
pub fn without_secrets(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { rest.into() } else { format!("{scheme}://{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        assert_eq!(without_secrets("http://me:pass@proxy:3128"), "http://proxy:3128");
        assert_eq!(without_secrets("hub.example:8443"), "hub.example:8443");
    }
}
