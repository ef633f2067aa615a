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
    // SAFETY: the handler only calls what signal-safety(7) allows, and does not return.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = lost_mapping as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// Packed weights are read as they are mapped. If another program cuts the file short, or its disk fails, there are no
/// numbers to go on with, and only a copy of all of them at each start would help.
#[cfg(target_os = "linux")]
extern "C" fn lost_mapping(_: libc::c_int) {
    const WORDS: &[u8] = b"error: a file of the cache was cut short while it was in use, or its disk cannot be read; \
        run the same command again (`qlnet cache` says where the files are)\n";
    // SAFETY: the bytes are there for ever, and neither call takes a lock.
    unsafe {
        libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
        libc::_exit(1);
    }
}
