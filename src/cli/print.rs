//! Where lines go: results to standard output, everything else to standard error.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::manner::{bars_are_drawn, has_blocks, is_coloured, is_quiet, is_verbose};
use crate::error::words;
use crate::text::printable;

/// Writes a line to standard error; notes and progress only where they are wanted. If it cannot be written, nothing
/// can be done about it.
pub fn say(kind: &str, text: &str) {
    let style = match kind {
        "note" | "progress" if is_quiet() => return,
        "error" => AnsiColor::Red.on_default().bold(),
        "warning" | "interrupted" => AnsiColor::Yellow.on_default().bold(),
        "tip" => AnsiColor::Green.on_default(),
        _ => Style::new().dimmed(),
    };
    let stderr = std::io::stderr();
    let coloured = is_coloured(&stderr);
    let line = format!("{}: {text}\n", styled(style, kind, coloured));
    // In one piece: other processes may write to the same place.
    let _ = match coloured {
        true => AutoStream::always(stderr.lock()).write_all(line.as_bytes()),
        false => stderr.lock().write_all(line.as_bytes()),
    };
}

/// Says what is done, if that is wanted.
pub fn info(text: impl FnOnce() -> String) {
    if is_verbose() {
        say("info", &printable(&text()));
    }
}

/// A text that stands out among results for people, where these are coloured.
pub fn strong(text: &str) -> String {
    styled(Style::new().bold(), text, is_coloured(&std::io::stdout()))
}

fn styled(style: Style, text: &str, coloured: bool) -> String {
    if coloured { format!("{style}{text}{style:#}") } else { text.to_string() }
}

/// Says what is wrong with a picture that is taken all the same.
pub fn say_warning(path: &Path, warning: &str) {
    say("warning", &printable(&format!("{}: {warning}", path.display())));
}

/// An error and its causes in one line, without control characters.
pub fn one_line(error: &anyhow::Error) -> String {
    printable(&words(error.as_ref()))
}

/// Writes a line of results to standard output, at once.
///
/// # Errors
/// If it cannot be written; [`is_broken_pipe`] tells whether because nobody reads it.
pub fn print(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// [`print()`] where more is to be done after it: files to write, an exit code that says something. If the
/// reader has seen enough, that is done all the same.
///
/// # Errors
/// If the line cannot be written for another reason.
pub fn print_and_go_on(line: &str) -> Result<()> {
    match print(line) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        printed => printed,
    }
}

/// Whether the reader of our output went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A value as one line of JSON.
///
/// # Errors
/// If it has no such form.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// A bar for so many steps, which is hidden where none can be drawn or none is wanted.
pub fn progress_bar(steps: u64, template: &str) -> ProgressBar {
    let bar = if bars_are_drawn() { ProgressBar::new(steps) } else { ProgressBar::hidden() };
    bar.set_length(steps);
    bar.set_style(bar_style(template));
    bar
}

/// How a progress bar looks.
fn bar_style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    if has_blocks() { style } else { style.progress_chars("#>-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        let cause = anyhow::anyhow!("no such thing\n   0: some::frame\n   1: another");
        let error = cause.context("cannot do it: no such thing").context("photo.png");
        assert_eq!(one_line(&error), "photo.png: cannot do it: no such thing");
        assert_eq!(one_line(&anyhow::anyhow!("bad").context("a\nb.png")), r"a\nb.png: bad");
    }
}
