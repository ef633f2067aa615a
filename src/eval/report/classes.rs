//! What the report says of each class.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::charts::{Bar, Curve};
use super::names::ClassName;
use super::pictures::Example;
use crate::eval::Tally;
use crate::eval::per_class::{ClassRow, predicted};
use crate::text::{count, percent, thousands};
use crate::weights::registry::Label;

/// With more classes than this, they are drawn as one curve and only the extremes are named.
const NAMED_CLASSES: usize = 40;
/// Named at either end of the curve.
const EXTREMES: usize = 12;

/// The classes that images show, the best first.
pub struct Classes {
    pub rows: Vec<TableRow>,
    /// Whether there are few enough that each has a bar.
    pub are_few: bool,
    /// Each class, or the hardest.
    pub bars: Vec<Bar>,
    /// The easiest, if not each has a bar.
    pub easiest: Vec<Bar>,
    pub curve: Curve,
    /// Accuracies that a quarter of the classes, half of them and three quarters do not reach.
    pub quartiles: [String; 3],
    /// Means over the classes, where a class counts as much as any other.
    pub means: String,
    /// Whether the model's classes have WordNet ids.
    pub have_wnids: bool,
}

/// A line of the table of classes.
pub struct TableRow {
    pub class: ClassName,
    pub images: u64,
    pub top1: Share,
    /// The 95 % interval of top-1.
    pub interval: String,
    pub top5: Share,
    pub precision: Option<Share>,
    pub f1: Share,
    pub confused_with: Option<ClassName>,
    /// How often, in words.
    pub confused: String,
}

/// A share as it is shown, and as it is sorted: in per cent.
pub struct Share {
    pub text: String,
    pub value: f64,
}

impl Share {
    pub fn new(share: f64) -> Self {
        Self { text: percent(share), value: 100.0 * share }
    }
}

impl Classes {
    pub fn new(tally: &Tally, mut rows: Vec<ClassRow>, labels: &[Label]) -> Option<Self> {
        rows.sort_by(|a, b| b.top1.total_cmp(&a.top1).then(a.index.cmp(&b.index)));
        let name = |index: u32| ClassName::new(labels, index);
        let bar = |row: &ClassRow| Bar::of_class(name(row.index), row, row.confused_with.map(name).as_ref());
        let last = rows.len().checked_sub(1)?;
        let are_few = rows.len() <= NAMED_CLASSES;
        let bars =
            if are_few { rows.iter().map(bar).collect() } else { rows.iter().rev().take(EXTREMES).map(bar).collect() };
        let easiest = if are_few { Vec::new() } else { rows.iter().take(EXTREMES).map(bar).collect() };
        let places: Vec<_> = rows.iter().map(|row| (name(row.index), row.top1)).collect();
        let mean = |of: fn(&ClassRow) -> f64| percent(rows.iter().map(of).sum::<f64>() / rows.len() as f64);
        Some(Self {
            are_few,
            bars,
            easiest,
            curve: Curve::new(&places, tally.top1()),
            quartiles: [3, 2, 1].map(|part| percent(rows[last * part / 4].top1)),
            means: format!(
                "top-1 (recall) {}, precision {}, F1 {}",
                mean(|row| row.top1),
                mean(|row| row.precision.unwrap_or_default()),
                mean(|row| row.f1)
            ),
            have_wnids: labels.iter().any(|label| label.wnid.is_some()),
            rows: rows.iter().map(|row| TableRow::new(row, labels)).collect(),
        })
    }

    /// The number of classes, in words.
    pub fn count(&self) -> String {
        thousands(self.rows.len() as u64)
    }
}

impl TableRow {
    fn new(row: &ClassRow, labels: &[Label]) -> Self {
        Self {
            class: ClassName::new(labels, row.index),
            images: row.images,
            top1: Share::new(row.top1),
            interval: interval(row),
            top5: Share::new(row.top5),
            precision: row.precision.map(Share::new),
            f1: Share::new(row.f1),
            confused_with: row.confused_with.map(|other| ClassName::new(labels, other)),
            confused: format!("{} of {}", thousands(row.confused), thousands(row.images)),
        }
    }

    /// The number of images, in words.
    pub fn count(&self) -> String {
        thousands(self.images)
    }
}

fn interval(row: &ClassRow) -> String {
    format!("{} to {}", percent(row.top1_low), percent(row.top1_high))
}

/// What the page's script shows of classes: the matrix of confusions, and the pictures of each class.
#[derive(Serialize)]
pub struct Data<'a> {
    /// Those that images show or are taken for, by their index.
    classes: Vec<ClassData>,
    /// Label and prediction, both by their index, how often, and which examples there are.
    pairs: Vec<(u32, u32, u64, Vec<usize>)>,
    examples: &'a [Example],
}

#[derive(Serialize)]
struct ClassData {
    index: u32,
    name: String,
    title: String,
    /// Images that show it.
    images: u64,
    top1: f64,
    /// What is said of it, by names.
    facts: Vec<(&'static str, String)>,
}

impl<'a> Data<'a> {
    pub fn new(tally: &Tally, rows: &[ClassRow], labels: &[Label], examples: &'a [Example]) -> Self {
        let rows: HashMap<u32, &ClassRow> = rows.iter().map(|row| (row.index, row)).collect();
        let predicted = predicted(tally);
        let indices: BTreeSet<u32> = rows.keys().chain(predicted.keys()).copied().collect();
        let class = |index: u32| {
            let name = ClassName::new(labels, index);
            let found = predicted.get(&index).copied().unwrap_or_default();
            let row = rows.get(&index);
            let facts = row.map_or_else(|| vec![("taken for it", count(found, "image"))], |row| facts(row, found));
            let (title, name) = (name.title(), name.text());
            let (images, top1) = row.map_or((0, 0.0), |row| (row.images, row.top1));
            ClassData { index, name, title, images, top1, facts }
        };
        let mut numbers: HashMap<(u32, u32), Vec<usize>> = HashMap::new();
        for (number, example) in examples.iter().enumerate() {
            numbers.entry((example.label, example.predicted)).or_default().push(number);
        }
        let right = tally.classes.iter().map(|(class, counts)| (*class, *class, counts.top1, Vec::new()));
        let wrong = tally.most_confused().into_iter().map(|(pair, confusion)| {
            let numbers = numbers.remove(&pair).unwrap_or_default();
            (pair.0, pair.1, confusion.count, numbers)
        });
        let mut pairs: Vec<_> = right.filter(|(_, _, count, _)| *count > 0).chain(wrong).collect();
        pairs.sort_by_key(|(label, predicted, count, _)| (*label, std::cmp::Reverse(*count), *predicted));
        Self { classes: indices.into_iter().map(class).collect(), pairs, examples }
    }
}

fn facts(row: &ClassRow, found: u64) -> Vec<(&'static str, String)> {
    vec![
        ("images", thousands(row.images)),
        ("taken for it", count(found, "image")),
        ("top-1 (recall)", percent(row.top1)),
        ("95 % interval", interval(row)),
        ("top-5", percent(row.top5)),
        ("precision", row.precision.map_or("-".into(), percent)),
        ("F1", percent(row.f1)),
    ]
}
