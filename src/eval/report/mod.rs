//! The reports: HTML pages, each of which needs nothing else.
//!
//! ```text
//! names         how classes are called
//! classes       what is said of each class, in words and as data for scripts
//! charts        accuracy of classes, and against confidence
//! pictures      which images are shown
//! facts         what was run
//! comparison    two files of predictions, image by image
//! ```
//!
//! The templates beside them write the pages; `matrix.js` draws the confusions of all classes, `classes.js` shows a
//! class and its pictures.

mod charts;
mod classes;
mod comparison;
mod facts;
mod names;
mod pictures;

use askama::Template;

use self::charts::Reliability;
use self::classes::{Classes, Data};
pub use self::comparison::ComparisonReport;
pub use self::facts::Process;
use self::names::ClassName;
use self::pictures::Picture;
pub use self::pictures::Pictures;
use super::per_class::class_rows;
use super::{Accuracy, BINS, Failed, Summary, Tally};
pub use crate::page::Origin;
use crate::page::{Fact, Json, Tile};
use crate::text::{percent, thousands};
use crate::weights::registry::Label;

/// Pairs of classes that are shown.
const PAIRS: usize = 12;
/// Pictures of each of them.
const PER_PAIR: usize = 3;
/// Bins with fewer predictions say little and are drawn pale.
const FEW: u64 = 10;
/// Images without scores that are named.
const FAILED: usize = 50;

/// An evaluation, and what is needed to show it.
pub struct Report<'a> {
    /// Its result in few numbers, and what was evaluated, and how.
    pub summary: &'a Summary<'a>,
    /// Its result.
    pub tally: &'a Tally,
    /// What the model's outputs mean.
    pub labels: &'a [Label],
    /// What to call the evaluated images.
    pub data: &'a str,
    /// Which command makes the page, and when.
    pub origin: &'a Origin,
    /// How the images were computed, if by this process.
    pub process: Option<Process>,
    /// Where pictures come from.
    pub pictures: Pictures<'a>,
}

/// The page of an evaluation.
#[derive(Template)]
#[template(path = "eval/report/report.html")]
struct Page<'a> {
    name: &'a str,
    data: &'a str,
    images: String,
    part: Option<String>,
    tiles: Vec<Tile>,
    classes: Option<Classes>,
    calibration: Option<Calibration>,
    confusions: Vec<ConfusedPair>,
    mistakes: Vec<MistakeCard>,
    failed: &'a [Failed],
    /// How many more images have no scores, if any.
    more_failed: Option<String>,
    facts: Vec<Fact>,
    json: Json,
}

/// How far confidence and accuracy are apart.
struct Calibration {
    error: String,
    bins: usize,
    few: u64,
    confidence: String,
    right: String,
    verdict: &'static str,
    gap: String,
    chart: Reliability,
}

/// A class that was often taken for another.
struct ConfusedPair {
    label: ClassName,
    predicted: ClassName,
    count: String,
    of: String,
    share: String,
    pictures: Vec<Picture>,
}

/// A wrong prediction.
struct MistakeCard {
    picture: Picture,
    label: ClassName,
    label_probability: String,
    predicted: ClassName,
    confidence: String,
    path: String,
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let tally = self.tally;
        let examples = self.pictures.examples(tally);
        let more = tally.errors.saturating_sub(FAILED as u64);
        let rows = class_rows(tally, self.labels);
        let page = Page {
            name: self.summary.run.shown_name(),
            data: self.data,
            images: thousands(tally.images),
            part: self.summary.part(),
            tiles: self.tiles(),
            classes: Classes::new(tally, rows.clone(), self.labels),
            calibration: Calibration::new(tally),
            confusions: self.confusions(),
            mistakes: self.mistakes(),
            failed: &tally.failed[..tally.failed.len().min(FAILED)],
            more_failed: (more > 0).then(|| thousands(more)),
            facts: self.facts(),
            json: Json::new(&Data::new(tally, &rows, self.labels, &examples)),
        };
        page.to_string()
    }

    fn tiles(&self) -> Vec<Tile> {
        let tally = self.tally;
        let mut tiles = Vec::new();
        let of = thousands(tally.real_images);
        for (name, accuracy, of) in [
            ("top-1", tally.top1(), String::new()),
            ("top-5", tally.top5(), String::new()),
            ("ReaL top-1", tally.real(), format!("; of {of} images")),
            ("ReaL top-5", tally.real_top5(), format!("; of {of} images")),
        ] {
            let Some(Accuracy { value, low, high }) = accuracy else { continue };
            tiles.push(Tile::new(
                name,
                percent(value),
                format!("95 % interval {} to {}{of}", percent(low), percent(high)),
            ));
        }
        let loss = tally.loss().map_or("-".into(), |loss| format!("{loss:.4}"));
        tiles.push(Tile::new("cross-entropy", loss, "nats per image"));
        let error = tally.calibration_error().map_or("-".into(), percent);
        tiles.push(Tile::new("calibration error", error, format!("expected, over {BINS} bins")));
        if tally.errors > 0 {
            tiles.push(Tile::new("without scores", thousands(tally.errors), "images"));
        }
        if tally.warnings > 0 {
            tiles.push(Tile::new("damaged files", thousands(tally.warnings), "images, scored all the same"));
        }
        tiles
    }

    fn confusions(&self) -> Vec<ConfusedPair> {
        let pairs = self.tally.most_confused().into_iter().take(PAIRS);
        let pair = |((label, predicted), confusion): ((u32, u32), &super::Confusion)| {
            let of = self.tally.classes.get(&label).map_or(0, |class| class.images);
            let paths = confusion.examples.iter().take(PER_PAIR).map(|(confidence, path)| {
                (vec![path.as_str()], format!("{path}, {} sure", percent(f64::from(*confidence))))
            });
            ConfusedPair {
                label: ClassName::new(self.labels, label),
                predicted: ClassName::new(self.labels, predicted),
                count: thousands(confusion.count),
                of: thousands(of),
                share: percent(confusion.count as f64 / of.max(1) as f64),
                pictures: self.pictures.get(&paths.collect::<Vec<_>>()),
            }
        };
        pairs.map(pair).collect()
    }

    fn mistakes(&self) -> Vec<MistakeCard> {
        let mistakes = &self.tally.mistakes;
        let paths: Vec<_> = mistakes.iter().map(|mistake| (vec![&*mistake.path], mistake.path.clone())).collect();
        let pictures = self.pictures.get(&paths);
        let cards = mistakes.iter().zip(pictures).map(|(mistake, picture)| MistakeCard {
            picture,
            label: ClassName::new(self.labels, mistake.label),
            label_probability: percent(f64::from(mistake.label_probability)),
            predicted: ClassName::new(self.labels, mistake.predicted),
            confidence: percent(f64::from(mistake.confidence)),
            path: mistake.path.clone(),
        });
        cards.collect()
    }

    fn facts(&self) -> Vec<Fact> {
        let Summary { run, images_per_second, seconds, .. } = self.summary;
        let mut facts = facts::of_run(run);
        facts.extend(self.process.iter().flat_map(|process| process.facts(*images_per_second, *seconds)));
        facts.extend(self.origin.facts());
        facts
    }
}

impl Calibration {
    fn new(tally: &Tally) -> Option<Self> {
        let error = tally.calibration_error()?;
        let images = tally.images as f64;
        let confidence: f64 =
            tally.bins.iter().filter_map(|bin| Some(bin.means()?.0 * bin.images as f64)).sum::<f64>() / images;
        let right = tally.top1 as f64 / images;
        Some(Self {
            error: percent(error),
            bins: BINS,
            few: FEW,
            confidence: percent(confidence),
            right: percent(right),
            verdict: if confidence > right { "overconfident" } else { "underconfident" },
            gap: percent((confidence - right).abs()),
            chart: Reliability::new(&tally.bins),
        })
    }
}
