//! The program: what it parses, prints and advises.
//!
//! In come arguments; out go results on standard output, everything else on standard error, and an exit
//! code. May use all rooms; none uses it. The library says what went wrong, and `hints` what to do about it
//! on a command line.
//!
//! ```text
//! arguments                          what several commands take
//! classify, features, eval,
//! symmetry, bench, convert           a command each: its arguments, and what it does with them
//! images                             which images are read, and their way to the network
//! loading, data_sets                 what is shown while weights and data sets are made ready
//! print, output, hints, threads,
//! interruption                       what they call besides
//! ```

mod arguments;
mod bench;
mod classify;
mod convert;
mod data_sets;
mod eval;
mod features;
mod hints;
mod images;
mod interruption;
mod loading;
mod manner;
mod output;
mod print;
mod symmetry;
mod threads;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
use glob::{MatchOptions, glob_with};

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
    #[command(flatten)]
    manner: manner::Manner,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Classify(classify::Classify),
    Features(Box<features::Features>),
    Eval(Box<eval::Eval>),
    Symmetry(Box<symmetry::Symmetry>),
    Bench(bench::Bench),
    Convert(convert::Convert),
}

impl Cli {
    /// The value of `--threads`.
    fn threads(&self) -> Option<usize> {
        match &self.command {
            Command::Classify(args) => args.model.threads,
            Command::Features(args) => args.model.threads,
            Command::Eval(args) => args.model.threads,
            Command::Symmetry(args) => args.model.threads,
            Command::Bench(args) => args.model.threads,
            Command::Convert(_) => None,
        }
        .map(usize::from)
    }

    fn run(&self) -> Result<ExitCode> {
        match &self.command {
            Command::Classify(args) => classify::run(args),
            Command::Features(args) => features::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Symmetry(args) => symmetry::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Convert(args) => convert::run(args),
        }
    }
}

/// Does what the command line asks for. The first thing in `main`, while there is one thread.
pub fn main() -> ExitCode {
    // The shells of Windows leave it to programs to find the files that `*.png` stands for.
    let arguments: Vec<_> = std::env::args_os()
        .flat_map(|argument| match cfg!(windows) {
            true => expanded(argument),
            false => vec![argument],
        })
        .collect();
    manner::set_colour(manner::colour_in(&arguments));
    let start = Instant::now();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // As clap's own `exit`, which says nothing of shells.
            let _ = error.print();
            if is_unquoted_pattern(&error) {
                print::say(
                    "tip",
                    "quote the names of several files, so that the shell leaves the braces: 'x-{00..63}.tar'",
                );
            }
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    cli.manner.set();
    if let Some(words) = crate::simd::unmet_wish() {
        print::say("note", &crate::text::printable(&words));
    }
    // SAFETY: no other thread has been started.
    let result = unsafe { threads::configure(cli.threads()) }.and_then(|()| cli.run());
    print::info(|| format!("{:.3} s in all", start.elapsed().as_secs_f64()));
    match result {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print::say("error", &hints::with_advice(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether a shell has made several arguments of one, and the second is the name of a file that can be a part of a set.
fn is_unquoted_pattern(error: &clap::Error) -> bool {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return false };
    match error.kind() {
        ErrorKind::UnknownArgument => [".tar", ".parquet"].iter().any(|ending| argument.ends_with(ending)),
        // A second set beside the one that has a name.
        ErrorKind::ArgumentConflict => argument == "[PATH]",
        _ => false,
    }
}

/// The files that an argument with `*` or `?` stands for, in order; without any, or if there are none, the argument
/// itself. Brackets stand for themselves: names have them, such as `photo[1].png` beside `photo1.png`.
fn expanded(argument: OsString) -> Vec<OsString> {
    let pattern = argument.to_str().filter(|text| text.contains(['*', '?'])).map(|text| text.replace('[', "[[]"));
    // As elsewhere, `*.png` does not stand for `._photo.png`, which macOS leaves on disks of other systems.
    let options = MatchOptions { case_sensitive: false, require_literal_leading_dot: true, ..MatchOptions::new() };
    let files = pattern.and_then(|pattern| glob_with(&pattern, options).ok());
    let files: Vec<_> = files.into_iter().flatten().filter_map(Result::ok).map(OsString::from).collect();
    if files.is_empty() { vec![argument] } else { files }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pattern_stands_for_files_and_a_name_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.png", "A.PNG", "photo1.png", "photo[1].png", "._b.png", "notes.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let expanded = |name: &str| -> Vec<_> {
            let paths = expanded(dir.path().join(name).into()).into_iter().map(std::path::PathBuf::from);
            paths.map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_string()).collect()
        };
        assert_eq!(expanded("*.png"), ["A.PNG", "b.png", "photo1.png", "photo[1].png"]);
        assert_eq!(expanded("photo[1].png"), ["photo[1].png"]);
        assert_eq!(expanded("photo[?].png"), ["photo[1].png"]);
        assert_eq!(expanded("*.gif"), ["*.gif"]);
    }
}
