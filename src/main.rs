//! The program. What it does is in `src/cli/`.

use std::process::ExitCode;

// Our program runs no quantised models: `src/network/gpu/quantised.c` says why it has no kernels for them.
#[cfg(opens_cuda)]
#[link(name = "qlnet_quantised", kind = "static", modifiers = "+whole-archive")]
unsafe extern "C" {}

fn main() -> ExitCode {
    // SAFETY: it is the first thing that the program does, and so there is one thread.
    unsafe { qlnet::cli::main() }
}
