//! The paths that a page shows: where they lead, and what the network answers on the way.

use candle_core::Tensor;
use serde::Serialize;

use super::views::{Film, View, views};
use crate::error::{Error, Result};
use crate::symmetry::Family;
use crate::symmetry::check::{FAR, Subject};
use crate::symmetry::path::{Step, walk_with_weights};
use crate::weights::registry::Label;

/// How many classes of an answer are shown.
const TOP: usize = 5;
/// The name of the path along several families at once.
const TOGETHER: &str = "all together";

/// What all paths of a page have in common.
pub struct Course<'a> {
    /// The network, and the images that it is asked about.
    pub subject: &'a Subject,
    /// What its outputs mean.
    pub labels: &'a [Label],
    /// The only layer that is moved, if there is one.
    pub layer: Option<usize>,
    /// How far the paths lead.
    pub scale: f64,
    /// In how many steps.
    pub steps: usize,
    /// What the paths are drawn with.
    pub seed: u64,
}

/// A path along one family, or several at once.
#[derive(Debug, Serialize)]
pub struct Walk {
    /// The family's name, or `all together`.
    pub family: String,
    /// What it does, in a sentence.
    #[serde(skip)]
    pub words: String,
    /// The dimension of the group.
    pub dimensions: usize,
    /// Whether the logits stayed all along, and those of the control had gone far at the end.
    pub passed: bool,
    /// Its places.
    pub path: Vec<Place>,
    /// What the views of the weights show.
    #[serde(skip)]
    pub film: Film,
}

/// A place on a path, and the answers there.
#[derive(Debug, Serialize)]
pub struct Place {
    /// How far weights and logits have moved.
    #[serde(flatten)]
    pub step: Step,
    /// For each image, the most likely classes.
    pub top: Vec<Vec<Answer>>,
    /// The same by the half of the elements that is no symmetry.
    pub control_top: Vec<Vec<Answer>>,
}

/// One of the classes that an image may belong to.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Index of the output, from 0.
    pub index: usize,
    /// The name of the class.
    pub label: String,
    /// From 0 to 1, by softmax over all classes.
    pub probability: f64,
    /// The output itself.
    pub logit: f64,
}

impl Course<'_> {
    /// What is shown of the weights.
    pub fn views(&self) -> Vec<View> {
        views(self.subject.weights().config())
    }

    /// Walks along families at once, and shows each place to `each`.
    ///
    /// # Errors
    /// As [`walk`](crate::symmetry::walk).
    pub fn walk<E: From<Error>>(
        &self,
        families: &[&dyn Family],
        mut each: impl FnMut(&Step) -> Result<(), E>,
    ) -> Result<Walk, E> {
        let &Self { subject, layer, scale, steps, seed, .. } = self;
        let views = self.views();
        let (mut path, mut film) = (Vec::new(), Vec::new());
        walk_with_weights(subject, families, layer, scale, steps, seed, |step, compared| {
            let (top, control_top) = (self.answers(&compared.logits)?, self.answers(&compared.control_logits)?);
            film.push(views.iter().map(|view| view.values(&compared.moved)).collect::<Result<_>>()?);
            each(&step)?;
            path.push(Place { step, top, control_top });
            Ok::<(), E>(())
        })?;
        let tolerance = subject.tolerance();
        let stays = path.iter().all(|place| place.step.logit_change <= tolerance);
        let far = path.last().is_some_and(|place| place.step.control_logit_change >= FAR * tolerance);
        let dimensions = families.iter().map(|family| family.dimensions(subject.weights().config(), layer)).sum();
        let (family, words) = match families {
            [family] => (family.name(), family.in_words().to_string()),
            _ => {
                let names: Vec<_> = families.iter().map(|family| family.name()).collect();
                (TOGETHER, format!("One after the other: {}.", names.join(", ")))
            }
        };
        Ok(Walk { family: family.into(), words, dimensions, passed: stays && far, path, film })
    }

    /// The most likely classes of each image; none of an image on which the network overflows.
    fn answers(&self, logits: &Tensor) -> Result<Vec<Vec<Answer>>> {
        Ok(logits.to_vec2::<f64>()?.iter().map(|logits| answers(logits, self.labels)).collect())
    }
}

fn answers(logits: &[f64], labels: &[Label]) -> Vec<Answer> {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Vec::new();
    }
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let normaliser = largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Stable: of equal logits the lower index comes first.
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let answer = |index: usize| Answer {
        index,
        label: labels.get(index).map_or_else(|| format!("class {index}"), |label| label.text.clone()),
        probability: (logits[index] - normaliser).exp(),
        logit: logits[index],
    };
    order.into_iter().take(TOP).map(answer).collect()
}

/// The digits after the point, from 2 to 4, to which no answer of a symmetry changes on any path: in percent, and of
/// a logit. If they change even with two, it is two, and the change is seen.
pub fn steady_decimals(walks: &[Walk]) -> usize {
    let shown = |decimals: usize, place: &Place| -> Vec<(usize, String, String)> {
        let answers = place.top.iter().flatten();
        let text = |number: f64| format!("{number:.decimals$}");
        answers.map(|answer| (answer.index, text(100.0 * answer.probability), text(answer.logit))).collect()
    };
    let steady = |decimals: &usize| {
        let mut places = walks.iter().flat_map(|walk| &walk.path).map(|place| shown(*decimals, place));
        let first = places.next();
        places.all(|place| Some(place) == first)
    };
    (2..=4).rev().find(steady).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::network::Precision;
    use crate::symmetry::check::noise;
    use crate::symmetry::families::find;
    use crate::symmetry::page::views::Kind;
    use crate::weights::Weights;
    use crate::weights::config::Config;

    fn labels() -> Vec<Label> {
        Label::for_outputs(Vec::new(), 10)
    }

    #[test]
    fn a_walk_moves_what_is_shown_and_keeps_the_answers() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
        let subject = Subject::new(&weights, &noise(2, 32, 1).unwrap(), Precision::F32, &Device::Cpu).unwrap();
        let labels = labels();
        let course = Course { subject: &subject, labels: &labels, layer: None, scale: 1.0, steps: 3, seed: 2 };
        let walk = course.walk(&find(&["filter-mixing"]).unwrap(), |_| Ok::<(), Error>(())).unwrap();
        assert!(walk.passed && walk.path.len() == 4 && walk.dimensions == 1792, "{}", walk.dimensions);
        let views = course.views();
        for (place, view) in views.iter().enumerate() {
            let moves = walk.film[3][place] != walk.film[0][place];
            // Kernels with their biases, and what reads them.
            let expected = view.conv.ends_with("conv2") || view.conv.ends_with("conv3") && view.kind == Kind::Matrix;
            assert_eq!(moves, expected, "{view:?}");
        }
        let (start, end) = (&walk.path[0], &walk.path[3]);
        for image in 0..2 {
            let answers =
                |place: &Place| -> Vec<usize> { place.top[image].iter().map(|answer| answer.index).collect() };
            assert_eq!((answers(start), start.top[image].len()), (answers(end), TOP));
            let logit = |answers: &[Vec<Answer>]| answers[image][0].logit;
            assert!((logit(&start.top) - logit(&end.top)).abs() < 1e-4);
            assert!((logit(&start.top) - logit(&end.control_top)).abs() > 1e-4);
            assert_eq!(logit(&start.top), logit(&start.control_top));
        }
        assert!(steady_decimals(&[walk]) >= 2);
    }

    #[test]
    fn answers_are_in_order_and_shares_of_one() {
        let found = answers(&[1.0, 3.0, -700.0, 3.0, 2.0, 0.0], &labels());
        assert_eq!(found.iter().map(|answer| answer.index).collect::<Vec<_>>(), [1, 3, 4, 0, 5]);
        let sum: f64 = found.iter().map(|answer| answer.probability).sum();
        assert!((sum - 1.0).abs() < 1e-12 && found[0].label == "class 1" && found[2].logit == 2.0);
        assert!(answers(&[0.0, f64::INFINITY], &labels()).is_empty());
    }

    #[test]
    fn digits_that_change_are_not_shown() {
        let walk = |logit: f64| {
            let answer = Answer { index: 1, label: "1".into(), probability: 0.5, logit };
            let step = Step { t: 0.0, weight_change: 0.0, logit_change: 0.0, control_logit_change: 0.0 };
            let place = Place { step, top: vec![vec![answer]], control_top: Vec::new() };
            let (family, words, path) = (String::new(), String::new(), vec![place]);
            Walk { family, words, dimensions: 1, passed: true, path, film: Vec::new() }
        };
        for (logit, decimals) in [(1.00001, 4), (1.0004, 3), (1.004, 2), (1.2, 2)] {
            assert_eq!(steady_decimals(&[walk(1.0), walk(logit)]), decimals, "{logit}");
        }
    }
}
