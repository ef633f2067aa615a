//! Where a page comes from.

use std::ffi::OsStr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Fact;
use crate::text::printable;

/// The command that makes a page, and when it was begun.
#[derive(Clone, Debug)]
pub struct Origin {
    /// As a shell takes it.
    pub command: String,
    /// Such as `2026-11-26 07:40 UTC`.
    pub date: String,
}

impl Origin {
    /// This process, now.
    pub fn now() -> Self {
        let arguments = std::env::args_os().skip(1);
        let words = arguments.map(|argument| format!(" {}", quoted(&argument)));
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { command: format!("qlnet{}", words.collect::<String>()), date: date(seconds) }
    }

    /// As facts of a page.
    pub fn facts(&self) -> [Fact; 2] {
        [Fact::with_code("command", "", &self.command), Fact::new("date", &self.date)]
    }
}

/// An argument as a shell takes it, but for control characters, and for bytes that are no text.
fn quoted(argument: &OsStr) -> String {
    let text = printable(&argument.to_string_lossy());
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The date so many seconds after 1970 began, to the minute.
pub fn date(seconds: u64) -> String {
    let minutes = seconds / 60;
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    // Every 400 years the calendar is the same, of 146,097 days.
    let days = minutes / 60 / 24;
    let (mut year, mut day) = (1970 + 400 * (days / 146_097), days % 146_097);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `date -u -d @SECONDS` of GNU coreutils.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (1_795_678_800, "2026-11-26 07:40 UTC"),
            (253_402_300_799, "9999-12-31 23:59 UTC"),
            (u64::MAX, "584554051223-11-09 07:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn arguments_are_quoted_where_a_shell_needs_it() {
        let shown = ["val-00.tar", "hf:a/b@c:d", "two words", "it's", "$HOME", "", "a\nb"].map(|a| quoted(a.as_ref()));
        let expected = ["val-00.tar", "hf:a/b@c:d", "'two words'", r"'it'\''s'", "'$HOME'", "''", r"'a\nb'"];
        assert_eq!(shown, expected);
    }
}
