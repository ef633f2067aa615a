//! Puts together what was evaluated before.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::arguments::Eval;
use super::outputs::{Outcome, Outputs, title};
use super::sets::{Files, open};
use super::verdict::Verdict;
use super::{show, table};
use crate::error::Error;
use crate::eval::Summary;
use crate::eval::dataset::RealLabels;
use crate::eval::predictions::{Shards, Writer};
use crate::weights::registry::{self, Label};

/// Prints what files of predictions say together.
pub fn merge(args: &Eval) -> Result<ExitCode> {
    let files = &args.results.merge;
    ensure!(args.sets().len() <= 1, "the files of --merge are of one set of images; name it once");
    let named = Files::named(&args.results);
    let outputs = Outputs::create(args, &[&named])?;
    let shards = Shards::open(files)?;
    let run = shards.run();
    let labels = Label::for_outputs(registry::find(&run.model)?.labels(), run.classes);
    let real = match &args.labels.real_labels {
        Some(file) => {
            let mut paths = Vec::new();
            shards.for_each(|row| {
                paths.push(row.path);
                Ok::<_, Error>(())
            })?;
            Some(RealLabels::open(file, paths.iter().map(String::as_str), run.classes)?)
        }
        None => None,
    };
    let images = args.sets().first().map(|path| open(args, path)).transpose()?;
    let mut writer = match &args.results.predictions {
        Some(path) => Some(Writer::create(path, run.clone())?),
        None => None,
    };
    let tally = shards.tally(real.as_ref(), writer.as_mut())?;
    let summary = Summary::new(&tally, run, None);
    let data = args.sets().first().unwrap_or(&files[0]);
    let printed = show(args, &summary, table::table);
    if let Some(writer) = writer {
        writer.finish()?;
    }
    for outputs in outputs {
        let (data, images) = (title(data), images.as_ref());
        let outcome = Outcome { data: &data, summary: &summary, tally: &tally, labels: &labels, images, process: None };
        outputs.write(outcome)?;
    }
    printed?;
    let mut verdict = Verdict::default();
    verdict.add(None, &tally);
    verdict.exit(args)
}
