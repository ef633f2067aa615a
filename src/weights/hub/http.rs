//! One request to the hub, along its redirects to where the content lies.
//!
//! Redirects are followed here and not by ureq, so that an error can name the host that made it, and
//! the token goes to the hub's own host only.

use std::cell::Cell;
use std::io::Read;
use std::time::Duration;

use ureq::config::IpFamily;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION};
use ureq::http::uri::{PathAndQuery, Scheme};
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use super::fault::{CONNECT, Fault, Peer, RESOLVE, without_secrets};
use super::proxy::Proxies;

/// How long the first attempt waits for a server to begin its answer; each further one waits twice as long,
/// up to the limit on silence. A proxy that looks for viruses may take its time.
const ANSWER: Duration = Duration::from_secs(10);
/// Redirects in a row that are followed; browsers stop at 20.
const REDIRECTS: usize = 10;
/// A server that wants a longer pause than this is not waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Asks the hub for files.
pub struct Client {
    /// The header that says who asks, for the hub's own host.
    authorization: Option<String>,
    /// A connection that delivers nothing for so long is given up.
    silence: Duration,
    proxies: Proxies,
    /// Set once the system turned out to have no certificates of authorities, as bare containers have
    /// none: then Mozilla's, which are compiled in, have to do.
    bundled_roots: Cell<bool>,
}

/// The content of a file, or the rest of it.
pub struct Answer {
    pub from: Peer,
    /// Where in the file it begins.
    pub start: u64,
    body: Box<dyn Read>,
    silence: Duration,
}

impl Client {
    pub fn new(authorization: Option<String>, proxies: Proxies, silence: Duration) -> Self {
        Self { authorization, silence, proxies, bundled_roots: Cell::new(false) }
    }

    /// Asks, for the `attempt`th time from 1, for the bytes of a file of `size` bytes from `start` on. The
    /// server may begin at 0 all the same.
    pub fn open(&self, url: &str, start: u64, size: u64, attempt: u32) -> Result<Answer, Fault> {
        let patience = self.silence.min(ANSWER * 2u32.saturating_pow(attempt - 1));
        let mut uri: Uri = url.parse().map_err(|error| Fault::Final(format!("{url} is not an address ({error})")))?;
        let home = origin(&uri);
        let range = (start > 0).then(|| format!("bytes={start}-{}", size - 1));
        for _ in 0..=REDIRECTS {
            let peer = self.peer(&uri, &home);
            let response = self.request(&uri, &peer, range.as_deref(), patience)?;
            let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
            let status = response.status();
            let host = &peer.host;
            if status.is_redirection() {
                let location = header(LOCATION).unwrap_or_default();
                uri = follow(&uri, location)
                    .ok_or_else(|| Fault::Final(format!("{host} redirects to `{location}`, which is no address")))?;
                continue;
            }
            if !status.is_success() {
                return Err(self.refused(&peer, &response));
            }
            if header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
                let length = header(CONTENT_LENGTH).map_or(String::new(), |length| format!("{length} bytes of "));
                return Err(Fault::Final(format!(
                    "{host} answers with {length}a web page in place of the file, to log in perhaps: open {url} in a \
                     browser"
                )));
            }
            let begins = match status.as_u16() {
                206 => range_start(header(CONTENT_RANGE), size).ok_or_else(|| {
                    Fault::Final(format!("{host} answers with another part of the file than it was asked for"))
                })?,
                _ => 0,
            };
            if begins > start {
                return Err(Fault::Final(format!("{host} answers with bytes from {begins} on, not from {start}")));
            }
            // Anything else is something else.
            let length = header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
            if let Some(length) = length.filter(|length| *length != size - begins) {
                return Err(Fault::Final(format!("{host} answers with {length} bytes, where the file has {size}")));
            }
            let body = Box::new(response.into_body().into_reader());
            return Ok(Answer { from: peer, start: begins, body, silence: self.silence });
        }
        Err(Fault::Final(format!("{} redirects in a circle (more than {REDIRECTS} times)", host(&uri))))
    }

    /// Who is asked for `uri`, by a client of the hub at `home`.
    fn peer(&self, uri: &Uri, home: &str) -> Peer {
        let port = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(port);
        let proxy = self.proxies.of(uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default(), port);
        Peer { host: host(uri), hub: home.into(), is_hub: origin(uri) == home, proxy: proxy.map(String::from) }
    }

    /// One request to one host: over IPv6 or IPv4, and where that does not connect, over IPv4.
    fn request(
        &self,
        uri: &Uri,
        peer: &Peer,
        range: Option<&str>,
        patience: Duration,
    ) -> Result<Response<Body>, Fault> {
        let proxy = match peer.proxy.as_deref().map(Proxy::new).transpose() {
            Ok(proxy) => proxy,
            Err(error) => return Err(Fault::Final(format!("the proxy's address is not valid ({error})"))),
        };
        let mut slow = None;
        let mut family = IpFamily::Any;
        loop {
            let roots = if self.bundled_roots.get() { RootCerts::WebPki } else { RootCerts::PlatformVerifier };
            let agent: Agent = Agent::config_builder()
                .proxy(proxy.clone())
                .ip_family(family)
                .tls_config(TlsConfig::builder().root_certs(roots).build())
                .user_agent(concat!("qlnet/", env!("CARGO_PKG_VERSION")))
                // The bytes are to be those of the file.
                .accept_encoding("identity")
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_resolve(Some(RESOLVE))
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(patience))
                .timeout_per_read(Some(self.silence))
                .timeout_per_write(Some(self.silence))
                .build()
                .into();
            let mut request = agent.get(uri);
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            if let Some(authorization) = self.authorization.as_ref().filter(|_| peer.is_hub) {
                request = request.header("Authorization", authorization);
            }
            let error = match request.call() {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let text = error.to_string();
            if text.contains("No CA certificates") && !self.bundled_roots.get() {
                if let Some(path) = std::env::var_os("SSL_CERT_FILE").or_else(|| std::env::var_os("SSL_CERT_DIR")) {
                    let path = path.display();
                    return Err(Fault::Final(format!(
                        "there are no certificates in {path}, which SSL_CERT_FILE or SSL_CERT_DIR names"
                    )));
                }
                self.bundled_roots.set(true);
            } else if matches!(error, ureq::Error::Timeout(ureq::Timeout::Connect)) && family == IpFamily::Any {
                family = IpFamily::Ipv4Only;
                slow = Some(error);
            } else {
                // A host without IPv4 is not one that does not exist.
                let no_ipv4 = matches!(error, ureq::Error::HostNotFound);
                return Err(Fault::of(slow.filter(|_| no_ipv4).unwrap_or(error), peer, patience));
            }
        }
    }

    /// What a status means that is no success.
    fn refused(&self, peer: &Peer, response: &Response<Body>) -> Fault {
        let Peer { host, hub, is_hub, .. } = peer;
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if matches!(status.as_u16(), 408 | 429) || status.is_server_error() {
            let problem = format!("{host} answers {status}");
            let pause = header("Retry-After").and_then(|text| text.parse().ok()).map(Duration::from_secs);
            return match pause {
                Some(pause) if pause > LONGEST_PAUSE => {
                    Fault::Final(format!("{problem} and asks to come back in {} s", pause.as_secs()))
                }
                _ => Fault::Passing { problem, pause },
            };
        }
        let said =
            header("X-Error-Message").or(header("X-Error-Code")).map_or(String::new(), |text| format!(" ({text})"));
        let advice = match (status.as_u16(), is_hub, &self.authorization) {
            (401, true, Some(_)) => format!(
                ": the token in HF_TOKEN, or that of `hf auth login`, is not valid; get another at \
                 {hub}/settings/tokens, or leave it out (HF_HUB_DISABLE_IMPLICIT_TOKEN=1)"
            ),
            (401, true, None) => {
                format!(": who asks must be known; set HF_TOKEN to a token of {hub}/settings/tokens")
            }
            (403, true, _) => format!(
                ": the terms of the repository must be accepted on its page at {hub}, and HF_TOKEN be set to a token \
                 that may read it"
            ),
            _ => String::new(),
        };
        Fault::Final(format!("{host} refuses, with status {status}{said}{advice}"))
    }
}

impl Answer {
    /// The next bytes; none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.body.read(buffer).map_err(|error| Fault::of(ureq::Error::from(error), &self.from, self.silence))
    }
}

/// `https://host` or `https://host:port`
fn origin(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), host(uri))
}

/// `host` or `host:port`
fn host(uri: &Uri) -> String {
    uri.authority().map_or_else(|| uri.to_string(), |authority| without_secrets(authority.as_str()))
}

/// Where a `Location` leads that stood in the answer to a request to `base` (RFC 3986, section 5).
fn follow(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let has_scheme = location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?']));
    if has_scheme {
        return location.parse().ok().filter(|uri: &Uri| uri.authority().is_some());
    }
    let mut parts = base.clone().into_parts();
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{}://{rest}", base.scheme_str()?).parse().ok();
    }
    let path = if location.starts_with('/') {
        location.to_string()
    } else if location.starts_with('?') {
        format!("{}{location}", base.path())
    } else if location.is_empty() {
        return None;
    } else {
        format!("{}/{location}", base.path().rsplit_once('/')?.0)
    };
    parts.path_and_query = Some(path.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Where `bytes 100-199/200` begins, if it goes to the end of a file of that size.
fn range_start(header: Option<&str>, size: u64) -> Option<u64> {
    let (range, total) = header?.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let whole = total.parse::<u64>().map_or(total == "*", |total| total == size);
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    (whole && start <= end && end.checked_add(1) == Some(size)).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://hub.example/a/b?c".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/x?y=1#z", "https://cdn.example/x?y=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x/y?z", "https://hub.example/x/y?z"),
            ("x", "https://hub.example/a/x"),
            ("?x", "https://hub.example/a/b?x"),
            ("/x?to=https://other.example", "https://hub.example/x?to=https://other.example"),
        ] {
            assert_eq!(follow(&base, location).unwrap().to_string(), expected);
        }
        assert!(follow(&base, "").is_none() && follow(&base, "http://[").is_none());
    }

    #[test]
    fn ranges_must_reach_the_end() {
        assert_eq!(range_start(Some("bytes 100-199/200"), 200), Some(100));
        assert_eq!(range_start(Some("bytes 100-199/*"), 200), Some(100));
        for wrong in [
            "bytes 100-198/200",
            "bytes 100-199/300",
            "bytes */200",
            "100-199/200",
            "bytes x-199/200",
            "bytes 200-199/200",
        ] {
            assert_eq!(range_start(Some(wrong), 200), None, "{wrong}");
        }
        assert_eq!(range_start(None, 200), None);
    }
}
