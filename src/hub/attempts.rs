//! How often something is tried, and how long the pauses are.

use std::thread::sleep;
use std::time::Duration;

use super::{Event, Hub};

/// Attempts that together bring fewer bytes than this are no progress. A link that breaks after every
/// 16 KiB still gets any file with four attempts; a server that sends a few bytes and hangs up does not
/// keep the program for ever, because each time that the attempts are counted anew has cost so many bytes
/// of the file.
const PROGRESS: u64 = 64 << 10;

/// Counts the attempts since there was progress last.
pub struct Attempts {
    /// The number of the next attempt, from 1.
    pub number: u32,
    /// How many bytes were here when the counting began.
    received: u64,
}

impl Attempts {
    /// The first attempt, with so many bytes here.
    pub fn new(received: u64) -> Self {
        Self { number: 1, received }
    }

    /// After an attempt that failed, with so many bytes here: waits for the time of the next one.
    ///
    /// # Errors
    /// The problem in words, if there were as many attempts as the hub's settings allow.
    pub fn again(
        &mut self,
        hub: &Hub,
        received: u64,
        problem: &str,
        retry_after: Option<Duration>,
        report: &mut dyn FnMut(Event),
    ) -> Result<(), String> {
        self.count(received);
        if self.number > hub.attempts {
            return Err(format!("{problem}, {} times in a row", hub.attempts));
        }
        let pause = retry_after.unwrap_or(self.pause(hub.backoff));
        let when = if pause.as_secs() > 1 { format!(" in {} s", pause.as_secs()) } else { String::new() };
        report(Event::Notice(&format!("{problem}; trying again{when}")));
        sleep(pause);
        Ok(())
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
}
