//! What images without scores mean for the exit code.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::arguments::Eval;
use crate::cli::print::say;
use crate::eval::Tally;
use crate::text::thousands;

/// Images without scores are an error unless they were accepted.
#[derive(Default)]
pub struct Verdict {
    /// How many of a set, in words.
    without_scores: Vec<String>,
    /// Whether there is a set of which no image was scored.
    nothing: bool,
}

impl Verdict {
    /// Takes in the result of a set, which has a name if there are several.
    pub fn add(&mut self, name: Option<&str>, tally: &Tally) {
        let of = |text: &str| name.map_or(String::new(), |name| format!("{text}{name}"));
        if tally.warnings > 0 {
            let (images, of) = (thousands(tally.warnings), of(" of "));
            let damaged = format!("{images} of the scored images{of} are damaged files");
            say("note", &format!("{damaged}; --strict would not score them"));
        }
        if tally.errors > 0 {
            let (errors, all) = (thousands(tally.errors), thousands(tally.errors + tally.images));
            self.without_scores.push(format!("{errors} of {all} images{}", of(" of ")));
            self.nothing |= tally.images == 0;
        }
    }

    /// The exit code of a run that came to its end.
    ///
    /// # Errors
    /// If images have no scores and that was not accepted, or a set has none at all.
    pub fn exit(&self, args: &Eval) -> Result<ExitCode> {
        const NAMED: usize = 5;
        if self.without_scores.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let more = match self.without_scores.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and some of {more} more sets"),
        };
        let named = self.without_scores.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let text = format!("{named}{more} could not be read and were not scored");
        ensure!(!self.nothing, text);
        ensure!(args.results.skip_errors, "{text}; --skip-errors accepts that, and --resume would not try them again");
        say("note", &text);
        Ok(ExitCode::SUCCESS)
    }
}
