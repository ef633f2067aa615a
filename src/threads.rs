//! How many threads compute.

/// Sets the number of threads for everything that follows: by `threads`, else by
/// `RAYON_NUM_THREADS`, else as many as the process may use processors (affinity and cgroup quota
/// considered). Call it first thing in `main`, before there are other threads.
pub fn configure(threads: Option<usize>) {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    let from_env = || std::env::var(VARIABLE).ok()?.parse().ok().filter(|n| *n > 0);
    let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = threads.or_else(from_env).unwrap_or_else(available);
    // rayon reads the variable when its pool starts, and candle for its matrix products; of the two
    // only rayon's own default knows cgroup quotas.
    // SAFETY: no other thread runs yet that could read the environment at the same time.
    unsafe { std::env::set_var(VARIABLE, threads.to_string()) };
}
