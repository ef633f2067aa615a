use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;
use qlnet::cli::Cli;
use qlnet::text::one_line;
use qlnet::{commands, threads};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // SAFETY: no other thread has been started.
    match unsafe { threads::configure(cli.threads()) }.and_then(|()| commands::run(&cli)) {
        Ok(code) => code,
        // Whoever read our output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            commands::say("error", &one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
