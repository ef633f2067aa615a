//! What preparing the weights for int8 brings, step by step.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::arguments::Symmetry;
use super::outputs::Outputs;
use super::{DIGITS, Header, NOISE, verdict};
use crate::cli::print::{print_and_go_on as print, to_json};
use crate::network::Precision;
use crate::symmetry::balance::balance_products;
use crate::symmetry::check::{FAR, Subject};
use crate::symmetry::prepare::{Preparation, Step};
use crate::symmetry::{Element, FAMILIES, Side, draw};
use crate::weights::Weights;

/// How many random moves along all families are tried.
const MOVES: u64 = 3;

/// What some steps bring.
#[derive(Serialize)]
struct Row {
    /// The steps, or what else was done.
    weights: String,
    /// Of the logits in int8: root mean square, relative to that of the exact logits.
    error: f64,
    /// The largest change of a logit in the precision of the check, relative to the largest.
    logit_change: f64,
    /// The same by the half of the steps that is no symmetry, if there is such a half.
    control_logit_change: Option<f64>,
}

/// The error before and after preparation, from another place in the group.
#[derive(Serialize)]
struct Moved {
    seed: u64,
    error: f64,
    prepared_error: f64,
    /// Of the prepared weights, relative to those that were given.
    logit_change: f64,
}

pub fn run(args: &Symmetry, subject: &Subject, header: &Header, outputs: Outputs) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        rows: &'a [Row],
        moved: &'a [Moved],
    }
    let shown = |line: String| if args.json { Ok(()) } else { print(&line) };
    shown(header.line())?;
    let images = match args.image.len() {
        0 => format!("{} digits and {NOISE} images of noise", DIGITS.len()),
        1 => "the image that was named".into(),
        named => format!("the {named} images that were named"),
    };
    let dtype = header.dtype;
    shown(format!("error of the logits in int8, root mean square relative to that of those in {dtype}, on {images}"))?;
    shown(format!("\n{:<26} {:>8} {:>10} {:>10}", "weights", "error", "logits", "control"))?;
    let (rows, prepared) = rows(subject, |row| shown(row.line()))?;
    shown(format!("\n{:<26} {:>8} {:>10} {:>10}", "after random moves", "error", "prepared", "logits"))?;
    let moved = (0..MOVES).map(|i| {
        let moved = Moved::new(subject, args.seed.wrapping_add(i))?;
        shown(moved.line())?;
        Ok(moved)
    });
    let moved = moved.collect::<Result<Vec<_>>>()?;
    if let [given, .., all] = &rows[..] {
        shown(format!(
            "\nprepared by all steps, as --dtype int8 computes, the error is {:.2} times that of the weights as given",
            all.error / given.error
        ))?;
    }
    let changes = rows.iter().map(|row| row.logit_change).chain(moved.iter().map(|moved| moved.logit_change));
    let stays = changes.into_iter().all(|change| change <= subject.tolerance());
    let mut controls = rows.iter().filter_map(|row| row.control_logit_change);
    let passed = stays && controls.all(|change| change >= FAR * subject.tolerance());
    if args.json {
        print(&to_json(&Report { passed, header, rows: &rows, moved: &moved })?)?;
    }
    if passed {
        outputs.save(|| Ok(prepared))?;
    }
    let failure = if stays { "a control hardly moves the logits" } else { "the preparation changes the logits" };
    verdict(passed, failure)
}

/// As given, with even products, by each step alone, by all without each, and by all; and the weights that the last makes.
fn rows(subject: &Subject, shown: impl Fn(&Row) -> Result<()>) -> Result<(Vec<Row>, Weights)> {
    let preparation = Preparation::new(subject.weights())?;
    let mut rows = Vec::new();
    let mut add = |row: Row| -> Result<()> {
        shown(&row)?;
        rows.push(row);
        Ok(())
    };
    add(Row::of("as given", subject, subject.weights(), &[])?)?;
    let moved = |name: &str, elements: &[Element]| -> Result<(Row, Weights)> {
        let weights = subject.moved(elements, Side::Both)?;
        Ok((Row::of(name, subject, &weights, elements)?, weights))
    };
    add(moved("product balance and scale", &balance_products(subject.weights())?)?.0)?;
    let by = |name: &str, steps: &[Step]| moved(name, &preparation.elements(steps)?);
    for step in Step::ALL {
        add(by(step.name(), &[step])?.0)?;
    }
    for left_out in Step::ALL {
        let steps: Vec<Step> = Step::ALL.into_iter().filter(|step| *step != left_out).collect();
        add(by(&format!("all but {}", left_out.name()), &steps)?.0)?;
    }
    let (all, prepared) = by("all", &Step::ALL)?;
    add(all)?;
    Ok((rows, prepared))
}

impl Row {
    /// `weights` were moved by `elements`.
    fn of(name: &str, subject: &Subject, weights: &Weights, elements: &[Element]) -> Result<Self> {
        // Where no step moves anything, neither does a control.
        let elements = Some(elements).filter(|elements| !elements.is_empty());
        let control = elements.map(|elements| subject.compare(&subject.moved(elements, Side::Writing)?));
        Ok(Self {
            weights: name.into(),
            error: subject.relative_error_in(weights, Precision::Int8)?,
            logit_change: subject.compare(weights)?.logit_change,
            control_logit_change: control.transpose()?.map(|change| change.logit_change),
        })
    }

    fn line(&self) -> String {
        let control = self.control_logit_change.map_or_else(String::new, |change| format!("{change:.1e}"));
        let line =
            format!("{:<26} {:>6.3} % {:>10.1e} {control:>10}", self.weights, 100.0 * self.error, self.logit_change);
        line.trim_end().to_string()
    }
}

impl Moved {
    /// Moves the weights by an element of every family that keeps the architecture, and prepares them then.
    fn new(subject: &Subject, seed: u64) -> Result<Self> {
        let families = FAMILIES.into_iter().filter(|family| family.keeps_architecture());
        let elements =
            families.map(|family| draw(family, subject.weights(), None, None, seed)).collect::<Result<Vec<_>, _>>()?;
        let moved = subject.moved(&elements, Side::Both)?;
        let prepared = crate::symmetry::prepare_for_int8(&moved)?;
        Ok(Self {
            seed,
            error: subject.relative_error_in(&moved, Precision::Int8)?,
            prepared_error: subject.relative_error_in(&prepared, Precision::Int8)?,
            logit_change: subject.compare(&prepared)?.logit_change,
        })
    }

    fn line(&self) -> String {
        let Self { seed, error, prepared_error, logit_change } = self;
        let name = format!("seed {seed}");
        format!("{name:<26} {:>6.3} % {:>8.3} % {logit_change:>10.1e}", 100.0 * error, 100.0 * prepared_error)
    }
}
