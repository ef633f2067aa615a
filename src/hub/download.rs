//! Downloads one file: attempt after attempt, each for the bytes that are still missing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::cache::{CachePaths, mismatch};
use super::http::Client;
use super::request_error::RequestError;
use super::{Event, Hub};
use crate::error::{Error, Result};
use crate::weights::registry::HubFile;

/// Attempts that together bring fewer bytes than this are no progress. A link that breaks after every
/// 16 KiB still gets any file with four attempts; a server that sends a few bytes and hangs up does not
/// keep the program for ever, because each time that the attempts are counted anew has cost so many bytes
/// of the file.
const PROGRESS: u64 = 64 << 10;

/// The download of one file into the cache.
pub struct Download<'a> {
    pub hub: &'a Hub,
    pub file: &'a HubFile,
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
            let Some(mismatch) = mismatch(incomplete, self.file)? else {
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
        let client = Client::new(self.hub.authorization(), self.hub.proxies.clone(), self.hub.read_timeout);
        let mut out = open_to_extend(incomplete).map_err(Error::io("write", incomplete))?;
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
                    return Err(self.error(format!("cannot fetch {}: {problem}", self.description())));
                }
                Err(TransferError::Request(RequestError::Unreachable { host, problem })) => {
                    let problem = format!("cannot reach {host} ({problem})");
                    // A host that has been reached before is worth another attempt.
                    if received == at_first {
                        return Err(self.error(format!("{problem} for {}", self.description())));
                    }
                    (problem, None)
                }
                Err(TransferError::Request(RequestError::Transient { problem, retry_after })) => (problem, retry_after),
            };
            attempts.count(received);
            if attempts.number > self.hub.attempts {
                let kept =
                    if received > 0 { format!("; the {received} bytes that came are kept") } else { String::new() };
                let (file, times) = (self.description(), self.hub.attempts);
                return Err(self.error(format!("cannot fetch {file}: {problem}, {times} times in a row{kept}")));
            }
            let pause = retry_after.unwrap_or(attempts.pause(self.hub.backoff));
            let when = if pause.as_secs() > 1 { format!(" in {} s", pause.as_secs()) } else { String::new() };
            self.notice(&format!("{problem}; trying again{when}"));
            sleep(pause);
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

    /// `qlnet-50-v0.pth.tar of liuyao/QLNet, revision c388ac00`
    fn description(&self) -> String {
        format!("{} of {}, revision {:.8}", self.file.file, self.file.repository, self.file.revision)
    }
}

/// Counts the attempts since there was progress last.
struct Attempts {
    /// The number of the next attempt, from 1.
    number: u32,
    /// How many bytes were here when the counting began.
    received: u64,
}

impl Attempts {
    fn new(received: u64) -> Self {
        Self { number: 1, received }
    }

    /// Counts an attempt that failed, now that so many bytes are here.
    fn count(&mut self, received: u64) {
        if received >= self.received + PROGRESS {
            *self = Self::new(received);
        } else {
            self.number += 1;
        }
    }

    /// The pause before the next attempt.
    fn pause(&self, backoff: Duration) -> Duration {
        backoff.saturating_mul(2u32.saturating_pow(self.number.saturating_sub(2)))
    }
}

/// Opens a file to be extended, or makes it. Not in the mode for appending: Windows does not let a file that
/// is open in this mode be cut, and what is written must land at the position that was sought.
fn open_to_extend(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of attempts that a file of `size` bytes takes, if each breaks off after the next of `cuts`
    /// in turn and four may be without progress. `None` if the download fails.
    fn attempts_of(size: u64, cuts: &[u64]) -> Option<usize> {
        let (mut attempts, mut received) = (Attempts::new(0), 0);
        for (made, cut) in cuts.iter().cycle().enumerate() {
            received += cut;
            if received >= size {
                return Some(made + 1);
            }
            attempts.count(received);
            if attempts.number > 4 {
                return None;
            }
        }
        None
    }

    #[test]
    fn slow_links_finish_and_drops_of_bytes_do_not() {
        let size = 80_405_585;
        assert_eq!(attempts_of(size, &[100_000]), Some(805));
        assert_eq!(attempts_of(size, &[16 << 10]), Some(4908));
        // A link that fails for a while, and works again.
        assert_eq!(attempts_of(size, &[1_000_000, 0, 0, 0]), Some(321));
        for cuts in [&[0][..], &[10, 20], &[1], &[1000], &[10_000, 0]] {
            assert_eq!(attempts_of(size, cuts), None, "{cuts:?}");
        }
    }

    #[test]
    fn pauses_double_and_begin_again_after_progress() {
        let second = Duration::from_secs(1);
        let mut attempts = Attempts::new(0);
        let pauses = [0, 10, 20].map(|received| {
            attempts.count(received);
            attempts.pause(second)
        });
        assert_eq!(pauses, [1, 2, 4].map(Duration::from_secs));
        attempts.count(PROGRESS);
        assert_eq!((attempts.number, attempts.pause(second)), (1, second));
        let many = Attempts { number: 100, received: 0 };
        assert!(many.pause(Duration::MAX) == Duration::MAX);
    }

    #[test]
    fn a_file_is_extended_where_the_position_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"abcdef").unwrap();
        let mut file = open_to_extend(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
        // Refused by Windows, or written to the end, if the file were open for appending.
        file.set_len(3).unwrap();
        file.seek(SeekFrom::Start(1)).unwrap();
        file.write_all(b"X").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"aXc");
    }
}
