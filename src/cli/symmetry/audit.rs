//! Whether the list of families is complete.

use std::process::ExitCode;

use anyhow::Result;

use super::arguments::Symmetry;
use super::verdict;
use crate::cli::print::{print_and_go_on as print, to_json};
use crate::symmetry::Family;
use crate::symmetry::audit::{Counted, audit, small};
use crate::text::thousands;
use crate::weights::Weights;

pub fn run(args: &Symmetry, families: &[&dyn Family]) -> Result<ExitCode> {
    let weights = match (&args.model.weights, &args.model.model) {
        (None, None) => Weights::random(&small(), args.seed)?,
        (None, Some(_)) if args.untrained => Weights::random(&(args.model.registered().config)(), args.seed)?,
        _ => args.model.weights()?.weights,
    };
    let audit = audit(&weights, families, args.seed)?;
    if args.json {
        print(&to_json(&audit)?)?;
    } else {
        let mut text = format!(
            "{}: {} parameters\nJacobian of the logits: {} equations, rank {}\n\
             last singular value that is not zero {:.1e}, first that is {:.1e} (relative to the largest)\n",
            audit.network,
            thousands(audit.parameters as u64),
            thousands(audit.equations as u64),
            audit.rank,
            audit.last_nonzero,
            audit.first_zero
        );
        for Counted { family, dimensions } in &audit.families {
            text += &format!("\n{family:<34} {dimensions:>6}");
        }
        if audit.scales > 0 {
            text += &format!("\n{:<34} {:>6}", "streams whose ball no pixel is inside", audit.scales);
        }
        text += &format!("\n{:<34} {:>6}", "all together", audit.expected);
        text += &format!("\n{:<34} {:>6}", "directions that change no logit", audit.null_space);
        print(&text)?;
    }
    verdict(audit.passed, "the families and the directions that change no logit do not agree in number")
}
