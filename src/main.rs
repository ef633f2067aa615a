//! The program. What it does is in `src/cli/`.

use std::process::ExitCode;

fn main() -> ExitCode {
    qlnet::cli::main()
}
