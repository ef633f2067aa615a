//! How many threads compute.

use anyhow::{Context, Result};

/// Sets the number of threads for everything that follows: by `threads`, else by
/// `RAYON_NUM_THREADS`, else as many as the process may use processors (affinity and cgroup quota
/// considered). The threads are started.
///
/// # Errors
/// If the system does not give so many.
///
/// # Safety
/// It changes the environment, so it must be called while no other thread runs that could read it:
/// first thing in `main`.
pub unsafe fn configure(threads: Option<usize>) -> Result<()> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    // As --threads; far more than there are processors start slowly, and wait for each other.
    let from_env = || std::env::var(VARIABLE).ok()?.parse().ok().filter(|n| (1..=1024).contains(n));
    let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.or_else(from_env).unwrap_or_else(available);
    // candle reads the variable for its matrix products; its own default does not know quotas.
    // SAFETY: the caller's promise.
    unsafe { std::env::set_var(VARIABLE, threads.to_string()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("cannot start {threads} threads; ask for fewer with --threads"))
}
