//! The program: what it parses, prints and advises.
//!
//! In come arguments; out go results on standard output, everything else on standard error, and an exit
//! code. May use all rooms; none uses it. The library says what went wrong, and `hints` what to do about it
//! on a command line.
//!
//! ```text
//! arguments                          what several commands take
//! classify, eval, symmetry, bench    a command each: its arguments, and what it does with them
//! loading                            what is shown while weights are made ready
//! print, output, hints, threads      what they call besides
//! ```

mod arguments;
mod bench;
mod classify;
mod eval;
mod hints;
mod loading;
mod output;
mod print;
mod symmetry;
mod threads;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What works at once, wherever the program is.
const EXAMPLES: &str = "\
Try it; these need no download:
  qlnet symmetry --model qlnet-digits     move the weights of the built-in model: its output stays
  qlnet symmetry --audit                  count its symmetries: the list of them is complete
  qlnet bench --model qlnet-digits        how fast this machine computes it
Then, with the published weights (80 MB, downloaded once):
  qlnet classify photo.png                what is in this picture";

/// QLNet, an image classifier with a continuous symmetry.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Classify(classify::Classify),
    Eval(Box<eval::Eval>),
    Symmetry(Box<symmetry::Symmetry>),
    Bench(bench::Bench),
}

impl Cli {
    /// The value of `--threads`.
    fn threads(&self) -> Option<usize> {
        match &self.command {
            Command::Classify(args) => args.model.threads,
            Command::Eval(args) => args.model.threads,
            Command::Symmetry(args) => args.model.threads,
            Command::Bench(args) => args.model.threads,
        }
        .map(usize::from)
    }

    fn run(&self) -> Result<ExitCode> {
        match &self.command {
            Command::Classify(args) => classify::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Symmetry(args) => symmetry::run(args),
            Command::Bench(args) => bench::run(args),
        }
    }
}

/// Does what the command line asks for. The first thing in `main`, while there is one thread.
pub fn main() -> ExitCode {
    // The shells of Windows leave it to programs to find the files that `*.png` stands for.
    let cli = Cli::parse_from(wild::args_os());
    // SAFETY: no other thread has been started.
    match unsafe { threads::configure(cli.threads()) }.and_then(|()| cli.run()) {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print::say("error", &hints::with_advice(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
