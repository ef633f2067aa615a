//! Adds up what came out for each image.

use std::collections::HashMap;

use super::scores::UNLABELLED;
use super::{Accuracy, Row, Scores, TOP};
use crate::eval::dataset::RealLabels;

/// Bins of the confidence, as in Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
/// Networks", 2017.
pub const BINS: usize = 15;
/// How many of the most confident mistakes are kept.
const MISTAKES: usize = 24;
/// How many examples are kept of a pair of classes.
const EXAMPLES: usize = 12;
/// How many images without scores are named; all are counted.
const NAMED: usize = 1000;

/// The sums of an evaluation. It grows with the classes that are confused, not with the images.
#[derive(Debug, Default)]
pub struct Tally {
    /// Images that were scored.
    pub images: u64,
    /// Images that could not be scored, because they cannot be read or overflow half precision.
    pub errors: u64,
    /// The first thousand of those.
    pub failed: Vec<Failed>,
    /// Images that were scored although something is wrong with the file.
    pub warnings: u64,
    /// Images whose label is the most likely class.
    pub top1: u64,
    /// Images whose label is one of the five most likely classes.
    pub top5: u64,
    /// Sum of the cross-entropies.
    loss: f64,
    /// Images that have labels in ImageNet-ReaL.
    pub real_images: u64,
    /// Images whose most likely class is one of their labels in ImageNet-ReaL.
    pub real: u64,
    /// Images of whose five most likely classes one is among their labels in ImageNet-ReaL.
    pub real_top5: u64,
    /// By label.
    pub classes: HashMap<u32, ClassTally>,
    /// By label and by the class that was found instead.
    pub confusions: HashMap<(u32, u32), Confusion>,
    /// By confidence, in steps of 1/15.
    pub bins: [Bin; BINS],
    /// The most confident first.
    pub mistakes: Vec<Mistake>,
}

/// An image without scores.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Failed {
    /// As [`Row::path`].
    pub path: String,
    /// Why it has none.
    pub error: String,
}

/// The images of one class.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassTally {
    /// Images that were scored.
    pub images: u64,
    /// Of these, images for which it is the most likely class.
    pub top1: u64,
    /// Of these, images for which it is one of the five most likely classes.
    pub top5: u64,
}

/// Images of one class that were taken for another.
#[derive(Debug, Default)]
pub struct Confusion {
    /// How many they are.
    pub count: u64,
    /// The paths of the most confident ones, with the confidence.
    pub examples: Vec<(f32, String)>,
}

/// Predictions of similar confidence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bin {
    /// Images that were scored with such a confidence.
    pub images: u64,
    /// Of these, images whose label is the most likely class.
    pub right: u64,
    /// Sum over these images.
    confidence: f64,
}

impl Bin {
    /// Mean confidence and share of right predictions; `None` if it is empty.
    pub fn means(&self) -> Option<(f64, f64)> {
        let images = self.images as f64;
        (self.images > 0).then(|| (self.confidence / images, self.right as f64 / images))
    }
}

/// A wrong prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// As [`Row::path`].
    pub path: String,
    /// The class that the image shows by its label.
    pub label: u32,
    /// The most likely class.
    pub predicted: u32,
    /// The probability of that class.
    pub confidence: f32,
    /// The probability of the label.
    pub label_probability: f32,
}

impl Tally {
    /// Adds an image, with its labels in ImageNet-ReaL if they are known. In another order of the images, the
    /// last bits of the loss may differ, and which of equally confident mistakes is kept.
    pub fn add(&mut self, row: &Row, real: Option<&RealLabels>) {
        let (scores, label) = match (&row.scores, row.label) {
            (Ok(scores), Some(label)) => (scores, label),
            (scores, _) => {
                self.errors += 1;
                if self.failed.len() < NAMED {
                    let error = scores.as_ref().err().map_or(UNLABELLED, String::as_str);
                    self.failed.push(Failed { path: row.path.clone(), error: error.into() });
                }
                return;
            }
        };
        let (predicted, confidence) = scores.prediction();
        let (right, near) = (u64::from(scores.rank == 1), u64::from(scores.rank <= TOP as u32));
        self.images += 1;
        self.warnings += u64::from(row.warning.is_some());
        self.top1 += right;
        self.top5 += near;
        self.loss += f64::from(scores.loss);
        let class = self.classes.entry(label).or_default();
        class.images += 1;
        class.top1 += right;
        class.top5 += near;
        let bin = &mut self.bins[((confidence * BINS as f32) as usize).min(BINS - 1)];
        bin.images += 1;
        bin.right += right;
        bin.confidence += f64::from(confidence);
        let real = real.map_or(&[][..], |real| real.of(&row.path));
        self.real_images += u64::from(!real.is_empty());
        self.real += u64::from(real.contains(&predicted));
        self.real_top5 += u64::from(scores.top.iter().any(|(class, _)| real.contains(class)));
        if scores.rank > 1 {
            self.add_mistake(row, label, scores);
        }
    }

    fn add_mistake(&mut self, row: &Row, label: u32, scores: &Scores) {
        let (predicted, confidence) = scores.prediction();
        let confusion = self.confusions.entry((label, predicted)).or_default();
        confusion.count += 1;
        let place = confusion.examples.partition_point(|(other, _)| *other >= confidence);
        if place < EXAMPLES {
            confusion.examples.insert(place, (confidence, row.path.clone()));
            confusion.examples.truncate(EXAMPLES);
        }
        let place = self.mistakes.partition_point(|other| other.confidence >= confidence);
        if place < MISTAKES {
            let label_probability = (-scores.loss).exp();
            let path = row.path.clone();
            self.mistakes.insert(place, Mistake { path, label, predicted, confidence, label_probability });
            self.mistakes.truncate(MISTAKES);
        }
    }

    /// Share of the images whose label is the most likely class; `None` if there is no image.
    pub fn top1(&self) -> Option<Accuracy> {
        Accuracy::new(self.top1, self.images)
    }

    /// Share of the images whose label is one of the five most likely classes; `None` if there is no image.
    pub fn top5(&self) -> Option<Accuracy> {
        Accuracy::new(self.top5, self.images)
    }

    /// Share of the images with labels in ImageNet-ReaL that were taken for one of them; `None` if there is
    /// no such image.
    pub fn real(&self) -> Option<Accuracy> {
        Accuracy::new(self.real, self.real_images)
    }

    /// Share of the images with labels in ImageNet-ReaL of whose five most likely classes one is among them, as timm's
    /// validate.py counts it; `None` if there is no such image.
    pub fn real_top5(&self) -> Option<Accuracy> {
        Accuracy::new(self.real_top5, self.real_images)
    }

    /// Mean cross-entropy, in nats; `None` if there is no image.
    pub fn loss(&self) -> Option<f64> {
        (self.images > 0).then(|| self.loss / self.images as f64)
    }

    /// Expected calibration error: how far confidence and accuracy are apart, on average over
    /// [`BINS`] bins weighted by their images; `None` if there is no image.
    pub fn calibration_error(&self) -> Option<f64> {
        let gap = |bin: &Bin| bin.means().map_or(0.0, |(confidence, right)| (confidence - right).abs());
        let sum: f64 = self.bins.iter().map(|bin| bin.images as f64 * gap(bin)).sum();
        (self.images > 0).then(|| sum / self.images as f64)
    }

    /// Pairs of label and prediction with how often they occurred; the most frequent first.
    pub fn most_confused(&self) -> Vec<((u32, u32), &Confusion)> {
        let mut pairs: Vec<_> = self.confusions.iter().map(|(pair, confusion)| (*pair, confusion)).collect();
        pairs.sort_by_key(|(pair, confusion)| (std::cmp::Reverse(confusion.count), *pair));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, label: u32, top: &[(u32, f32)], rank: u32, loss: f32) -> Row {
        Row {
            path: path.into(),
            label: Some(label),
            scores: Ok(Scores { top: top.to_vec(), rank, loss }),
            warning: None,
        }
    }

    #[test]
    fn sums_are_right() {
        let mut tally = Tally::default();
        for row in [
            row("a", 0, &[(0, 0.9), (1, 0.1)], 1, 0.1),
            row("b", 0, &[(1, 0.6), (0, 0.4)], 2, 0.9),
            row("c", 0, &[(1, 0.7), (2, 0.2)], 6, 3.0),
            row("d", 2, &[(1, 1.0), (2, 0.0)], 2, 9.0),
            Row { path: "e".into(), label: None, scores: Err("cut short".into()), warning: None },
        ] {
            tally.add(&row, None);
        }
        assert_eq!((tally.images, tally.errors, tally.top1, tally.top5), (4, 1, 1, 3));
        assert!((tally.loss().unwrap() - 13.0 / 4.0).abs() < 1e-6);
        // 0.9 right, 0.6, 0.7 and 1.0 wrong, each in a bin of its own.
        assert!((tally.calibration_error().unwrap() - (0.1 + 0.6 + 0.7 + 1.0) / 4.0).abs() < 1e-6);
        assert_eq!(tally.mistakes.iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["d", "c", "b"]);
        let pairs = tally.most_confused();
        assert_eq!((pairs[0].0, pairs[0].1.count), ((0, 1), 2));
        assert_eq!(pairs[0].1.examples, [(0.7, "c".to_string()), (0.6, "b".to_string())]);
        assert_eq!(tally.classes[&0].top5, 2);
        assert_eq!(tally.failed[0].path, "e");
    }
}
