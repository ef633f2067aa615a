//! The result of an evaluation in few numbers.

use std::time::Duration;

use serde::Serialize;

use super::{Accuracy, Failed, Run, Shard, Tally};
use crate::eval::dataset::Selection;
use crate::text::thousands;

/// An evaluation's result, as the program prints it in JSON. Accuracies are shares in 0..1; a value is `null`
/// if no image gives one.
#[derive(Clone, Debug, Serialize)]
pub struct Summary<'a> {
    /// Images that were scored.
    pub images: u64,
    /// Images that could not be scored.
    pub errors: u64,
    /// Images that were scored although something is wrong with the file.
    pub warnings: u64,
    /// Share of the images whose label is the most likely class.
    pub top1: Option<f64>,
    /// Lower and upper end of its 95 % interval.
    pub top1_interval: Option<[f64; 2]>,
    /// Share of the images whose label is one of the five most likely classes.
    pub top5: Option<f64>,
    /// Lower and upper end of its 95 % interval.
    pub top5_interval: Option<[f64; 2]>,
    /// Share of the images whose most likely class is one of their labels in ImageNet-ReaL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real: Option<f64>,
    /// Lower and upper end of its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_interval: Option<[f64; 2]>,
    /// Share of the images of whose five most likely classes one is among their labels in ImageNet-ReaL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_top5: Option<f64>,
    /// Lower and upper end of its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_top5_interval: Option<[f64; 2]>,
    /// Images that have labels in ImageNet-ReaL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_images: Option<u64>,
    /// Mean cross-entropy, in nats.
    pub loss: Option<f64>,
    /// Expected calibration error, as [`Tally::calibration_error`].
    pub calibration_error: Option<f64>,
    /// Speed of this process, without loading the model.
    pub images_per_second: Option<f64>,
    /// How long the images took that this process evaluated.
    pub seconds: Option<f64>,
    /// Whether every image of this run was evaluated.
    pub complete: bool,
    /// What was evaluated, and how.
    #[serde(flatten)]
    pub run: &'a Run,
    /// The first thousand images without scores.
    pub failed: &'a [Failed],
}

impl<'a> Summary<'a> {
    /// From the sums of a run. `timing` says how many images were evaluated just now, and how long that took.
    pub fn new(tally: &'a Tally, run: &'a Run, timing: Option<(u64, Duration)>) -> Self {
        let value = |accuracy: Option<Accuracy>| accuracy.map(|accuracy| accuracy.value);
        let interval = |accuracy: Option<Accuracy>| accuracy.map(|accuracy| accuracy.interval());
        let timing = timing.map(|(images, time)| (images as f64, time.as_secs_f64())).filter(|(n, _)| *n > 0.0);
        let expected = run.shard.images(run.data.images).count() as u64;
        Self {
            images: tally.images,
            errors: tally.errors,
            warnings: tally.warnings,
            top1: value(tally.top1()),
            top1_interval: interval(tally.top1()),
            top5: value(tally.top5()),
            top5_interval: interval(tally.top5()),
            real: value(tally.real()),
            real_interval: interval(tally.real()),
            real_top5: value(tally.real_top5()),
            real_top5_interval: interval(tally.real_top5()),
            real_images: (tally.real_images > 0).then_some(tally.real_images),
            loss: tally.loss(),
            calibration_error: tally.calibration_error(),
            images_per_second: timing.map(|(images, seconds)| images / seconds),
            seconds: timing.map(|(_, seconds)| seconds),
            complete: tally.images + tally.errors == expected,
            run,
            failed: &tally.failed,
        }
    }

    /// What was evaluated, if it is not all of the images.
    pub fn part(&self) -> Option<String> {
        let Run { selection, shard, data, .. } = self.run;
        let mut parts = Vec::new();
        if *selection != Selection::All {
            parts.push(selection.to_string());
        }
        if *shard != Shard::WHOLE {
            parts.push(format!("shard {shard}"));
        }
        if !self.complete {
            let expected = shard.images(data.images).count() as u64;
            parts.push(format!(
                "interrupted after {} of {}",
                thousands(self.images + self.errors),
                thousands(expected)
            ));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}
