//! The reports: HTML pages, each of which needs nothing else.
//!
//! ```text
//! page          what all pages are made of
//! charts        accuracy of classes, and against confidence
//! comparison    two files of predictions, image by image
//! ```

mod charts;
mod comparison;
mod page;

use std::fmt::Write;

use image::RgbImage;

use self::charts::{class_bars, class_curve, reliability};
pub use self::comparison::ComparisonReport;
use self::page::{class_name, escape, facts_of, facts_table, page, thumbnail, tile};
use super::per_class::class_rows;
use super::{BINS, Mistake, Run, Tally};
use crate::page::first_synonym;
use crate::text::{percent, thousands};
use crate::weights::registry::Label;

/// Pairs of classes that are shown.
const PAIRS: usize = 12;
/// With more classes than this, they are drawn as one curve and only the extremes are named.
const NAMED_CLASSES: usize = 40;
/// Named at either end of the curve.
const EXTREMES: usize = 12;
/// Bins with fewer predictions say little and are drawn pale.
const FEW: u64 = 10;
/// Images without scores that are named.
const FAILED: usize = 50;

/// An evaluation, and what is needed to show it.
pub struct Report<'a> {
    /// What was evaluated, and how.
    pub run: &'a Run,
    /// Its result.
    pub tally: &'a Tally,
    /// What the model's outputs mean.
    pub labels: &'a [Label],
    /// What to call the evaluated images.
    pub data: &'a str,
    /// What was evaluated, if not all of it.
    pub part: Option<String>,
    /// What the network sees of the image at a path, if that can still be read.
    pub crop: &'a dyn Fn(&str) -> Option<RgbImage>,
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let title = format!("{} on {}", self.run.model, self.data);
        let sections = [
            self.summary(),
            self.classes(),
            self.calibration(),
            self.confusions(),
            self.mistakes(),
            self.failed(),
            self.facts(),
        ];
        page(&title, &sections.concat())
    }

    fn summary(&self) -> String {
        let Self { run, tally, .. } = self;
        let mut tiles = String::new();
        let mut tile = |name: &str, value: String, note: String| tiles += &tile(name, &value, &note);
        let accuracies = [("top-1", tally.top1()), ("top-5", tally.top5()), ("ReaL", tally.real())];
        for (name, accuracy) in accuracies {
            if let Some(accuracy) = accuracy {
                let interval = format!("95 % interval {} to {}", percent(accuracy.low), percent(accuracy.high));
                tile(name, percent(accuracy.value), interval);
            }
        }
        tile("cross-entropy", tally.loss().map_or("-".into(), |loss| format!("{loss:.4}")), "nats per image".into());
        if tally.errors > 0 {
            tile("without scores", thousands(tally.errors), "images".into());
        }
        let part = self.part.as_ref().map_or(String::new(), |part| format!("; {}", escape(part)));
        format!(
            "<header>\n<h1>{} <small>on {}</small></h1>\n<p>{} images of {} classes{part}.</p>\n\
             <div class=\"tiles\">\n{tiles}</div>\n</header>\n",
            escape(&run.model),
            escape(self.data),
            thousands(tally.images),
            thousands(tally.classes.len() as u64)
        )
    }

    fn classes(&self) -> String {
        let mut rows = class_rows(self.tally, self.labels);
        rows.sort_by(|a, b| b.top1.total_cmp(&a.top1).then(a.index.cmp(&b.index)));
        if rows.is_empty() {
            return String::new();
        }
        let chart = if rows.len() <= NAMED_CLASSES {
            class_bars(&rows)
        } else {
            let quarter = |part: usize| percent(rows[(rows.len() - 1) * part / 4].top1);
            format!(
                "<p>All {} classes, the best on the left. Half of them lie between {} and {}; the median is {}.</p>\n{}\
                 <div class=\"columns\"><div><h3>The hardest</h3>\n{}</div><div><h3>The easiest</h3>\n{}</div></div>\n",
                rows.len(),
                quarter(3),
                quarter(1),
                quarter(2),
                class_curve(&rows, self.tally.top1()),
                class_bars(&rows.iter().rev().take(EXTREMES).cloned().collect::<Vec<_>>()),
                class_bars(&rows[..EXTREMES])
            )
        };
        let mut table = String::new();
        for row in &rows {
            let other = row.confused_with_label.as_deref().map_or(String::new(), |label| {
                format!("{} <small>({} of {})</small>", escape(first_synonym(label)), row.confused, row.images)
            });
            let _ = writeln!(
                table,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{other}</td></tr>",
                row.index,
                escape(&row.label),
                row.images,
                percent(row.top1),
                percent(row.top5)
            );
        }
        format!(
            "<section>\n<h2>Accuracy per class</h2>\n{chart}<details><summary>All classes as a table</summary>\n<div class=\"scroll\"><table>\n\
             <tr><th>index</th><th>class</th><th>images</th><th>top-1</th><th>top-5</th><th>most often taken for</th></tr>\n{table}</table></div></details>\n</section>\n"
        )
    }

    fn calibration(&self) -> String {
        let Some(error) = self.tally.calibration_error() else { return String::new() };
        let images = self.tally.images as f64;
        let confidence: f64 =
            self.tally.bins.iter().filter_map(|bin| Some(bin.means()?.0 * bin.images as f64)).sum::<f64>() / images;
        let right = self.tally.top1 as f64 / images;
        let verdict = if confidence > right { "overconfident" } else { "underconfident" };
        format!(
            "<section>\n<h2>Calibration</h2>\n\
             <p>Of the predictions with a confidence of 80 %, 80 % should be right. The expected calibration error is \
             <b>{}</b> over {BINS} bins. On average the network is {} sure and {} right: {verdict} by {}. \
             Pale bars stand for fewer than {FEW} predictions.</p>\n{}</section>\n",
            percent(error),
            percent(confidence),
            percent(right),
            percent((confidence - right).abs()),
            reliability(&self.tally.bins)
        )
    }

    fn confusions(&self) -> String {
        let pairs = self.tally.most_confused();
        if pairs.is_empty() {
            return String::new();
        }
        let mut cards = String::new();
        for ((label, predicted), confusion) in pairs.into_iter().take(PAIRS) {
            let of = self.tally.classes.get(&label).map_or(0, |class| class.images);
            let pictures: String = confusion
                .examples
                .iter()
                .map(|(confidence, path)| {
                    self.thumbnail(path, &format!("{path}, {} sure", percent(f64::from(*confidence))))
                })
                .collect();
            let _ = writeln!(
                cards,
                "<div class=\"card pair\"><p><b>{}</b> taken for <b class=\"wrong\">{}</b></p>\
                 <p class=\"note\">{} of {of} images ({})</p><div class=\"strip\">{pictures}</div></div>",
                self.name(label),
                self.name(predicted),
                confusion.count,
                percent(confusion.count as f64 / of.max(1) as f64),
            );
        }
        format!("<section>\n<h2>Most confused</h2>\n<div class=\"cards wide\">\n{cards}</div>\n</section>\n")
    }

    fn mistakes(&self) -> String {
        if self.tally.mistakes.is_empty() {
            return String::new();
        }
        let card = |mistake: &Mistake| {
            let Mistake { path, label, predicted, confidence, label_probability } = mistake;
            format!(
                "<figure class=\"card\">{}<figcaption><b class=\"wrong\">{}</b> {}<br>labelled <b>{}</b> {}\
                 <span class=\"path\">{}</span></figcaption></figure>\n",
                self.thumbnail(path, path),
                self.name(*predicted),
                percent(f64::from(*confidence)),
                self.name(*label),
                percent(f64::from(*label_probability)),
                escape(path)
            )
        };
        let cards: String = self.tally.mistakes.iter().map(card).collect();
        format!(
            "<section>\n<h2>Most confident mistakes</h2>\n<p>What the network is surest of and the label denies: some are \
             errors of the network, some of the label, and some pictures show both.</p>\n<div class=\"cards\">\n{cards}</div>\n</section>\n"
        )
    }

    fn failed(&self) -> String {
        let Tally { errors, failed, .. } = self.tally;
        if *errors == 0 {
            return String::new();
        }
        let mut list = String::new();
        for image in failed.iter().take(FAILED) {
            let _ = writeln!(
                list,
                "<li><span class=\"path\">{}</span>: {}</li>",
                escape(&image.path),
                escape(&image.error)
            );
        }
        let more = errors.saturating_sub(FAILED as u64);
        let more = if more > 0 { format!("<p>and {} more.</p>\n", thousands(more)) } else { String::new() };
        format!("<section>\n<h2>Images without scores</h2>\n<ul>\n{list}</ul>\n{more}</section>\n")
    }

    fn facts(&self) -> String {
        let mut facts = facts_of(self.run);
        if let Some(part) = self.run.part_of_outputs() {
            facts.insert(1, ("outputs", format!("{part} were scored, as if the network had no others")));
        }
        format!("<section>\n<h2>How it was measured</h2>\n{}</section>\n", facts_table(&facts))
    }

    /// What a class is called, as HTML.
    fn name(&self, class: u32) -> String {
        class_name(self.labels, class)
    }

    /// The image as the network sees it, small, in the page itself.
    fn thumbnail(&self, path: &str, text: &str) -> String {
        thumbnail((self.crop)(path), text)
    }
}
