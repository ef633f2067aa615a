//! Downloads one file: attempt after attempt, each for the bytes that are still missing.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};

use super::attempts::Attempts;
use super::cache::{CachePaths, mismatch};
use super::http::Client;
use super::request_error::RequestError;
use super::{Event, Hub, HubFile};
use crate::bounded::open_to_write;
use crate::error::{Error, Result};

/// The download of one file into the cache.
pub struct Download<'a> {
    pub hub: &'a Hub,
    pub file: &'a HubFile<'a>,
    pub paths: &'a CachePaths,
    pub report: &'a mut dyn FnMut(Event),
}

/// Why one attempt ended before the file was complete.
enum TransferError {
    Request(RequestError),
    /// The bytes that came cannot be written.
    Write(io::Error),
}

impl Download<'_> {
    /// Makes the blob, from what an earlier attempt left if there is any.
    pub fn run(&mut self) -> Result<()> {
        let incomplete = &self.paths.incomplete;
        let mut restarted = false;
        loop {
            let is_pieced = self.fill()?;
            let Some(mismatch) = mismatch(incomplete, self.file, None)? else {
                return fs::rename(incomplete, &self.paths.blob).map_err(Error::io("write", &self.paths.blob));
            };
            fs::remove_file(incomplete).map_err(Error::io("remove", incomplete))?;
            // What an earlier run left may have been wrong. Once: a second time it is the hub's content.
            if !is_pieced || restarted {
                let endpoint = self.hub.public_endpoint();
                return Err(self.error(format!(
                    "{endpoint} delivered something other than the pinned file, and it was removed: {mismatch}"
                )));
            }
            self.notice(&format!("what was put together from several attempts is wrong, starting anew: {mismatch}"));
            restarted = true;
        }
    }

    /// Extends the incomplete file until it has the full size. Returns whether its bytes are of several
    /// requests.
    fn fill(&mut self) -> Result<bool> {
        let (size, incomplete) = (self.file.size, &self.paths.incomplete);
        let client = self.hub.client(self.file.repository);
        let mut out = open_to_write(incomplete).map_err(Error::io("write", incomplete))?;
        let at_first = out.seek(SeekFrom::End(0)).map_err(Error::io("write", incomplete))?;
        let mut received = at_first;
        let mut is_pieced = received > 0;
        let mut attempts = Attempts::new(received);
        while received < size {
            is_pieced |= received > 0;
            let (problem, retry_after) = match self.transfer(&client, attempts.number, &mut out, &mut received) {
                Ok(()) => continue,
                Err(TransferError::Write(cause)) => return Err(Error::io("write", incomplete)(cause)),
                Err(TransferError::Request(RequestError::Permanent(problem))) => {
                    return Err(self.error(format!("cannot fetch {}: {problem}", self.file.description())));
                }
                Err(TransferError::Request(RequestError::Unreachable { host, problem })) => {
                    let problem = format!("cannot reach {host} ({problem})");
                    // A host that has been reached before is worth another attempt.
                    if received == at_first {
                        return Err(self.error(format!("{problem} for {}", self.file.description())));
                    }
                    (problem, None)
                }
                Err(TransferError::Request(RequestError::Transient { problem, retry_after })) => (problem, retry_after),
            };
            if let Err(problem) = attempts.again(self.hub, received, &problem, retry_after, self.report) {
                let kept =
                    if received > 0 { format!("; the {received} bytes that came are kept") } else { String::new() };
                return Err(self.error(format!("cannot fetch {}: {problem}{kept}", self.file.description())));
            }
        }
        out.sync_all().map_err(Error::io("write", incomplete))?;
        Ok(is_pieced)
    }

    /// Sends one request for the bytes after the first `received`. Writes them as they come, and counts them.
    fn transfer(
        &mut self,
        client: &Client,
        attempt: u32,
        out: &mut File,
        received: &mut u64,
    ) -> Result<(), TransferError> {
        let size = self.file.size;
        let mut content =
            client.open(&self.hub.url(self.file), *received, size, attempt).map_err(TransferError::Request)?;
        if content.start < *received {
            self.notice(&format!(
                "{} only sends the whole file, from its beginning; the {received} bytes that are here are passed over",
                content.peer.host
            ));
        }
        (self.report)(Event::Progress(*received));
        let mut position = content.start;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = content.read(&mut buffer).map_err(TransferError::Request)?;
            let host = &content.peer.host;
            if count == 0 && position < size {
                let problem = format!("the connection to {host} was cut after {position} of {size} bytes");
                return Err(TransferError::Request(RequestError::Transient { problem, retry_after: None }));
            } else if count == 0 {
                return Ok(());
            }
            let known = (*received - position).min(count as u64);
            position += count as u64;
            if position > size {
                let problem = format!("{host} sends more than the {size} bytes of the file");
                return Err(TransferError::Request(RequestError::Permanent(problem)));
            }
            out.write_all(&buffer[known as usize..count]).map_err(TransferError::Write)?;
            *received += count as u64 - known;
            (self.report)(Event::Progress(*received));
        }
    }

    fn notice(&mut self, text: &str) {
        (self.report)(Event::Notice(text));
    }

    fn error(&self, reason: String) -> Error {
        self.hub.error(self.file, reason)
    }
}
