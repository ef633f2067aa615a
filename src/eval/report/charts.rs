//! The charts of the report, as HTML and SVG.

use std::fmt::Write;

use super::{FEW, escape};
use crate::eval::per_class::ClassRow;
use crate::eval::{Accuracy, BINS, Bin};
use crate::page::first_synonym;
use crate::text::{percent, thousands};

/// A bar with a name and a number for each class.
pub fn class_bars(rows: &[ClassRow]) -> String {
    let mut bars = String::new();
    for row in rows {
        let taken = row
            .confused_with_label
            .as_deref()
            .map_or(String::new(), |label| format!("; {} taken for {}", row.confused, first_synonym(label)));
        let _ = writeln!(
            bars,
            "<div class=\"bar\" title=\"{}: {} images, top-5 {}{}\"><span>{}</span><i><u style=\"width:{:.2}%\"></u></i><em>{}</em></div>",
            escape(&row.label),
            row.images,
            percent(row.top5),
            escape(&taken),
            escape(first_synonym(&row.label)),
            100.0 * row.top1,
            percent(row.top1)
        );
    }
    format!("<div class=\"bars\">\n{bars}</div>\n")
}

/// All classes side by side, with the accuracy over all images as a line.
pub fn class_curve(rows: &[ClassRow], mean: Option<Accuracy>) -> String {
    let (width, height) = (960.0, 220.0);
    let mut svg = format!(
        "<svg viewBox=\"-44 -12 1010 244\" role=\"img\" aria-label=\"top-1 of every class, sorted\">\n{}",
        grid(width, height)
    );
    let step = width / rows.len() as f64;
    for (place, row) in rows.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<rect class=\"fill\" x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\"><title>{}: {}</title></rect>",
            place as f64 * step,
            height * (1.0 - row.top1),
            // Without a gap when there are too many to tell apart.
            if step > 4.0 { step - 1.0 } else { step + 0.6 },
            height * row.top1,
            escape(first_synonym(&row.label)),
            percent(row.top1)
        );
    }
    if let Some(mean) = mean {
        let y = height * (1.0 - mean.value);
        let _ = writeln!(
            svg,
            "<line class=\"mean\" x1=\"0\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"mean-text\" x=\"{width}\" y=\"{:.1}\" text-anchor=\"end\">all images {}</text>",
            y - 5.0,
            percent(mean.value)
        );
    }
    svg + "</svg>\n"
}

/// Size of the chart of accuracy against confidence.
const RELIABILITY: (f64, f64) = (420.0, 280.0);
/// Height of the chart below it.
const COUNTS: f64 = 70.0;
/// Between the two charts, for a line of text.
const GAP: f64 = 40.0;

/// Accuracy against confidence, and below it how many predictions have that confidence.
pub fn reliability(bins: &[Bin; BINS]) -> String {
    let (width, height) = RELIABILITY;
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1);
    let mut svg = format!(
        "<svg class=\"narrow\" viewBox=\"-44 -28 490 462\" role=\"img\" aria-label=\"accuracy against confidence\">\n{}",
        grid(width, height)
    );
    for (place, bin) in bins.iter().enumerate() {
        svg += &reliability_bars(place, bin, most);
    }
    let base = height + GAP + COUNTS;
    let _ = writeln!(
        svg,
        "<line class=\"mean\" x1=\"0\" y1=\"{height}\" x2=\"{width}\" y2=\"0\"/>\
         <line class=\"axis\" x1=\"0\" x2=\"{width}\" y1=\"{base}\" y2=\"{base}\"/>\
         <text x=\"0\" y=\"-12\">share that is right</text>\
         <text x=\"4\" y=\"{}\">how many (most: {})</text>",
        height + 26.0,
        thousands(most)
    );
    for part in 0..=4 {
        let x = width * f64::from(part) / 4.0;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{} %</text>", base + 16.0, 25 * part);
    }
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">confidence</text>", width / 2.0, base + 32.0);
    svg + "</svg>\n"
}

/// The bars of the bin in that place: its accuracy, unless it is empty, and its number of predictions, of
/// which the fullest bin has `most`.
fn reliability_bars(place: usize, bin: &Bin, most: u64) -> String {
    let (width, height) = RELIABILITY;
    let step = width / BINS as f64;
    let x = place as f64 * step;
    let mut bars = String::new();
    if let Some((confidence, right)) = bin.means() {
        let (low, high) = (place as f64 / BINS as f64, (place + 1) as f64 / BINS as f64);
        let title = format!(
            "{} to {}: {} predictions, {} sure, {} right",
            percent(low),
            percent(high),
            thousands(bin.images),
            percent(confidence),
            percent(right)
        );
        let tall = height * right;
        let _ = writeln!(
            bars,
            "<rect class=\"fill{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{title}</title></rect>\
             <circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{title}</title></circle>",
            if bin.images < FEW { " few" } else { "" },
            x + 1.0,
            height - tall,
            step - 2.0,
            width * confidence,
            height - tall,
        );
    }
    let tall = COUNTS * bin.images as f64 / most as f64;
    let _ = writeln!(
        bars,
        "<rect class=\"count\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{} predictions</title></rect>",
        x + 1.0,
        height + GAP + COUNTS - tall,
        step - 2.0,
        thousands(bin.images)
    );
    bars
}

/// Horizontal lines at each quarter, labelled in per cent.
fn grid(width: f64, height: f64) -> String {
    let mut lines = String::new();
    for part in 0..=4 {
        let y = height * (1.0 - f64::from(part) / 4.0);
        let _ = writeln!(
            lines,
            "<line class=\"axis\" x1=\"0\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"-6\" y=\"{}\" text-anchor=\"end\">{} %</text>",
            y + 4.0,
            25 * part
        );
    }
    lines
}
