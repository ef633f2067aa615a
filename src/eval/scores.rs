//! What the network says of an image.

use crate::network::classifier::log_sum_exp;

/// How many of the most likely classes are kept of an image.
pub const TOP: usize = 5;

/// What is said of an image of which nobody knows what it shows.
pub const UNLABELLED: &str = "it has no label, so it is not scored";

/// What the network says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The most likely classes with their probabilities, by softmax over the outputs that count: all of the
    /// model's, or those of [`Scores::among`]. The most likely first, and of equal ones that with the lower
    /// index. [`TOP`] of them, or all.
    pub top: Vec<(u32, f32)>,
    /// Rank of the label among the outputs that count, from 1.
    pub rank: u32,
    /// Cross-entropy: `-ln` of the label's probability.
    pub loss: f32,
}

/// An image of a dataset with what came out for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// As [`Dataset::path`](crate::eval::dataset::Dataset::path).
    pub path: String,
    /// Index of the class that the image shows; `None` if that is not known, and then there are no scores.
    pub label: Option<u32>,
    /// The scores, or why there are none.
    pub scores: Result<Scores, String>,
    /// What is wrong with the file, although it was scored.
    pub warning: Option<String>,
}

impl Scores {
    /// From the logits of all classes, which must be finite, and the class that the image shows.
    ///
    /// # Panics
    /// If the label is none of the classes.
    pub fn new(logits: &[f32], label: u32) -> Self {
        let mut top: Vec<u32> = Vec::with_capacity(TOP + 1);
        for (index, logit) in (0..).zip(logits) {
            let place = top.partition_point(|other| logits[*other as usize] >= *logit);
            if place < TOP {
                top.insert(place, index);
                top.truncate(TOP);
            }
        }
        let normaliser = log_sum_exp(logits);
        let own = logits[label as usize];
        let before = |(index, logit): (usize, &f32)| *logit > own || (*logit == own && index < label as usize);
        let probability = |index: u32| (f64::from(logits[index as usize]) - normaliser).exp() as f32;
        Self {
            rank: 1 + logits.iter().enumerate().filter(|other| before(*other)).count() as u32,
            loss: (normaliser - f64::from(own)) as f32,
            top: top.into_iter().map(|index| (index, probability(index))).collect(),
        }
    }

    /// From the logits of all classes, of which only these outputs count, in ascending order: the others are
    /// left out before anything else, as timm's `--valid-labels` and the evaluation of ImageNet-A and ImageNet-R
    /// by their authors leave them out. Indices stay those of all classes.
    ///
    /// # Panics
    /// If the label is none of the outputs, or there are not so many logits.
    pub fn among(logits: &[f32], label: u32, outputs: &[u32]) -> Self {
        let place = outputs.partition_point(|output| *output < label);
        assert_eq!(outputs.get(place), Some(&label), "the label is none of the outputs");
        let logits: Vec<f32> = outputs.iter().map(|output| logits[*output as usize]).collect();
        let mut scores = Self::new(&logits, place as u32);
        scores.top.iter_mut().for_each(|(index, _)| *index = outputs[*index as usize]);
        scores
    }

    /// The most likely class, and its probability by softmax over the outputs that count.
    pub fn prediction(&self) -> (u32, f32) {
        self.top.first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_a_sorted_softmax() {
        let logits = [0.5f32, 2.0, -1.0, 2.0, 0.0, 1.0, -3.0];
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let scores = Scores::new(&logits, 5);
        assert_eq!(scores.top.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3, 5, 0, 4]);
        for (index, p) in &scores.top {
            assert!((f64::from(*p) - f64::from(logits[*index as usize]).exp() / sum).abs() < 1e-7);
        }
        assert_eq!(scores.rank, 3);
        assert!((f64::from(scores.loss) - (sum.ln() - 1.0)).abs() < 1e-6);
        // Of equal logits the lower index is the more likely.
        assert_eq!(Scores::new(&logits, 1).rank, 1);
        assert_eq!(Scores::new(&logits, 3).rank, 2);
        // Among some of the outputs: as if the others were not there, and still called as they are.
        let outputs = [0, 2, 4, 5];
        let sum: f64 = outputs.map(|index| f64::from(logits[index]).exp()).iter().sum();
        let scores = Scores::among(&logits, 4, &outputs.map(|index| index as u32));
        assert_eq!(scores.top.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [5, 0, 4, 2]);
        assert_eq!(scores.rank, 3);
        assert!((f64::from(scores.loss) - sum.ln()).abs() < 1e-6);
        assert!((f64::from(scores.prediction().1) - 1f64.exp() / sum).abs() < 1e-7);
        assert_eq!(Scores::among(&logits, 5, &[0, 1, 2, 3, 4, 5, 6]), Scores::new(&logits, 5));
        // Fewer classes than are kept, and logits that would overflow.
        let scores = Scores::new(&[3000.0, -3000.0], 1);
        assert_eq!((scores.top.len(), scores.rank, scores.loss), (2, 2, 6000.0));
    }
}
