//! Decoders of rare formats have bugs: one that panics makes an error of what it decodes, and nothing else.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// What `work` returns, or `None` if it panics. Of a panic in this thread nothing is printed. Nothing that `work`
/// leaves half done may be used again.
pub fn without_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing() {
        assert_eq!(without_panic(|| 3), Some(3));
        let index = std::hint::black_box(1);
        let panics: [fn(usize) -> u32; 2] = [|_| panic!("a bug in a decoder"), |index| [1][index]];
        for panic in panics {
            assert_eq!(without_panic(|| panic(index)), None);
        }
    }
}
