//! A walk through the group, step by step.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::arguments::Symmetry;
use super::outputs::Outputs;
use super::report::{self, Report};
use super::{Asked, Header, WEAK, joining, number, verdict};
use crate::cli::output::to_csv;
use crate::cli::print::{print_and_go_on as print, to_json};
use crate::symmetry::Family;
use crate::symmetry::check::{FAR, Subject};
use crate::symmetry::page::{Course, Walk};
use crate::symmetry::path::{Step, walk};
use crate::symmetry::plot;

pub fn run(
    args: &Symmetry,
    families: &[&'static dyn Family],
    subject: &Subject,
    header: &Header,
    steps: usize,
    asked: &Asked,
    outputs: Outputs,
) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Json<'a> {
        passed: bool,
        #[serde(flatten)]
        header: &'a Header,
        families: Vec<&'static str>,
        path: &'a [Step],
        #[serde(skip_serializing_if = "Option::is_none")]
        walks: Option<&'a [Walk]>,
    }
    let config = subject.weights().config();
    // Of the families that were not named, those are passed over that lead nowhere here.
    let moves = |family: &&dyn Family| !args.family.is_empty() || family.dimensions(config, args.layer) > 0;
    let families: Vec<&dyn Family> =
        joining(args, families).map(|family| family as &dyn Family).filter(moves).collect();
    let scale = args.scale.unwrap_or(1.0);
    let shown = |step: &Step| if args.json { Ok(()) } else { show(step, header) };
    let course = Course { subject, labels: &asked.labels, layer: args.layer, scale, steps, seed: args.seed };
    let (path, walks) = if args.report.is_some() {
        let walks = report::walks(&course, &families, &args.family, shown)?;
        (walks[0].path.iter().map(|place| place.step).collect(), Some(walks))
    } else {
        (walk(subject, &families, args.layer, scale, steps, args.seed, shown)?, None)
    };
    let tolerance = subject.tolerance();
    let weak = path.last().is_none_or(|step: &Step| step.control_logit_change < FAR * tolerance);
    let stays = path.iter().all(|step| step.logit_change <= tolerance);
    let passed = stays && !weak && walks.iter().flatten().all(|walk| walk.passed);
    if args.json {
        let continuous = families.iter().filter(|family| family.dimensions(config, args.layer) > 0);
        let families = continuous.map(|family| family.name()).collect();
        print(&to_json(&Json { passed, header, families, path: &path, walks: walks.as_deref() })?)?;
    }
    if let (Some(output), Some(file)) = (outputs.plot, &args.plot) {
        output.write(&plot::draw(&path, &title(args, header), tolerance, file)?)?;
    }
    if let Some(output) = outputs.csv {
        output.write(&to_csv(&path)?)?;
    }
    if let (Some(output), Some(walks)) = (outputs.report, walks) {
        output.write(Report { course, walks, asked, header }.page()?.as_bytes())?;
    }
    verdict(passed, if stays { WEAK } else { "the logits do not stay on the path" })
}

/// Prints a place of the path, below the table's head.
fn show(step: &Step, header: &Header) -> Result<()> {
    let Step { t, weight_change, logit_change, control_logit_change } = step;
    if *t == 0.0 {
        print(&header.line())?;
        print(&format!("\n{:>8} {:>10} {:>10} {:>10}", "t", "weights", "logits", "control"))?;
    }
    let (t, weights) = (number(*t), number(*weight_change));
    print(&format!("{t:>8} {weights:>10} {logit_change:>10.1e} {control_logit_change:>10.1e}"))
}

/// What a picture of the path is called.
fn title(args: &Symmetry, header: &Header) -> String {
    let what = match args.family.as_slice() {
        [] => "all continuous families".to_string(),
        names => names.join(", "),
    };
    let what = args.layer.map_or(what.clone(), |layer| format!("{what} of layer {layer}"));
    let model = Path::new(&header.model).file_name().unwrap_or_default().to_string_lossy();
    format!("{model} along {what} ({}, seed {})", header.dtype, header.seed)
}
