//! What a person sees while weights are made ready: the download, and folding where it takes a while.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::ProgressBar;

use super::manner::bars_are_drawn;
use super::print::{info, progress_bar, say};
use crate::hub;
use crate::text;
use crate::weights::Event;

/// Between two lines about a download, where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Folding that takes longer is announced.
const PATIENCE: Duration = Duration::from_secs(1);

/// Does work that makes the weights of `name` ready, a file of so many bytes if it has to be downloaded,
/// and shows what it reports: a bar on a terminal, and lines elsewhere.
pub fn shown<T>(name: &str, size: u64, work: impl FnOnce(&mut dyn FnMut(Event)) -> Result<T>) -> Result<T> {
    let mut download: Option<Download> = None;
    // Dropped at the end, which ends the waiting.
    let mut folding: Option<mpsc::Sender<()>> = None;
    let result = work(&mut |event| match event {
        Event::Hub(hub::Event::Progress(bytes)) => {
            download.get_or_insert_with(|| Download::new(name, size, bytes)).at(bytes);
        }
        Event::Hub(hub::Event::Notice(text)) => note_beside(download.as_ref(), text),
        Event::Hub(hub::Event::Stored(path)) => {
            if let Some(download) = download.take() {
                download.finish();
                say("note", &format!("{name} is here now, {}", path.display()));
            }
        }
        Event::Reading { what, path } => info(|| format!("{name}: {what}, {}", path.display())),
        Event::Folding => {
            let text = "which is done once for each checkpoint and element type";
            folding = Some(say_if_it_takes_long(format!("preparing the weights of {name}, {text}")));
        }
        Event::NotKept { path, error } => {
            let place = crate::output::directory(path).display();
            let text =
                format!("the weights that were prepared cannot be kept in {place}, so each run prepares them: {error}");
            say("note", &text::printable(&text));
        }
    });
    if let Some(download) = download {
        download.finish();
    }
    result
}

/// Says what is being done unless what is returned is dropped soon.
pub fn say_if_it_takes_long(text: String) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        if receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            say("note", &text);
        }
    });
    sender
}

/// What is shown of a download.
pub struct Download {
    name: String,
    size: u64,
    /// Hidden where none can be drawn, as in a file: there are lines then.
    bar: ProgressBar,
    drawn: bool,
    /// When the last line was written, and how many bytes there were.
    last: (Instant, u64),
}

impl Download {
    /// One that begins with so many bytes already here.
    pub fn new(name: &str, size: u64, bytes: u64) -> Self {
        let drawn = bars_are_drawn();
        let style = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        let bar = progress_bar(size, style).with_message(name.to_string()).with_position(bytes);
        // Bytes of an earlier run say nothing about the speed.
        bar.reset_eta();
        if !drawn {
            let here = if bytes > 0 { format!(", of which {} are here", text::bytes(bytes)) } else { String::new() };
            say("note", &format!("downloading {name}: {}{here}", text::bytes(size)));
        }
        Self { name: name.into(), size, bar, drawn, last: (Instant::now(), bytes) }
    }

    /// What is downloaded now.
    pub fn name(&mut self, name: String) {
        if name != self.name {
            self.bar.set_message(name.clone());
            self.name = name;
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// So many bytes are here.
    pub fn at(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        if bytes < self.last.1 {
            // The download starts again from the beginning.
            self.bar.reset_eta();
            self.last = (Instant::now(), bytes);
        }
        let (time, before) = self.last;
        if !self.drawn && time.elapsed() >= LINE_EVERY {
            say("note", &line(&self.name, bytes, self.size, bytes - before, time.elapsed()));
            self.last = (Instant::now(), bytes);
        }
    }
}

/// Says something beside a download, if there is one.
pub fn note_beside(download: Option<&Download>, text: &str) {
    match download {
        Some(download) => download.bar.suspend(|| say("note", text)),
        None => say("note", text),
    }
}

/// One line about a download: how much is here, how fast it is, and how long the rest will take.
fn line(name: &str, bytes: u64, size: u64, got: u64, time: Duration) -> String {
    let speed = got as f64 / time.as_secs_f64();
    let left = size.saturating_sub(bytes) as f64 / speed;
    let left = match left {
        left if !left.is_finite() => "no data".into(),
        left if left < 90.0 => format!("{left:.0} s left"),
        left => format!("{:.0} min left", left / 60.0),
    };
    format!("{name}: {} of {}, {}/s, {left}", text::bytes(bytes), text::bytes(size), text::bytes(speed as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_speed_and_time_left() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line("m", 20_000_000, 80_000_000, 10_000_000, seconds(10)),
            "m: 20.0 MB of 80.0 MB, 1.0 MB/s, 60 s left"
        );
        assert_eq!(
            line("m", 20_000_000, 80_000_000, 1_000_000, seconds(10)),
            "m: 20.0 MB of 80.0 MB, 0.1 MB/s, 10 min left"
        );
        assert_eq!(line("m", 5, 80_000_000, 0, seconds(10)), "m: 0.0 MB of 80.0 MB, 0.0 MB/s, no data");
    }
}
