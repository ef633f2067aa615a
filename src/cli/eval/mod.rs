//! `qlnet eval`: how accurate the network is.
//!
//! ```text
//! arguments     what can be asked for
//! sets          which sets of images that names
//! evaluation    one set: from what was asked for to its result
//! merge         what was evaluated before, put together
//! compare       two files of predictions, image by image
//! table         results as tables
//! outputs       the files that are written at the end
//! progress      what is shown meanwhile
//! verdict       the exit code
//! ```

mod arguments;
mod compare;
mod evaluation;
mod merge;
mod outputs;
mod progress;
mod sets;
mod table;
mod verdict;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use serde::Serialize;

pub use self::arguments::Eval;
use self::evaluation::{Prepared, Session};
use self::outputs::Outputs;
use self::sets::{Set, are_several, open, sets};
use self::table::{Collection, Line};
use self::verdict::Verdict;
use super::interruption::{INTERRUPTED, interruption};
use super::print::{print_and_go_on, say, to_json};
use crate::cli::data_sets;
use crate::eval::Summary;
use crate::eval::dataset::Listing;
use crate::text::thousands;

/// Evaluates images, or puts together what was evaluated before, or compares it.
pub fn run(args: &Eval) -> Result<ExitCode> {
    if let [a, b] = &args.results.compare[..] {
        return compare::run(args, a, b);
    }
    if args.results.merge.is_empty() { evaluate_sets(args) } else { merge::merge(args) }
}

/// Evaluates the sets that were named, one after the other.
fn evaluate_sets(args: &Eval) -> Result<ExitCode> {
    let sets = sets(args)?;
    let outputs = Outputs::create(args, &sets.iter().map(|set| &set.files).collect::<Vec<_>>())?;
    args.model.ensure_weights_are_there()?;
    // Parts of ImageNet-C are searched only when their turn comes: all together they have millions of images. What is
    // on the hub comes last: it may have to be downloaded.
    let mut listings: Vec<Option<Listing>> = sets.iter().map(|_| None).collect();
    for on_hub in [false, true] {
        for (set, listing) in sets.iter().zip(&mut listings) {
            if set.corrupted.is_none() && data_sets::is_on_hub(&set.path) == on_hub {
                *listing = Some(open(args, &set.path)?);
            }
        }
    }
    let model = args.model.registered();
    let (classifier, sha256) = args.model.load(args.preprocess.resolve(model)?)?;
    let (several, interrupted) = (are_several(&sets), Arc::default());
    let (verdict, noted) = (Verdict::default(), BTreeSet::new());
    let mut session = Session { args, classifier, sha256, several, interrupted, verdict, noted };
    // What is wrong with the labels of the last set is found out before the first is evaluated.
    let mut prepare =
        |(set, listing): (&Set, Option<_>)| listing.map(|listing| session.prepare(set, listing)).transpose();
    let prepared = sets.iter().zip(listings).map(&mut prepare).collect::<Result<Vec<_>>>()?;

    session.interrupted = interruption()?;
    let mut lines = Vec::new();
    let outcome = evaluate_all(&mut session, &sets, prepared, outputs, &mut lines);
    if several && !lines.is_empty() {
        show_all(args, &lines)?;
    }
    outcome?;
    let stopped = lines.len() < sets.len() || lines.iter().any(|line| !line.complete);
    if stopped { Ok(ExitCode::from(INTERRUPTED)) } else { session.verdict.exit(args) }
}

/// Evaluates set after set until somebody interrupts it. What is done is in `lines`, also after an error.
fn evaluate_all(
    session: &mut Session,
    sets: &[Set],
    prepared: Vec<Option<Prepared>>,
    outputs: Vec<Outputs>,
    lines: &mut Vec<Line>,
) -> Result<()> {
    for (place, ((set, prepared), outputs)) in sets.iter().zip(prepared).zip(outputs).enumerate() {
        if session.interrupted.load(Ordering::Relaxed) {
            let left = thousands((sets.len() - place) as u64);
            say("interrupted", &format!("{left} of {} sets are left", thousands(sets.len() as u64)));
            break;
        }
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => session.prepare(set, open(session.args, &set.path)?)?,
        };
        if session.several {
            say("progress", &format!("{}, set {} of {}", set.name, place + 1, sets.len()));
        }
        lines.push(session.evaluate(set, prepared, outputs)?);
    }
    Ok(())
}

/// Prints the result of the one set that was named.
fn show(args: &Eval, summary: &Summary, table: impl Fn(&Eval, &Summary) -> String) -> Result<()> {
    print_and_go_on(&if args.results.json { to_json(summary)? } else { table(args, summary) })
}

/// Prints what comes after the last of several sets.
fn show_all(args: &Eval, lines: &[Line]) -> Result<()> {
    if !args.results.json {
        return print_and_go_on(&table::of_sets(args, lines));
    }
    Collection::of(lines).iter().try_for_each(|collection| print_and_go_on(&to_json(collection)?))
}

/// The result of one of several sets, as a line of JSON.
#[derive(Serialize)]
struct InSet<'a> {
    set: &'a str,
    /// Of a part of ImageNet-C.
    #[serde(skip_serializing_if = "Option::is_none")]
    corruption: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<u8>,
    #[serde(flatten)]
    summary: &'a Summary<'a>,
}

impl<'a> InSet<'a> {
    fn new(set: &'a Set, summary: &'a Summary<'a>) -> Self {
        let part = set.corrupted.as_ref().map(|(_, part)| (part.corruption.name, part.severity));
        let (corruption, severity) = part.unzip();
        Self { set: &set.name, corruption, severity, summary }
    }
}
