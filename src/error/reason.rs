//! Why something failed, in words.

use std::fmt;

use crate::text::printable;

/// Why something failed, as one line for people: each cause follows what it caused. Files that say what they hold may
/// name it by any text: control characters are escaped, and of a very long text the middle is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// These words.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(line_of(words.into()))
    }
}

/// More bytes than this are no line that anybody reads.
const LONGEST: usize = 4000;

/// A text as one line of a length that can be read.
fn line_of(text: String) -> String {
    let text = if text.contains(char::is_control) { printable(&text) } else { text };
    if text.len() <= LONGEST {
        return text;
    }
    let start = &text[..text.floor_char_boundary(LONGEST / 2)];
    let end = &text[text.ceil_char_boundary(text.len() - LONGEST / 2)..];
    format!("{start} ... {end}")
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error + 'static> From<E> for Reason {
    fn from(error: E) -> Self {
        Self::new(words(&error))
    }
}

/// An error and its causes in one line. Some libraries repeat their cause in their own message, and
/// candle adds a backtrace where `RUST_BACKTRACE` is set: both are left out.
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        let cause = cause.split("\n   0: ").next().unwrap_or_default().trim();
        if !text.contains(cause) {
            text = if text.is_empty() { cause.to_string() } else { format!("{text}: {cause}") };
        }
        next = error.source();
    }
    text
}

/// Puts words before a [`Reason`], and turns `None` into a [`Reason`].
pub(crate) trait Context<T> {
    fn context(self, words: impl fmt::Display) -> Result<T, Reason>;
    fn with_context<D: fmt::Display>(self, words: impl FnOnce() -> D) -> Result<T, Reason>;
}

impl<T, E: Into<Reason>> Context<T> for Result<T, E> {
    fn context(self, words: impl fmt::Display) -> Result<T, Reason> {
        self.with_context(|| words)
    }

    fn with_context<D: fmt::Display>(self, words: impl FnOnce() -> D) -> Result<T, Reason> {
        self.map_err(|error| {
            let (words, Reason(cause)) = (words().to_string(), error.into());
            Reason::new(if words.contains(&cause) { words } else { format!("{words}: {cause}") })
        })
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, words: impl fmt::Display) -> Result<T, Reason> {
        self.with_context(|| words)
    }

    fn with_context<D: fmt::Display>(self, words: impl FnOnce() -> D) -> Result<T, Reason> {
        self.ok_or_else(|| Reason::new(words().to_string()))
    }
}

/// Returns with a [`Reason`] in the words of `format!`.
macro_rules! bail {
    ($($words:tt)+) => {
        return Err($crate::error::Reason::new(format!($($words)+)).into())
    };
}
pub(crate) use bail;

/// Returns with a [`Reason`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            $crate::error::bail!($($words)+);
        }
    };
}
pub(crate) use ensure;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{At, Error};

    #[test]
    fn what_a_file_says_does_not_make_more_lines() {
        let reason = Reason::new("tensor `a\nb\u{1b}[2J` is missing");
        assert_eq!(reason.to_string(), r"tensor `a\nb\u{1b}[2J` is missing");
        let context = Err::<(), _>(reason.clone()).context("x\ry").unwrap_err().to_string();
        assert_eq!(context, format!(r"x\ry: {reason}"));
        let long = Reason::new(format!("{}: no such thing", "é".repeat(10_000))).to_string();
        assert!(long.len() < 4100 && long.starts_with('é') && long.ends_with(" no such thing"), "{long}");
    }

    #[test]
    fn words_are_one_line_and_said_once() {
        let cause = || std::io::Error::other("no such thing\n   0: some::frame\n   1: another");
        assert_eq!(Reason::from(cause()).to_string(), "no such thing");
        let error = Err::<(), _>(cause()).context("cannot do it: no such thing").context("photo.png");
        assert_eq!(error.unwrap_err().to_string(), "photo.png: cannot do it: no such thing");
        let at = Err::<(), _>(Error::Overflow { dtype: "f16" }).at("a.png").unwrap_err();
        assert!(matches!(at.root(), Error::Overflow { .. }) && at.to_string() == "a.png: the network overflows in f16");
    }
}
