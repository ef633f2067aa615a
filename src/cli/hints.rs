//! What to do about an error on the command line. The library says what is wrong; here its variants become
//! advice.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::print::one_line;
use crate::error::{DatasetProblem, Error, PredictionsProblem};
use crate::text::printable;

/// An error in one line, with what can be done about it.
pub fn with_advice(error: &anyhow::Error) -> String {
    let text = one_line(error);
    match error.chain().find_map(|cause| cause.downcast_ref::<Error>()).and_then(advice) {
        Some(advice) => text + &advice,
        None => text,
    }
}

/// What to do, if there is anything to say: it follows the error's line.
fn advice(error: &Error) -> Option<String> {
    let words: &str = match error.root() {
        Error::TooLargeToAudit { .. } => "leave out --model and --weights to take a network that is made for it",
        // clap refuses an unknown --model and --family; what is left is the name in a file of predictions.
        Error::UnknownModel { .. } => "the file of predictions names a model that this version does not have",
        Error::Download { file, url, .. } => {
            return Some(format!(
                "\n  fetch {url} by hand, and name it: --weights {file}\n  or do without a download: --model \
                 qlnet-digits is built in"
            ));
        }
        Error::UnsupportedDevice { feature, .. } => {
            return Some(format!(
                "; build a program that has it with `cargo install --locked --path . --features {feature}`"
            ));
        }
        Error::OutOfMemory { batch: Some(batch), .. } => return Some(format!("; try --batch-size {batch}")),
        Error::OutOfMemory { .. } => "--device cpu has the machine's memory",
        Error::ExplicitSkips => "write them with --folded",
        Error::UnsupportedDtype { dtype: "tf32", .. } => "leave out --tf32, or say --dtype f32",
        Error::UnsupportedDtype { .. } => "use --dtype f32, or --device cpu",
        Error::Overflow { dtype: "f32" | "f64" } => "the weights may be damaged",
        Error::Overflow { .. } => "use --dtype f32",
        Error::Dataset { problem, .. } => match problem {
            DatasetProblem::UnknownFolders => {
                "say which classes they are with --class-map, move them away, or name the label of each image with \
                 --labels"
            }
            DatasetProblem::MixedForms => "keep one form, or name the labels of all with --labels",
            DatasetProblem::Numbers => {
                "say --zero-based if they are indices, or name the kit's map_clsloc.txt with --class-map"
            }
            DatasetProblem::NoLabels => "name a list of labels with --labels",
            DatasetProblem::OwnLabels => {
                "say which classes they are with --class-map, or name the label of each image with --labels"
            }
            DatasetProblem::Columns => "--input-key and --target-key name them",
            DatasetProblem::OtherOutputs => "--valid-labels must name the classes of all images",
            _ => return None,
        },
        Error::Predictions { problem, .. } => match problem {
            PredictionsProblem::Damaged => "without that row and what follows, --resume can go on",
            PredictionsProblem::Interrupted { file } => {
                return Some(format!(
                    "; go on with it by --resume {}, or delete it",
                    printable(&file.display().to_string())
                ));
            }
            PredictionsProblem::NotWritten => "--resume can go on with it",
            PredictionsProblem::OtherRun => {
                "give the same options as before, --device too if it says so, or begin another file with --predictions"
            }
            PredictionsProblem::Incomplete => "finish it with --resume",
            PredictionsProblem::Part => "put the shards together first, with --merge and --predictions",
            PredictionsProblem::Unlike => "evaluate both on the same images, with the same labels",
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("; {words}"))
}

/// What to do about arguments that clap refuses, where it does not say so itself.
pub fn tip(error: &clap::Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let is_part = |name: &str| [".tar", ".parquet"].iter().any(|ending| name.ends_with(ending));
    let several = "quote the names of several files, so that the shell leaves the braces, 'x-{00..63}.tar', or each set by --imagenet-val";
    match error.kind() {
        // A shell has made several arguments of one, and the second is the name of a file that can be a part of a set.
        ErrorKind::UnknownArgument => {
            context(ContextKind::InvalidArg).filter(|name| is_part(name)).map(|_| several.into())
        }
        // A second set beside the one that has a name: either may be called the one too many.
        ErrorKind::ArgumentConflict => {
            let is_path = |kind| context(kind) == Some("[PATH]");
            (is_path(ContextKind::InvalidArg) || is_path(ContextKind::PriorArg)).then(|| several.into())
        }
        ErrorKind::InvalidSubcommand => {
            let path = context(ContextKind::InvalidSubcommand)?;
            let shown = printable(path);
            Path::new(path).exists().then(|| format!("what is in pictures, says `qlnet classify {shown}`"))
        }
        _ => None,
    }
}
