//! Compares two files of predictions of the same images: what somebody needs who changed the weights, the element
//! type or the preprocessing.
//!
//! ```text
//! paired      two proportions of the same images: their difference, its interval, McNemar's test
//! matching    which row of one file is of the same image as which of the other
//! summary     the result as a program reads it
//! ```

mod matching;
mod paired;
mod summary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::matching::{Named, each_pair};
pub use self::paired::Paired;
pub use self::summary::ComparisonSummary;
use super::predictions::Shards;
use super::{Row, Run, Scores, TOP, Tally};
use crate::error::{PredictionsProblem, Result};
use crate::text::percent;

/// How many of the images are kept that only one of the two gets right, of each.
pub const KEPT: usize = 100;

/// Two files of predictions of the same images, side by side: A and B.
#[derive(Debug)]
pub struct Comparison {
    /// The first file.
    pub a: Side,
    /// The second file.
    pub b: Side,
    /// Images that have no scores in at least one of the two. They are in no other number.
    pub left_out: u64,
    /// Images whose label is the most likely class.
    pub top1: Paired,
    /// Images whose label is one of the five most likely classes.
    pub top5: Paired,
    /// Images with the same most likely class.
    pub same_prediction: u64,
    /// The largest difference of a probability; `None` if there is none.
    pub largest_change: Option<Change>,
    /// [`Self::top1`] by label.
    pub classes: BTreeMap<u32, Paired>,
    /// The images that only A gets right, those first of which A is surest: at most [`KEPT`].
    pub only_a: Vec<Pair>,
    /// The images that only B gets right, those first of which B is surest: at most [`KEPT`].
    pub only_b: Vec<Pair>,
}

/// One of the two files.
#[derive(Debug)]
pub struct Side {
    /// Where it is.
    pub file: PathBuf,
    /// What was evaluated, and how.
    pub run: Run,
    /// The sums of its rows for images that have scores in both files.
    pub tally: Tally,
    /// Images that have no scores here.
    pub errors: u64,
}

/// What both say of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// As [`Row::path`], in A.
    pub path: String,
    /// As [`Row::path`], in B.
    pub path_b: String,
    /// Index of the class that the image shows.
    pub label: u32,
    /// What A takes it for.
    pub a: Guess,
    /// What B takes it for.
    pub b: Guess,
}

/// The most likely class of an image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Its index.
    pub class: u32,
    /// Its probability.
    pub probability: f32,
    /// The probability of the label.
    pub label_probability: f32,
}

/// A class of an image with its probabilities. Of a class that is neither the label nor one of the five most
/// likely, it is only known what its probability is at most: that is what is here then.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// As [`Row::path`], in A.
    pub path: String,
    /// Index of the class.
    pub class: u32,
    /// Its probability in A.
    pub a: f32,
    /// Its probability in B.
    pub b: f32,
    /// Whether both are known.
    pub exact: bool,
}

impl Comparison {
    /// Reads both files, each of a whole run. Their rows are matched by the images' paths, or if these differ, as
    /// of a folder and an archive, by the names without folders and extension; in ImageNet's validation split by
    /// what ends with the number.
    ///
    /// # Errors
    /// [`Error::Predictions`](crate::Error::Predictions) if one is not complete or damaged, if they are not of the
    /// same images with the same labels and number of classes, or no image has scores in both;
    /// [`Error::Io`](crate::Error::Io) if one cannot be read.
    pub fn open(a: &Path, b: &Path) -> Result<Self> {
        let (ours, theirs) = (Shards::open_whole(a)?, Shards::open_whole(b)?);
        let unlike = |words: String| PredictionsProblem::Unlike.error(words);
        let classes = [&ours, &theirs].map(|shards| shards.run().classes);
        if classes[0] != classes[1] {
            let [one, other] = classes;
            return Err(unlike(format!("{} is of {one} classes, {} of {other}", a.display(), b.display())));
        }
        let mut comparison = Self::new(Side::new(a, ours.run()), Side::new(b, theirs.run()));
        let (one, other) = (Named { file: a, shards: &ours }, Named { file: b, shards: &theirs });
        each_pair(&one, &other, |a, b| comparison.add(a, b))?;
        if comparison.images() == 0 {
            return Err(unlike(format!("no image has scores in both {} and {}", a.display(), b.display())));
        }
        Ok(comparison)
    }

    fn new(a: Side, b: Side) -> Self {
        Self {
            a,
            b,
            left_out: 0,
            top1: Paired::default(),
            top5: Paired::default(),
            same_prediction: 0,
            largest_change: None,
            classes: BTreeMap::new(),
            only_a: Vec::new(),
            only_b: Vec::new(),
        }
    }

    /// Images that have scores in both.
    pub fn images(&self) -> u64 {
        self.top1.images()
    }

    /// What differs between the two runs, in words: what it is, how it is in A and in B.
    pub fn differences(&self) -> Vec<(&'static str, String, String)> {
        self.a.run.differences(&self.b.run)
    }

    /// The classes whose accuracy is another in B, by how far it moved; of equal ones the first.
    pub fn moved_classes(&self) -> Vec<(u32, Paired)> {
        let moved = |paired: &Paired| paired.difference().map_or(0.0, |difference| difference.value.abs());
        let classes = self.classes.iter().filter(|(_, paired)| paired.only_a != paired.only_b);
        let mut classes: Vec<_> = classes.map(|(class, paired)| (*class, *paired)).collect();
        // Stable: they are in order of their index.
        classes.sort_by(|(_, one), (_, other)| moved(other).total_cmp(&moved(one)));
        classes
    }

    /// Adds an image.
    fn add(&mut self, a: &Row, b: &Row) {
        self.a.errors += u64::from(a.scores.is_err());
        self.b.errors += u64::from(b.scores.is_err());
        let (Ok(ours), Ok(theirs), Some(label)) = (&a.scores, &b.scores, a.label) else {
            self.left_out += 1;
            return;
        };
        self.a.tally.add(a, None);
        self.b.tally.add(b, None);
        let right = |scores: &Scores, places: u32| scores.rank <= places;
        let (right_a, right_b) = (right(ours, 1), right(theirs, 1));
        self.top1.add(right_a, right_b);
        self.top5.add(right(ours, TOP as u32), right(theirs, TOP as u32));
        self.classes.entry(label).or_default().add(right_a, right_b);
        self.same_prediction += u64::from(ours.prediction().0 == theirs.prediction().0);
        if let Some(change) = change(&a.path, label, ours, theirs)
            && self.largest_change.as_ref().is_none_or(|largest| change.size() > largest.size())
        {
            self.largest_change = Some(change);
        }
        if right_a != right_b {
            let kept = if right_a { &mut self.only_a } else { &mut self.only_b };
            let sure = |pair: &Pair| if right_a { pair.a.probability } else { pair.b.probability };
            let (guess_a, guess_b) = (Guess::of(ours), Guess::of(theirs));
            let paths = (a.path.clone(), b.path.clone());
            let pair = Pair { path: paths.0, path_b: paths.1, label, a: guess_a, b: guess_b };
            let place = kept.partition_point(|other| sure(other) >= sure(&pair));
            if place < KEPT {
                kept.insert(place, pair);
                kept.truncate(KEPT);
            }
        }
    }
}

impl Side {
    fn new(file: &Path, run: &Run) -> Self {
        Self { file: file.to_path_buf(), run: run.clone(), tally: Tally::default(), errors: 0 }
    }
}

impl Guess {
    fn of(scores: &Scores) -> Self {
        let (class, probability) = scores.prediction();
        Self { class, probability, label_probability: (-scores.loss).exp() }
    }
}

impl Change {
    /// How far the probabilities are apart, at least.
    pub fn size(&self) -> f32 {
        (self.a - self.b).abs()
    }

    /// Both probabilities in words, of which the lower may only be known to be `at most 0.44 %`.
    pub fn words(&self) -> [String; 2] {
        [(self.a, self.a < self.b), (self.b, self.b < self.a)].map(|(p, lower)| {
            let bound = if lower && !self.exact { "at most " } else { "" };
            format!("{bound}{}", percent(f64::from(p)))
        })
    }
}

/// The largest difference of a probability in an image; `None` if there is none.
fn change(path: &str, label: u32, a: &Scores, b: &Scores) -> Option<Change> {
    let classes = a.top.iter().chain(&b.top).map(|(class, _)| *class).chain([label]);
    let change = |class| {
        let [(a, known_a), (b, known_b)] = [a, b].map(|scores| probability(scores, class, label));
        // Of what is at most so likely, nothing is known if the other is no likelier.
        let differs = if !known_a {
            b > a
        } else if !known_b {
            a > b
        } else {
            a != b
        };
        differs.then(|| Change { path: path.into(), class, a, b, exact: known_a && known_b })
    };
    classes.filter_map(change).max_by(|one, other| one.size().total_cmp(&other.size()))
}

/// The probability of a class, and whether that is known; if not, how much it is at most.
fn probability(scores: &Scores, class: u32, label: u32) -> (f32, bool) {
    if let Some((_, probability)) = scores.top.iter().find(|(other, _)| *other == class) {
        return (*probability, true);
    }
    if class == label {
        return ((-scores.loss).exp(), true);
    }
    let (last, sum) = scores.top.iter().fold((1.0f32, 0.0), |(_, sum), (_, p)| (*p, sum + p));
    (last.min((1.0 - sum).max(0.0)), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_that_is_not_known_is_bounded() {
        let scores = |top: &[(u32, f32)], rank, loss| Scores { top: top.to_vec(), rank, loss };
        let a = scores(&[(7, 0.9), (1, 0.04), (2, 0.03), (3, 0.01), (4, 0.01)], 9, 8.0);
        let b = scores(&[(0, 0.5), (1, 0.2), (2, 0.1), (3, 0.1), (4, 0.06)], 1, -(0.5f32.ln()));
        // Class 7 has at most what is left of B: 0.04. That is more than the label gained.
        let found = change("x", 0, &a, &b).unwrap();
        assert!((found.class, found.a, found.exact) == (7, 0.9, false) && (found.b - 0.04).abs() < 1e-6, "{found:?}");
        // With the label in its place, both are known.
        let b = Scores { loss: 3.0, ..b };
        let found = change("x", 7, &a, &b).unwrap();
        assert!(found.exact && found.b == (-3.0f32).exp(), "{found:?}");
        assert_eq!(change("x", 7, &a, &a), None);
    }
}
