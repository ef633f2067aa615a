//! What is shown while images are evaluated, and how the evaluation is stopped.

use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar};

use crate::cli::manner::bars_are_drawn;
use crate::cli::print::{progress_bar, say};
use crate::eval::{Accuracy, Row, Tally};
use crate::text::{percent, thousands};

/// Images without scores, and damaged ones, that are named on standard error; the others are counted.
const NAMED: u64 = 20;

/// Shows how far an evaluation is: by a bar on a terminal, by a line now and then elsewhere.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// When a line was last written, where there is no bar.
    line: Option<Instant>,
    /// Images that were done before.
    before: u64,
}

impl Progress {
    /// Between lines.
    const PERIOD: Duration = Duration::from_secs(30);

    pub fn new(images: u64, done: u64) -> Self {
        let bar = progress_bar(images, "{wide_bar} {human_pos}/{human_len} {msg} {eta} left");
        bar.set_position(done);
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, start: now, line: (!bars_are_drawn()).then_some(now), before: done }
    }

    pub fn advance(&mut self, images: u64, tally: &Tally) {
        let accuracy =
            |accuracy: Option<Accuracy>| accuracy.map_or("-".to_string(), |accuracy| percent(accuracy.value));
        self.bar.inc(images);
        let (position, length) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let seconds = self.start.elapsed().as_secs_f64();
        let speed = (position - self.before) as f64 / seconds;
        let running = format!("top-1 {} top-5 {} {speed:.1} images/s", accuracy(tally.top1()), accuracy(tally.top5()));
        if self.line.is_some_and(|line| line.elapsed() >= Self::PERIOD) {
            self.line = Some(Instant::now());
            let left = HumanDuration(Duration::from_secs_f64((length - position) as f64 / speed.max(1e-9)));
            say(
                "progress",
                &format!("{} of {} images, {running}, {left} left", thousands(position), thousands(length)),
            );
        }
        self.bar.set_message(running);
    }

    /// Reports what is wrong with an image, if anything is.
    pub fn tell(&self, tally: &Tally, row: &Row) {
        let (kind, text, so_far) = match (&row.scores, &row.warning) {
            (Err(error), _) => ("error", error, tally.failed.len() as u64),
            (Ok(_), Some(warning)) => ("warning", warning, tally.warnings),
            (Ok(_), None) => return,
        };
        if so_far <= NAMED {
            self.bar.suspend(|| say(kind, &format!("{}: {text}", row.path)));
        }
    }

    /// Removes the bar. Returns how long it was there.
    pub fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.start.elapsed()
    }
}
