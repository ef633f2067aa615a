//! Accuracy per class.

use serde::Serialize;

use super::Tally;
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
    /// Share of these for which it is the most likely class, in 0..1.
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
}

/// The classes that images show, by index.
///
/// # Panics
/// If there are fewer labels than the model that was evaluated has classes.
pub fn class_rows(tally: &Tally, labels: &[Label]) -> Vec<ClassRow> {
    let mut worst = std::collections::HashMap::new();
    for ((label, predicted), confusion) in tally.most_confused() {
        worst.entry(label).or_insert((predicted, confusion.count));
    }
    let mut rows: Vec<_> = tally
        .classes
        .iter()
        .map(|(&index, class)| {
            let (confused_with, confused) = worst.get(&index).copied().unzip();
            let other = confused_with.map(|other| &labels[other as usize]);
            ClassRow {
                index,
                wnid: labels[index as usize].wnid.clone(),
                label: labels[index as usize].text.clone(),
                images: class.images,
                top1: class.top1 as f64 / class.images as f64,
                top5: class.top5 as f64 / class.images as f64,
                confused_with,
                confused_with_wnid: other.and_then(|other| other.wnid.clone()),
                confused_with_label: other.map(|other| other.text.clone()),
                confused: confused.unwrap_or_default(),
            }
        })
        .collect();
    rows.sort_by_key(|row| row.index);
    rows
}
