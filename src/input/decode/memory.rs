//! Bounds the memory that all threads together hold while they decode.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that all threads together may hold. A picture that needs more is decoded alone.
const BUDGET: u64 = 256 << 20;

static USED: Mutex<u64> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// Permission to hold this number of bytes, until it is dropped.
pub(super) struct Permit(u64);

/// Waits until so many bytes are free, or no other thread holds any.
pub(super) fn permit(bytes: u64) -> Permit {
    let taken = |used: &mut u64| *used > 0 && *used + bytes > BUDGET;
    let mut used = FREED.wait_while(lock(), taken).unwrap_or_else(PoisonError::into_inner);
    *used += bytes;
    Permit(bytes)
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock() -= self.0;
        FREED.notify_all();
    }
}

/// Ignores that another thread may have panicked: the number is right even then.
fn lock() -> MutexGuard<'static, u64> {
    USED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn large_pictures_wait_for_each_other() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _permit = permit(BUDGET / 2);
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
        // More than there is, but alone.
        drop(permit(BUDGET * 3));
    }
}
