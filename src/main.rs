use std::process::ExitCode;

use clap::Parser;
use qlnet::cli::Cli;
use qlnet::{commands, threads};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // SAFETY: no other thread has been started.
    match unsafe { threads::configure(cli.threads()) }.and_then(|()| commands::run(&cli)) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if commands::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            commands::tell(&error);
            ExitCode::FAILURE
        }
    }
}
