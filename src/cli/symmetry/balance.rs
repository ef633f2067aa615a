//! What evening out the weights does to the logits in half precision.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::arguments::Symmetry;
use super::outputs::Outputs;
use super::{Header, number, verdict};
use crate::cli::print::{print_and_go_on as print, to_json};
use crate::network::Precision;
use crate::symmetry::balance::{self, HalfPrecision};
use crate::symmetry::check::{Change, Subject};

pub fn run(args: &Symmetry, subject: &Subject, header: &Header, outputs: Outputs) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        #[serde(flatten)]
        change: Change,
        half_precision: &'a [HalfPrecision],
    }
    let balanced = balance::balance(subject.weights())?;
    let change = subject.compare(&balanced)?;
    let passed = change.logit_change <= subject.tolerance();
    let half = [Precision::F16, Precision::Bf16].map(|dtype| subject.half_precision(&balanced, dtype));
    let half = half.into_iter().collect::<Result<Vec<_>, _>>()?;
    if args.json {
        print(&to_json(&Report { passed, header, change, half_precision: &half })?)?;
    } else {
        print(&header.line())?;
        print(&format!(
            "\nbalanced: weights moved {}, logits {:.1e}\n\nlogits in half precision, off those in {} by\n{:<6} {:>10} {:>10}",
            number(change.weight_change),
            change.logit_change,
            header.dtype,
            "",
            "as given",
            "balanced"
        ))?;
        for HalfPrecision { dtype, given, balanced } in &half {
            let verdict = if *balanced < 0.8 * given { "better" } else { "no better" };
            print(&format!("{dtype:<6} {given:>10.1e} {balanced:>10.1e}  {verdict}"))?;
        }
    }
    if passed {
        outputs.save(|| Ok(balanced))?;
    }
    verdict(passed, "balancing changes the logits")
}
