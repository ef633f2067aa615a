use std::process::ExitCode;

fn main() -> ExitCode {
    qlnet::cli::main()
}
