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
//! models, devices, cache             what is known, what computes, what is kept
//! completions, man                   what shells and `man` read of the arguments
//! images, image_list                 which images are read, and their way to the network
//! loading, data_sets                 what is shown while weights and data sets are made ready
//! manner                             how much is said, and how it looks
//! print, output, hints, threads,
//! interruption, signals              what they call besides
//! machine                            what this build and this machine are
//! ```

mod arguments;
mod bench;
mod cache;
mod classify;
mod completions;
mod convert;
mod data_sets;
mod devices;
mod eval;
mod features;
mod hints;
pub(crate) mod image_list;
mod images;
mod interruption;
mod loading;
mod machine;
mod man;
mod manner;
mod models;
mod output;
mod print;
mod signals;
mod symmetry;
mod threads;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use glob::{MatchOptions, glob_with};

/// What works at once, wherever the program is.
const EXAMPLES: &str = "\
Try it; these need no download:
  qlnet symmetry --model qlnet-digits     move the weights of the built-in model: its output stays
  qlnet symmetry --audit                  count its symmetries: the list of them is complete
  qlnet bench --model qlnet-digits        how fast this machine computes it
Then, with the published weights (80 MB, downloaded once):
  qlnet classify photo.png                what is in this picture";

static LONG_VERSION: LazyLock<String> = LazyLock::new(machine::version);

/// QLNet, an image classifier with a continuous symmetry.
#[derive(Parser)]
#[command(version, long_version = LONG_VERSION.as_str(), arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
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
    Models(models::Models),
    Devices(devices::Devices),
    Cache(cache::Cache),
    Completions(completions::Completions),
    Man(man::ManPages),
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
            _ => None,
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
            Command::Models(args) => models::run(args),
            Command::Devices(args) => devices::run(args),
            Command::Cache(args) => cache::run(args),
            Command::Completions(args) => completions::run(args, command()),
            Command::Man(args) => man::run(args, command()),
        }
    }
}

/// All commands and options, as clap knows them.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line asks for.
///
/// # Safety
/// It changes the environment, so there must be no other thread: it is the first thing in `main`.
pub unsafe fn main() -> ExitCode {
    signals::configure();
    // The shells of Windows leave it to programs to find the files that `*.png` stands for.
    let arguments: Vec<_> = std::env::args_os()
        .flat_map(|argument| match cfg!(windows) {
            true => expanded(argument),
            false => vec![argument],
        })
        .collect();
    // SAFETY: the caller has started no other thread, and neither has what is above.
    unsafe { manner::forget_what_is_not_forced() };
    manner::set_colour(manner::colour_in(&arguments));
    let start = Instant::now();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // As clap's own `exit`, which says nothing of shells, nor that help could not be written.
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            if let Err(problem) = printed
                && !error.use_stderr()
                && problem.kind() != ErrorKind::BrokenPipe
            {
                print::say("error", &format!("cannot write to standard output: {problem}"));
                return ExitCode::FAILURE;
            }
            if let Some(tip) = hints::tip(&error) {
                print::say("tip", &tip);
            }
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    cli.manner.set();
    print::info(|| format!("qlnet {}", machine::version().replace('\n', ", ")));
    if let Some(words) = crate::simd::unmet_wish() {
        print::say("note", &crate::text::printable(&words));
    }
    // SAFETY: still, no other thread has been started.
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
        command().debug_assert();
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
