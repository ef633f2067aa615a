use std::process::ExitCode;

use clap::Parser;
use qlnet::cli::arguments::Cli;
use qlnet::cli::{self, threads};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // SAFETY: no other thread has been started.
    match unsafe { threads::configure(cli.threads()) }.and_then(|()| cli::run(&cli)) {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::tell(&error);
            ExitCode::FAILURE
        }
    }
}
