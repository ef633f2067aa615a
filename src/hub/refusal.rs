//! What responses mean that bring nothing, and what to do about them.

use std::time::Duration;

use ureq::Body;
use ureq::http::Response;

use super::http::{Asked, Client, header};
use super::request_error::{Peer, RequestError};

/// A server that asks for a longer pause than this is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

impl Client {
    /// What a status means that is neither success nor a redirect.
    pub fn refusal(&self, asked: Asked, peer: &Peer, response: &Response<Body>) -> RequestError {
        let Peer { host, hub, is_hub, .. } = peer;
        let status = response.status();
        if matches!(status.as_u16(), 408 | 429) || status.is_server_error() {
            let problem = format!("{host} answers {status}");
            let retry_after =
                header(response, "Retry-After").and_then(|text| text.parse().ok()).map(Duration::from_secs);
            return match retry_after {
                Some(pause) if pause > MAX_RETRY_AFTER => {
                    RequestError::Permanent(format!("{problem} and asks to come back in {} s", pause.as_secs()))
                }
                retry_after => RequestError::Transient { problem, retry_after },
            };
        }
        let code = header(response, "X-Error-Code");
        // With this code comes the message that the password is wrong, whether there is one or not.
        let message = header(response, "X-Error-Message").filter(|_| code != Some("RepoNotFound"));
        let explanation = message.or(code).map_or(String::new(), |text| format!(" ({text})"));
        let advice = match status.as_u16() {
            404 if self.listed && asked == Asked::File => {
                format!(": {hub} lists this file in {} and does not have it", self.page)
            }
            status if *is_hub => self.advice(status, code, hub),
            _ => String::new(),
        };
        RequestError::Permanent(format!("{host} refuses, with status {status}{explanation}{advice}"))
    }

    /// What to do about a refusal of the hub. It tells those who are not known that a repository is missing when it
    /// is private, and answers 401 for either.
    fn advice(&self, status: u16, code: Option<&str>, hub: &str) -> String {
        let page = &self.page;
        match (status, code, &self.authorization) {
            (401 | 403, Some("GatedRepo"), None) => format!(
                ": the terms of {page} must be accepted there, and HF_TOKEN be set to a token of {hub}/settings/tokens"
            ),
            (401 | 404, Some("RepoNotFound"), Some(_)) => {
                format!(": there is no {page}, or the token in HF_TOKEN, or that of `hf auth login`, may not see it")
            }
            (401 | 404, Some("RepoNotFound"), None) => format!(
                ": there is no {page}, or it is private; if it is there, set HF_TOKEN to a token of {hub}/settings/tokens"
            ),
            (401, _, Some(_)) => format!(
                ": the token in HF_TOKEN, or that of `hf auth login`, is not valid; get another at \
                 {hub}/settings/tokens, or leave it out (HF_HUB_DISABLE_IMPLICIT_TOKEN=1)"
            ),
            (401, _, None) => format!(": who asks must be known; set HF_TOKEN to a token of {hub}/settings/tokens"),
            (403, ..) => format!(
                ": the terms of the repository must be accepted on its page, {page}, and HF_TOKEN be set to a token \
                 that may read it"
            ),
            (404, Some("RevisionNotFound"), _) => format!(": {page} has no revision of this name"),
            _ => String::new(),
        }
    }
}

/// The error of a response that is a web page and not what was asked for.
pub fn page_in_place(peer: &Peer, response: &Response<Body>, url: &str, asked: Asked) -> Option<RequestError> {
    header(response, "Content-Type").filter(|kind| kind.starts_with("text/html"))?;
    let length = header(response, "Content-Length").map_or(String::new(), |length| format!("{length} bytes of "));
    let asked = match asked {
        Asked::File => "the file",
        Asked::Listing => "the list of files",
    };
    Some(RequestError::Permanent(format!(
        "{} answers with {length}a web page in place of {asked}, to log in perhaps: open {url} in a browser",
        peer.host
    )))
}
