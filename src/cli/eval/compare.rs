//! `qlnet eval --compare`: two files of predictions, image by image.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::arguments::Eval;
use super::outputs::Page;
use super::sets::open;
use crate::cli::output::{ensure_distinct, ensure_ending};
use crate::cli::print::{print_and_go_on, say, to_json};
use crate::eval::compare::{Change, Comparison, ComparisonSummary, Paired, Side};
use crate::eval::report::ComparisonReport;
use crate::eval::{Accuracy, Tally};
use crate::text::{p_value, percent, points, printable, thousands};
use crate::weights::registry::{self, Label};

/// Classes that are named in the table.
const NAMED: usize = 5;

/// Prints what two files of predictions say of the same images, and writes the report.
pub fn run(args: &Eval, a: &Path, b: &Path) -> Result<ExitCode> {
    let report = &args.results.report;
    ensure!(
        args.sets().is_empty() || report.is_some(),
        "with --compare, --imagenet-val is where --report takes its pictures from; name a file with --report"
    );
    ensure_ending(report, &["html", "htm"], "the name of a report")?;
    ensure_distinct(report.as_slice(), &args.results.compare)?;
    let page = Page::create(report)?;
    let comparison = Comparison::open(a, b)?;
    let labels = Label::for_outputs(registry::find(&comparison.a.run.model)?.labels(), comparison.a.run.classes);
    ensure!(args.sets().len() <= 1, "both files are of one set of images; name it once");
    let images = args.sets().first().map(|path| open(args, path)).transpose()?;
    let text =
        if args.results.json { to_json(&ComparisonSummary::new(&comparison))? } else { table(&comparison, &labels) };
    print_and_go_on(&text)?;
    if comparison.differences().is_empty() {
        say("note", "both are of the same weights, options and images");
    }
    if comparison.left_out > 0 {
        let (left_out, all) = (comparison.left_out, comparison.left_out + comparison.images());
        let (left_out, all) = (thousands(left_out), thousands(all));
        say("note", &format!("{left_out} of {all} images have no scores in one of the files and were left out"));
    }
    if let Some(page) = page {
        page.write(images.as_ref(), &comparison.a.run, |origin, pictures| {
            ComparisonReport { comparison: &comparison, labels: &labels, origin, pictures }.html()
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each number, or two: one for each file.
fn table(comparison: &Comparison, labels: &[Label]) -> String {
    let Comparison { a, b, left_out, top1, top5, same_prediction, largest_change, .. } = comparison;
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<18} {}", printable(value));
    };
    row("A", &a.file.display().to_string());
    row("B", &b.file.display().to_string());
    for (name, a, b) in comparison.differences() {
        // A long one in two lines.
        row(name, &format!("A {a}"));
        row("", &format!("B {b}"));
    }
    row("images", &thousands(comparison.images()));
    if *left_out > 0 {
        row("left out", &thousands(*left_out));
    }
    for (name, of) in [("top-1", Tally::top1 as fn(&Tally) -> Option<Accuracy>), ("top-5", Tally::top5)] {
        for (name, letter, side) in [(name, "A", a), ("", "B", b)] {
            row(name, &format!("{letter} {}", interval(of(&side.tally), percent)));
        }
    }
    row("cross-entropy", &both(a, b, |tally| tally.loss().map(|loss| format!("{loss:.4}"))));
    row("calibration error", &both(a, b, |tally| tally.calibration_error().map(percent)));
    for (name, count) in [
        ("right in both", top1.both),
        ("only A is right", top1.only_a),
        ("only B is right", top1.only_b),
        ("wrong in both", top1.neither),
        ("same prediction", *same_prediction),
    ] {
        let share = percent(count as f64 / comparison.images() as f64);
        row(name, &format!("{:<9} {share}", thousands(count)));
    }
    for (name, paired) in [("B - A, top-1", top1), ("B - A, top-5", top5)] {
        row(
            name,
            &format!("{}   McNemar's exact p {}", interval(paired.difference(), points), p_value(paired.mcnemar())),
        );
    }
    row("largest change", &largest_change.as_ref().map_or("none".into(), |found| change(found, labels)));
    for (place, (class, paired)) in comparison.moved_classes().into_iter().take(NAMED).enumerate() {
        row(if place == 0 { "classes that moved" } else { "" }, &class_move(&class_name(labels, class), &paired));
    }
    text.truncate(text.trim_end().len());
    text
}

/// A value with its interval.
fn interval(accuracy: Option<Accuracy>, words: impl Fn(f64) -> String) -> String {
    accuracy.map_or("-".into(), |Accuracy { value, low, high }| {
        format!("{}   95 % interval {} to {}", words(value), words(low), words(high))
    })
}

/// A number of each of the two.
fn both(a: &Side, b: &Side, number: impl Fn(&Tally) -> Option<String>) -> String {
    let [a, b] = [a, b].map(|side| number(&side.tally).unwrap_or("-".into()));
    format!("A {a}, B {b}")
}

fn change(change: &Change, labels: &[Label]) -> String {
    let [a, b] = change.words();
    format!("A {a}, B {b} for {} in {}", class_name(labels, change.class), change.path)
}

/// What to call a class: several may have one name.
fn class_name(labels: &[Label], class: u32) -> String {
    let Label { wnid, text } = &labels[class as usize];
    wnid.as_ref().map_or_else(|| text.clone(), |wnid| format!("{text} ({wnid})"))
}

fn class_move(name: &str, paired: &Paired) -> String {
    let images = paired.images();
    let [a, b] = [paired.right_a(), paired.right_b()].map(|right| percent(right as f64 / images as f64));
    format!("{name}: A {a}, B {b} of {} images", thousands(images))
}
