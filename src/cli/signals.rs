//! Signals that would end the program without a word.

/// Makes a limit on the size of files (`ulimit -f`) an error of the file that meets it, and the loss of a file that is
/// mapped into memory a line on standard error.
pub fn configure() {
    #[cfg(unix)]
    // SAFETY: to ignore a signal has no conditions.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    // Elsewhere the standard library takes the signal for itself, to know a stack that is full.
    #[cfg(target_os = "linux")]
    lost_mapping::explain();
}

/// Packed weights are read as they are mapped. If another program cuts the file short, or its disk fails, there are no
/// numbers to go on with, and only a copy of all of them at each start would help.
#[cfg(target_os = "linux")]
mod lost_mapping {
    use libc::{c_int, c_void, siginfo_t};

    /// What is said instead of a shell's "Bus error".
    const WORDS: &str = "error: a file was cut short while it was read, such as the weights in the cache (`qlnet cache` says \
                         where they are), or its disk cannot be read; run this again\n";

    /// Has the loss end the program with a line, and with the exit code of other errors.
    pub fn explain() {
        // SAFETY: all bits zero are a valid structure. `end` has the arguments that SA_SIGINFO asks for, and calls only
        // what a handler may call. Rust's own handler of this signal, which it replaces, is for overflows of the stack, of
        // which Linux tells with SIGSEGV.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = end as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            // Without it, such an end is what it is without this file.
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    }

    /// Ends the program: with words if memory was read that the file no longer has, otherwise as the signal would have.
    extern "C" fn end(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
        // SAFETY: the system gives information about the signal; these functions may be called by handlers.
        unsafe {
            if (*info).si_code == libc::BUS_ADRERR {
                libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
                libc::_exit(1);
            }
            // The handler is reset, and the signal comes again when this returns.
            libc::raise(signal);
        }
    }
}
