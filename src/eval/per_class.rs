//! Accuracy per class.

use std::collections::HashMap;

use serde::Serialize;

use super::{Accuracy, Tally};
use crate::weights::registry::Label;

/// What came out for the images of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassRow {
    /// The model's output for this class.
    pub index: u32,
    /// WordNet id, where the model's classes have one.
    pub wnid: Option<String>,
    /// The name of the class.
    pub label: String,
    /// The number of images that show it.
    pub images: u64,
    /// Share of these for which it is the most likely class, in 0..1: the recall.
    pub top1: f64,
    /// Share of these for which it is one of the five most likely classes, in 0..1.
    pub top5: f64,
    /// The class that was found most often in its place; of equally frequent ones that with the lowest
    /// index.
    pub confused_with: Option<u32>,
    /// That class's WordNet id.
    pub confused_with_wnid: Option<String>,
    /// That class's name.
    pub confused_with_label: Option<String>,
    /// How often it was found.
    pub confused: u64,
    /// Share of the images taken for this class that show it, in 0..1; `None` if none is taken for it.
    pub precision: Option<f64>,
    /// The harmonic mean of precision and recall, in 0..1; 0 if no image is found.
    pub f1: f64,
    /// Lower end of the 95 % interval of [`Self::top1`], as [`Accuracy`].
    pub top1_low: f64,
    /// Upper end of it.
    pub top1_high: f64,
    /// How many images, of any class, are taken for this one.
    pub predicted: u64,
}

/// The classes that images show, by index.
///
/// # Panics
/// If there are fewer labels than the model that was evaluated has classes.
pub fn class_rows(tally: &Tally, labels: &[Label]) -> Vec<ClassRow> {
    let mut worst = HashMap::new();
    for ((label, predicted), confusion) in tally.most_confused() {
        worst.entry(label).or_insert((predicted, confusion.count));
    }
    let predicted = predicted(tally);
    let mut rows: Vec<_> = tally
        .classes
        .iter()
        .map(|(&index, class)| {
            let predicted = predicted.get(&index).copied().unwrap_or_default();
            let Accuracy { value: top1, low: top1_low, high: top1_high } =
                Accuracy::new(class.top1, class.images).unwrap_or(Accuracy { value: 0.0, low: 0.0, high: 1.0 });
            let (confused_with, confused) = worst.get(&index).copied().unzip();
            let other = confused_with.map(|other| &labels[other as usize]);
            ClassRow {
                index,
                wnid: labels[index as usize].wnid.clone(),
                label: labels[index as usize].text.clone(),
                images: class.images,
                top1,
                top5: class.top5 as f64 / class.images as f64,
                confused_with,
                confused_with_wnid: other.and_then(|other| other.wnid.clone()),
                confused_with_label: other.map(|other| other.text.clone()),
                confused: confused.unwrap_or_default(),
                precision: (predicted > 0).then(|| class.top1 as f64 / predicted as f64),
                f1: 2.0 * class.top1 as f64 / (class.images + predicted) as f64,
                top1_low,
                top1_high,
                predicted,
            }
        })
        .collect();
    rows.sort_by_key(|row| row.index);
    rows
}

/// How many images are taken for each class that some are taken for.
pub(super) fn predicted(tally: &Tally) -> HashMap<u32, u64> {
    let right = tally.classes.iter().map(|(class, counts)| (*class, counts.top1));
    let wrong = tally.confusions.iter().map(|((_, class), confusion)| (*class, confusion.count));
    let mut predicted = HashMap::new();
    right.chain(wrong).for_each(|(class, images)| *predicted.entry(class).or_default() += images);
    predicted
}
