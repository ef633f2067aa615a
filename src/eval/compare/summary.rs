//! A comparison as a program reads it.

use serde::Serialize;

use super::{Change, Comparison, Pair, Paired, Side};
use crate::eval::{Accuracy, Run};

/// A comparison's result, as the program prints it in JSON. Accuracies are shares in 0..1.
#[derive(Clone, Debug, Serialize)]
pub struct ComparisonSummary<'a> {
    /// Images that have scores in both.
    pub images: u64,
    /// Images that have none in at least one.
    pub left_out: u64,
    /// The first file.
    pub a: SideSummary<'a>,
    /// The second file.
    pub b: SideSummary<'a>,
    /// What differs between the two runs.
    pub differences: Vec<Difference>,
    /// Images whose label is the most likely class.
    pub top1: PairedSummary,
    /// Images whose label is one of the five most likely classes.
    pub top5: PairedSummary,
    /// Images with the same most likely class.
    pub same_prediction: u64,
    /// The largest difference of a probability.
    pub largest_change: Option<&'a Change>,
    /// The classes whose accuracy is another, by how far it moved.
    pub classes: Vec<ClassMove>,
    /// As [`Comparison::only_a`].
    pub only_a_images: &'a [Pair],
    /// As [`Comparison::only_b`].
    pub only_b_images: &'a [Pair],
}

/// One of the two files.
#[derive(Clone, Debug, Serialize)]
pub struct SideSummary<'a> {
    /// Its name.
    pub file: String,
    /// Images that have no scores here.
    pub errors: u64,
    /// Share of the images whose label is the most likely class.
    pub top1: Option<f64>,
    /// Lower and upper end of its 95 % interval.
    pub top1_interval: Option<[f64; 2]>,
    /// Share of the images whose label is one of the five most likely classes.
    pub top5: Option<f64>,
    /// Lower and upper end of its 95 % interval.
    pub top5_interval: Option<[f64; 2]>,
    /// Mean cross-entropy, in nats.
    pub loss: Option<f64>,
    /// Expected calibration error.
    pub calibration_error: Option<f64>,
    /// What was evaluated, and how.
    #[serde(flatten)]
    pub run: &'a Run,
}

/// Something in which the runs differ, in words.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// What it is.
    pub name: &'static str,
    /// How it is in A.
    pub a: String,
    /// How it is in B.
    pub b: String,
}

/// What both get right.
#[derive(Clone, Debug, Serialize)]
pub struct PairedSummary {
    /// How many images.
    #[serde(flatten)]
    pub counts: Paired,
    /// How far B's accuracy is above A's.
    pub difference: Option<f64>,
    /// Lower and upper end of its 95 % interval, as [`Paired::difference`].
    pub difference_interval: Option<[f64; 2]>,
    /// As [`Paired::mcnemar`].
    pub mcnemar_p: f64,
}

/// A class whose accuracy is another.
#[derive(Clone, Debug, Serialize)]
pub struct ClassMove {
    /// Its index.
    pub index: u32,
    /// How many of its images have scores in both.
    pub images: u64,
    /// A's accuracy on it.
    pub top1_a: f64,
    /// B's accuracy on it.
    pub top1_b: f64,
    /// Images that only A gets right.
    pub only_a: u64,
    /// Images that only B gets right.
    pub only_b: u64,
}

impl<'a> ComparisonSummary<'a> {
    /// Of that comparison.
    pub fn new(comparison: &'a Comparison) -> Self {
        let differences = comparison.differences().into_iter().map(|(name, a, b)| Difference { name, a, b });
        Self {
            images: comparison.images(),
            left_out: comparison.left_out,
            a: SideSummary::new(&comparison.a),
            b: SideSummary::new(&comparison.b),
            differences: differences.collect(),
            top1: comparison.top1.into(),
            top5: comparison.top5.into(),
            same_prediction: comparison.same_prediction,
            largest_change: comparison.largest_change.as_ref(),
            classes: comparison.moved_classes().into_iter().map(ClassMove::from).collect(),
            only_a_images: &comparison.only_a,
            only_b_images: &comparison.only_b,
        }
    }
}

impl<'a> SideSummary<'a> {
    fn new(side: &'a Side) -> Self {
        let value = |accuracy: Option<Accuracy>| accuracy.map(|accuracy| accuracy.value);
        let interval = |accuracy: Option<Accuracy>| accuracy.map(|accuracy| accuracy.interval());
        let Side { file, run, tally, errors } = side;
        Self {
            file: file.display().to_string(),
            errors: *errors,
            top1: value(tally.top1()),
            top1_interval: interval(tally.top1()),
            top5: value(tally.top5()),
            top5_interval: interval(tally.top5()),
            loss: tally.loss(),
            calibration_error: tally.calibration_error(),
            run,
        }
    }
}

impl From<Paired> for PairedSummary {
    fn from(counts: Paired) -> Self {
        let difference = counts.difference();
        Self {
            counts,
            difference: difference.map(|difference| difference.value),
            difference_interval: difference.map(|difference| difference.interval()),
            mcnemar_p: counts.mcnemar(),
        }
    }
}

impl From<(u32, Paired)> for ClassMove {
    fn from((index, paired): (u32, Paired)) -> Self {
        let images = paired.images();
        let share = |right: u64| right as f64 / images as f64;
        Self {
            index,
            images,
            top1_a: share(paired.right_a()),
            top1_b: share(paired.right_b()),
            only_a: paired.only_a,
            only_b: paired.only_b,
        }
    }
}
