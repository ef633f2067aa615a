//! Decoders of rare formats have bugs: one that panics makes an error of its picture, and nothing else.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{Error, Reason, Result};

/// What `work` returns, or an [`Error::Image`] if it panics. Of a panic in this thread nothing is printed.
pub fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
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
    // Nothing that `work` leaves half done is used again, except the budget of memory, whose permits are returned.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.unwrap_or_else(|_| {
        let reason = "damaged, or of a kind that cannot be decoded: the decoder gave up on it";
        Err(Error::Image(Reason::new(reason)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_the_image() {
        assert_eq!(without_panic(|| Ok(3)).unwrap(), 3);
        let index = std::hint::black_box(1);
        let panics: [fn(usize) -> u32; 2] = [|_| panic!("a bug in a decoder"), |index| [1][index]];
        for panic in panics {
            assert!(matches!(without_panic(|| Ok(panic(index))), Err(Error::Image(_))));
        }
        assert!(matches!(
            without_panic(|| Err::<(), _>(Error::Overflow { dtype: "f32" })),
            Err(Error::Overflow { .. })
        ));
    }
}
