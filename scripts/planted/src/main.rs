//! Makes the fault that the argument names. A tool that is silent about it proves nothing by its silence elsewhere.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;

#[derive(Clone, Copy)]
struct Place(*mut u32);

// SAFETY: none, where the fault is a race.
unsafe impl Send for Place {}

impl Place {
    /// A number that two threads add to, each at a place of its own or both at one.
    fn add(self, at: usize) {
        for _ in 0..1000 {
            // SAFETY: there are two numbers; none, where the fault is a race.
            unsafe { self.0.add(at).write_volatile(self.0.add(at).read_volatile() + 1) };
        }
    }
}

fn main() {
    let fault = std::env::args().nth(1).unwrap_or_default();
    let len = black_box(10usize);
    let mut values: Vec<u32> = (0..len as u32).collect();
    let start = black_box(values.as_mut_ptr());
    // SAFETY: none: these are faults.
    let number = unsafe {
        match fault.as_str() {
            "none" => values[len - 1],
            "read-behind" => start.add(len).read_volatile(),
            "read-before" => start.wrapping_sub(1).read_volatile(),
            "write-behind" => {
                start.add(len).write_volatile(1);
                0
            }
            "freed" => {
                drop(std::mem::take(&mut values));
                start.read_volatile()
            }
            "undefined" => {
                let layout = Layout::array::<u32>(len).unwrap();
                let fresh = alloc(layout).cast::<u32>();
                let number = u32::from(black_box(fresh).read_volatile() == 1);
                dealloc(fresh.cast(), layout);
                // A branch, which is what valgrind looks at.
                if number == 1 { println!("by chance") }
                number
            }
            "misaligned" => *black_box(start.cast::<u8>().add(1).cast::<u32>()),
            "overflow" => black_box(u32::MAX) + len as u32,
            "race" | "no-race" => {
                let place = Place(start);
                let other = usize::from(fault == "no-race");
                std::thread::scope(|scope| {
                    scope.spawn(move || place.add(0));
                    scope.spawn(move || place.add(other));
                });
                values[0]
            }
            _ => panic!("no such fault"),
        }
    };
    println!("{fault}: {number}");
}
