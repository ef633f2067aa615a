//! Mutators that know a format: they change a part, and repair lengths and checksums, so that what is behind these is
//! reached.

mod opcodes;
mod png;
mod safetensors;
mod tar;
mod zip;

pub use opcodes::pickle;
pub use png::png;
pub use safetensors::{packed, safetensors};
pub use tar::tar;
pub use zip::checkpoint;

/// Random numbers (xorshift).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u32) -> Self {
        Self(u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Changes bytes in libFuzzer's own ways; they may become a little longer.
fn changed(bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let room = bytes.len() + 1 + chance.below(64);
    let mut buffer = bytes.to_vec();
    buffer.resize(room, 0);
    let length = libfuzzer_sys::fuzzer_mutate(&mut buffer, bytes.len(), room);
    buffer.truncate(length);
    buffer
}

/// Numbers at which things break.
fn number(chance: &mut Chance) -> u64 {
    let near = [0, 1, 7, 8, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
    let small = chance.below(20) as u64;
    match chance.below(3) {
        0 => small,
        1 => chance.one_of(&near).wrapping_add(small).wrapping_sub(10),
        _ => 1 << chance.below(64),
    }
}
