//! Every family by a random element, and all of them together.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::arguments::Symmetry;
use super::outputs::Outputs;
use super::{Header, WEAK, joining, number, verdict};
use crate::cli::print::{print_and_go_on as print, to_json};
use crate::symmetry::check::{Change, Outcome, Subject};
use crate::symmetry::{Element, Family, Side, draw};
use crate::text::thousands;

pub fn run(
    args: &Symmetry,
    families: &[&'static dyn Family],
    subject: &Subject,
    header: &Header,
    outputs: Outputs,
) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        families: &'a [Outcome],
        /// All that keep the architecture one after the other, or all that were named.
        all: &'a Outcome,
    }
    let drawn = elements(args, families, subject)?;
    if !args.json {
        print(&header.line())?;
        print(&format!(
            "\n{:<20} {:>10} {:>10} {:>10} {:>10} {:>7}  verdict",
            "family", "dimensions", "weights", "logits", "control", "top-1"
        ))?;
    }
    let outcome = |family: &dyn Family, element: &Element| -> Result<Outcome> {
        let outcome = subject.outcome_of(family, args.layer, element)?;
        if !args.json {
            print(&row(&outcome, subject.tolerance()))?;
        }
        Ok(outcome)
    };
    // Those that do not join come after all together.
    let joins = |family: &&'static dyn Family| joining(args, &[*family]).next().is_some();
    let (joined, apart): (Vec<_>, Vec<_>) = drawn.into_iter().partition(|(family, _)| joins(family));
    let mut outcomes = joined.iter().map(|(family, element)| outcome(*family, element)).collect::<Result<Vec<_>>>()?;
    let dimensions = outcomes.iter().map(|outcome| outcome.dimensions).sum();
    let elements: Vec<Element> = joined.into_iter().map(|(_, element)| element).collect();
    let all = subject.outcome("all together", "", dimensions, &elements)?;
    if !args.json {
        print(&row(&all, subject.tolerance()))?;
    }
    for (family, element) in &apart {
        outcomes.push(outcome(*family, element)?);
    }
    let passed = all.passed && outcomes.iter().all(|outcome| outcome.passed);
    if args.json {
        print(&to_json(&Report { passed, header, families: &outcomes, all: &all })?)?;
    }
    if passed {
        outputs.save(|| Ok(subject.moved(&elements, Side::Both)?))?;
    }
    let stays = outcomes.iter().chain([&all]).all(|outcome| outcome.change.logit_change <= subject.tolerance());
    verdict(passed, if stays { WEAK } else { "the logits do not stay" })
}

/// A random element of each family that moves something here. Families that move nothing are passed over, unless
/// they were named.
fn elements(
    args: &Symmetry,
    families: &[&'static dyn Family],
    subject: &Subject,
) -> Result<Vec<(&'static dyn Family, Element)>> {
    let mut drawn = Vec::new();
    for &family in families {
        let element = draw(family, subject.weights(), args.layer, args.scale, args.seed)?;
        match element.is_empty() {
            false => drawn.push((family, element)),
            true => ensure!(args.family.is_empty(), "{} moves nothing in this network or layer", family.name()),
        }
    }
    Ok(drawn)
}

fn row(outcome: &Outcome, tolerance: f64) -> String {
    let Outcome { family, dimensions, change, control_logit_change, passed, .. } = outcome;
    let Change { weight_change, logit_change, top1_agreement, .. } = change;
    let verdict = match passed {
        true => "same output",
        false if *logit_change > tolerance => "OUTPUT CHANGED",
        false => "CONTROL TOO WEAK",
    };
    format!(
        "{family:<20} {:>10} {:>10} {logit_change:>10.1e} {control_logit_change:>10.1e} {:>5.0} %  {verdict}",
        if *dimensions > 0 { thousands(*dimensions as u64) } else { "discrete".into() },
        number(*weight_change),
        100.0 * top1_agreement
    )
}
