//! One request to the hub, along its redirects to the server that has the content.
//!
//! Redirects are followed here and not by ureq, so that an error can name the host that made it, and
//! the token goes to the hub's own host only.

use std::cell::Cell;
use std::io::Read;
use std::time::{Duration, Instant};

use ureq::config::IpFamily;
use ureq::http::uri::{PathAndQuery, Scheme};
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use super::proxy::Proxies;
use super::refusal::page_in_place;
use super::request_error::{CONNECT_TIMEOUT, Peer, RESOLVE_TIMEOUT, RequestError, without_secrets};

/// How long the first attempt waits for a server to begin its response; each further one waits twice as long,
/// up to the read timeout. A proxy that looks for viruses may take its time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A list that comes more slowly than this, in bytes a second, is given up.
const SLOWEST: f64 = 1024.0;
/// Redirects in a row that are followed; browsers stop at 20.
const MAX_REDIRECTS: usize = 10;

/// Asks the hub for the files of a repository.
pub struct Client {
    /// The address of the repository's page, for people.
    pub(super) page: String,
    /// Whether the hub has listed the files that are asked for.
    pub(super) listed: bool,
    /// The value of the header `Authorization`, for the hub's own host.
    pub(super) authorization: Option<String>,
    /// A connection that delivers nothing for so long is given up.
    read_timeout: Duration,
    proxies: Proxies,
    /// Set once the system turned out to have no certificates of authorities, as bare containers have
    /// none: then Mozilla's, which are compiled in, have to do.
    bundled_roots: Cell<bool>,
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    File,
    Listing,
}

/// The content of a file, or the rest of it.
pub struct Content {
    /// The server that sends it.
    pub peer: Peer,
    /// The position in the file of its first byte.
    pub start: u64,
    body: Box<dyn Read>,
    read_timeout: Duration,
}

impl Client {
    pub fn new(
        page: String,
        listed: bool,
        authorization: Option<String>,
        proxies: Proxies,
        read_timeout: Duration,
    ) -> Self {
        Self { page, listed, authorization, read_timeout, proxies, bundled_roots: Cell::new(false) }
    }

    /// Asks, for the `attempt`th time from 1, for the bytes of a file of `size` bytes from `start` on. The
    /// server may begin at 0 all the same.
    pub fn open(&self, url: &str, start: u64, size: u64, attempt: u32) -> Result<Content, RequestError> {
        let range = (start > 0).then(|| format!("bytes={start}-{}", size - 1));
        let (peer, response) = self.follow(Asked::File, url, range.as_deref(), attempt)?;
        self.content(peer, response, start, size)
    }

    /// Asks, for the `attempt`th time from 1, for a list of files: a text of at most `limit` bytes.
    pub fn listing(&self, url: &str, limit: u64, attempt: u32) -> Result<Vec<u8>, RequestError> {
        let (peer, response) = self.follow(Asked::Listing, url, None, attempt)?;
        let expected = content_length(&response);
        let host = &peer.host;
        let (mut text, mut buffer, start) = (Vec::new(), vec![0; 1 << 16], Instant::now());
        let mut body = response.into_body().into_reader().take(limit + 1);
        loop {
            let count = body.read(&mut buffer);
            match count.map_err(|e| RequestError::new(&ureq::Error::from(e), &peer, self.read_timeout))? {
                0 => break,
                count => text.extend_from_slice(&buffer[..count]),
            }
            // Byte after byte, a list could take for ever.
            let elapsed = start.elapsed();
            if elapsed > self.read_timeout && (text.len() as f64) < SLOWEST * elapsed.as_secs_f64() {
                let problem = format!("{host} sent {} bytes of the list in {} s", text.len(), elapsed.as_secs());
                return Err(RequestError::Transient { problem, retry_after: None });
            }
        }
        let count = text.len() as u64;
        if count > limit {
            return Err(RequestError::Permanent(format!("{host} answers with more than {limit} bytes")));
        }
        if let Some(expected) = expected.filter(|expected| *expected != count) {
            let problem = format!("the connection to {host} was cut after {count} of {expected} bytes");
            return Err(RequestError::Transient { problem, retry_after: None });
        }
        Ok(text)
    }

    /// Sends requests along redirects, until there is a response with a status of success.
    fn follow(
        &self,
        asked: Asked,
        url: &str,
        range: Option<&str>,
        attempt: u32,
    ) -> Result<(Peer, Response<Body>), RequestError> {
        let response_timeout = self.read_timeout.min(RESPONSE_TIMEOUT * 2u32.saturating_pow(attempt - 1));
        if url.contains(char::REPLACEMENT_CHARACTER) {
            return Err(RequestError::Permanent(format!("{url} is not an address: HF_ENDPOINT has to be UTF-8")));
        }
        let mut uri: Uri =
            url.parse().map_err(|error| RequestError::Permanent(format!("{url} is not an address ({error})")))?;
        let hub = origin(&uri);
        for _ in 0..=MAX_REDIRECTS {
            let peer = self.peer(&uri, &hub);
            let response = self.request(&uri, &peer, range, response_timeout)?;
            let status = response.status();
            if status.is_success() {
                return match page_in_place(&peer, &response, url, asked) {
                    None => Ok((peer, response)),
                    Some(page) => Err(page),
                };
            } else if !status.is_redirection() {
                return Err(self.refusal(asked, &peer, &response));
            }
            let location = header(&response, "Location").unwrap_or_default();
            uri = resolve(&uri, location).ok_or_else(|| {
                RequestError::Permanent(format!("{} redirects to `{location}`, which is no address", peer.host))
            })?;
        }
        let host = host(&uri);
        Err(RequestError::Permanent(format!("{host} redirects in a circle (more than {MAX_REDIRECTS} times)")))
    }

    /// The server at `uri`, for a client of the hub at `hub`.
    fn peer(&self, uri: &Uri, hub: &str) -> Peer {
        let port = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(port);
        let proxy = self.proxies.of(uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default(), port);
        Peer { host: host(uri), hub: hub.into(), is_hub: origin(uri) == hub, proxy: proxy.map(String::from) }
    }

    /// Sends one request to one host: over IPv6 or IPv4, and where that does not connect, over IPv4.
    fn request(
        &self,
        uri: &Uri,
        peer: &Peer,
        range: Option<&str>,
        response_timeout: Duration,
    ) -> Result<Response<Body>, RequestError> {
        let proxy = match peer.proxy.as_deref().map(Proxy::new).transpose() {
            Ok(proxy) => proxy,
            Err(error) => {
                return Err(RequestError::Permanent(format!("the proxy's address is not valid ({error})")));
            }
        };
        let mut first_error = None;
        let mut family = IpFamily::Any;
        loop {
            let mut request = self.agent(proxy.clone(), family, response_timeout).get(uri);
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
            if error.to_string().contains("No CA certificates") && !self.bundled_roots.get() {
                self.use_bundled_roots()?;
            } else if matches!(error, ureq::Error::Timeout(ureq::Timeout::Connect)) && family == IpFamily::Any {
                family = IpFamily::Ipv4Only;
                first_error = Some(error);
            } else {
                // A host without IPv4 is not one that does not exist.
                let no_ipv4 = matches!(error, ureq::Error::HostNotFound);
                let error = first_error.filter(|_| no_ipv4).unwrap_or(error);
                return Err(RequestError::new(&error, peer, response_timeout));
            }
        }
    }

    /// What makes one connection, and follows no redirect.
    fn agent(&self, proxy: Option<Proxy>, family: IpFamily, response_timeout: Duration) -> Agent {
        let roots = if self.bundled_roots.get() { RootCerts::WebPki } else { RootCerts::PlatformVerifier };
        Agent::config_builder()
            .proxy(proxy)
            .ip_family(family)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("qlnet/", env!("CARGO_PKG_VERSION")))
            // The bytes are to be those of the file.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(RESOLVE_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(response_timeout))
            .timeout_per_read(Some(self.read_timeout))
            .timeout_per_write(Some(self.read_timeout))
            .build()
            .into()
    }

    /// Trusts the authorities that are compiled in from now on, because the system names none.
    ///
    /// # Errors
    /// If the user named some, and they are not there.
    fn use_bundled_roots(&self) -> Result<(), RequestError> {
        if let Some(path) = std::env::var_os("SSL_CERT_FILE").or_else(|| std::env::var_os("SSL_CERT_DIR")) {
            let path = path.display();
            return Err(RequestError::Permanent(format!(
                "there are no certificates in {path}, which SSL_CERT_FILE or SSL_CERT_DIR names"
            )));
        }
        self.bundled_roots.set(true);
        Ok(())
    }

    /// The content that a response with a status of success has, if it is what was asked for.
    fn content(
        &self,
        peer: Peer,
        response: Response<Body>,
        asked_start: u64,
        size: u64,
    ) -> Result<Content, RequestError> {
        let host = &peer.host;
        let start = match response.status().as_u16() {
            206 => range_start(header(&response, "Content-Range"), size).ok_or_else(|| {
                RequestError::Permanent(format!("{host} answers with another part of the file than it was asked for"))
            })?,
            _ => 0,
        };
        if start > asked_start {
            return Err(RequestError::Permanent(format!(
                "{host} answers with bytes from {start} on, not from {asked_start}"
            )));
        }
        // Another length means another file.
        if let Some(length) = content_length(&response).filter(|length| *length != size - start) {
            return Err(RequestError::Permanent(format!(
                "{host} answers with {length} bytes, where the file has {size}"
            )));
        }
        let body = Box::new(response.into_body().into_reader());
        Ok(Content { peer, start, body, read_timeout: self.read_timeout })
    }
}

impl Content {
    /// The next bytes; none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RequestError> {
        let read = self.body.read(buffer);
        read.map_err(|error| RequestError::new(&ureq::Error::from(error), &self.peer, self.read_timeout))
    }
}

/// The number of bytes that a response says it has.
fn content_length(response: &Response<Body>) -> Option<u64> {
    header(response, "Content-Length")?.parse().ok()
}

/// A header of a response, if it is there and is text.
pub fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
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
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
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
            assert_eq!(resolve(&base, location).unwrap().to_string(), expected);
        }
        assert!(resolve(&base, "").is_none() && resolve(&base, "http://[").is_none());
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
