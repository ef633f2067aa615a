//! A walk through the group, step by step.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::arguments::Symmetry;
use super::outputs::Outputs;
use super::{Header, WEAK, joining, number, verdict};
use crate::cli::output::to_csv;
use crate::cli::print::{print_and_go_on as print, to_json};
use crate::symmetry::Family;
use crate::symmetry::check::{FAR, Subject};
use crate::symmetry::path::{Step, walk};
use crate::symmetry::plot;

pub fn run(
    args: &Symmetry,
    families: &[&'static dyn Family],
    subject: &Subject,
    header: &Header,
    steps: usize,
    outputs: Outputs,
) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Report<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        families: Vec<&'static str>,
        path: &'a [Step],
    }
    let families: Vec<&dyn Family> = joining(args, families).collect();
    let scale = args.scale.unwrap_or(1.0);
    let path = walk(subject, &families, args.layer, scale, steps, args.seed, |step| {
        let Step { t, weight_change, logit_change, control_logit_change } = step;
        if args.json {
            return Ok(());
        }
        if *t == 0.0 {
            print(&header.line())?;
            print(&format!("\n{:>8} {:>10} {:>10} {:>10}", "t", "weights", "logits", "control"))?;
        }
        let (t, weights) = (number(*t), number(*weight_change));
        print(&format!("{t:>8} {weights:>10} {logit_change:>10.1e} {control_logit_change:>10.1e}"))
    })?;
    let stays = path.iter().all(|step| step.logit_change <= subject.tolerance());
    let far = path.last().is_some_and(|step| step.control_logit_change >= FAR * subject.tolerance());
    let passed = stays && far;
    if args.json {
        let continuous = families.iter().filter(|family| family.dimensions(subject.weights().config(), args.layer) > 0);
        let families = continuous.map(|family| family.name()).collect();
        print(&to_json(&Report { passed, header, families, path: &path })?)?;
    }
    if let (Some(output), Some(file)) = (outputs.plot, &args.plot) {
        let what = match args.family.as_slice() {
            [] => "all continuous families".to_string(),
            names => names.join(", "),
        };
        let what = args.layer.map_or(what.clone(), |layer| format!("{what} of layer {layer}"));
        let model = Path::new(&header.model).file_name().unwrap_or_default().to_string_lossy();
        let title = format!("{model} along {what} ({}, seed {})", header.dtype, header.seed);
        output.write(&plot::draw(&path, &title, subject.tolerance(), file)?)?;
    }
    if let Some(output) = outputs.csv {
        output.write(&to_csv(&path)?)?;
    }
    verdict(passed, if stays { WEAK } else { "the logits do not stay on the path" })
}
