//! What a user is told if a file that is mapped into memory gets shorter meanwhile. The system ends a program that reads
//! what is gone with SIGBUS, and a shell says "Bus error".

use libc::{c_int, c_void, siginfo_t};

/// What is said instead.
const WORDS: &str = "error: a file was cut short while it was read, such as the weights in the cache (`qlnet cache` says \
                     where they are); run this again\n";

/// Has that end the program with a line, and with the exit code of other errors.
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
