//! The charts of pages: where their lines and bars are. `charts.html` draws them.

use super::FEW;
use super::names::ClassName;
use crate::eval::per_class::ClassRow;
use crate::eval::{Accuracy, BINS, Bin};
use crate::text::{percent, thousands};

/// A bar with a name and a number.
pub struct Bar {
    pub class: ClassName,
    pub title: String,
    /// In per cent of the room, where it begins and how long it is.
    pub left: f64,
    pub width: f64,
    /// Whether it stands for a loss.
    pub is_lost: bool,
    pub value: String,
}

impl Bar {
    /// The accuracy of a class.
    pub fn of_class(class: ClassName, row: &ClassRow, confused_with: Option<&ClassName>) -> Self {
        let taken = confused_with
            .map_or(String::new(), |other| format!("; {} taken for {}", thousands(row.confused), other.text()));
        let title = format!("{}: {} images, top-5 {}{taken}", class.title(), thousands(row.images), percent(row.top5));
        Self { class, title, left: 0.0, width: hundredths(100.0 * row.top1), is_lost: false, value: percent(row.top1) }
    }
}

/// All classes side by side, with the accuracy over all images as a line.
pub struct Curve {
    pub width: f64,
    pub height: f64,
    pub bars: Vec<CurveBar>,
    /// Where the line is, and what it says.
    pub mean: Option<(f64, String)>,
}

/// A class of a [`Curve`].
pub struct CurveBar {
    pub class: ClassName,
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    pub value: String,
}

impl Curve {
    /// Of classes in that order.
    pub fn new(rows: &[(ClassName, f64)], mean: Option<Accuracy>) -> Self {
        let (width, height) = (960.0, 220.0);
        let step = width / rows.len() as f64;
        // Without a gap when there are too many to tell apart.
        let wide = hundredths(if step > 4.0 { step - 1.0 } else { step + 0.6 });
        let bar = |(place, (class, top1)): (usize, &(ClassName, f64))| CurveBar {
            class: class.clone(),
            x: hundredths(place as f64 * step),
            y: hundredths(height * (1.0 - top1)),
            width: wide,
            height: hundredths(height * top1),
            value: percent(*top1),
        };
        let bars = rows.iter().enumerate().map(bar).collect();
        let mean = mean.map(|mean| (hundredths(height * (1.0 - mean.value)), percent(mean.value)));
        Self { width, height, bars, mean }
    }
}

/// Height of the chart below that of accuracy against confidence.
const COUNTS: f64 = 70.0;
/// Between the two charts, for a line of text.
const GAP: f64 = 40.0;

/// Accuracy against confidence, and below it how many predictions have that confidence.
pub struct Reliability {
    pub width: f64,
    pub height: f64,
    /// Where the counts begin from below.
    pub base: f64,
    pub bars: Vec<ReliabilityBar>,
    /// Predictions of the fullest bin.
    pub most: String,
}

/// A bin of a [`Reliability`].
pub struct ReliabilityBar {
    pub x: f64,
    pub width: f64,
    /// Where its accuracy is, and the confidence that goes with it; `None` if it is empty.
    pub accuracy: Option<ReliabilityDot>,
    /// Of the bar below.
    pub count_y: f64,
    pub count_height: f64,
    pub count: String,
}

/// What is drawn of a bin that is not empty.
pub struct ReliabilityDot {
    pub x: f64,
    pub y: f64,
    pub height: f64,
    pub is_few: bool,
    pub title: String,
}

impl Reliability {
    /// Of these bins.
    pub fn new(bins: &[Bin; BINS]) -> Self {
        let (width, height) = (420.0, 280.0);
        let base = height + GAP + COUNTS;
        let most = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1);
        let step = width / BINS as f64;
        let bar = |(place, bin): (usize, &Bin)| {
            let dot = |(confidence, right): (f64, f64)| {
                let [low, high] = [place, place + 1].map(|edge| percent(edge as f64 / BINS as f64));
                let images = predictions(bin.images);
                let [sure, correct] = [confidence, right].map(percent);
                ReliabilityDot {
                    x: hundredths(width * confidence),
                    y: hundredths(height * (1.0 - right)),
                    height: hundredths(height * right),
                    is_few: bin.images < FEW,
                    title: format!("{low} to {high}: {images}, {sure} sure, {correct} right"),
                }
            };
            let tall = hundredths(COUNTS * bin.images as f64 / most as f64);
            ReliabilityBar {
                x: hundredths(place as f64 * step + 1.0),
                width: hundredths(step - 2.0),
                accuracy: bin.means().map(dot),
                count_y: hundredths(base - tall),
                count_height: tall,
                count: predictions(bin.images),
            }
        };
        let bars = bins.iter().enumerate().map(bar).collect();
        Self { width, height, base, bars, most: thousands(most) }
    }
}

fn predictions(count: u64) -> String {
    if count == 1 { "1 prediction".into() } else { format!("{} predictions", thousands(count)) }
}

/// A coordinate as short as it may be written.
pub fn hundredths(value: f64) -> f64 {
    (100.0 * value).round() / 100.0
}
