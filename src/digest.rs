//! Hashes, in lower-case hexadecimal: SHA-256, and what Git calls a file by.

use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The SHA-256 of what is left to read.
pub fn sha256_of_rest(reader: &mut impl Read) -> io::Result<String> {
    of_rest(reader, Sha256::new())
}

/// The SHA-1 by which Git knows a file of `size` bytes, all of which are left to read.
pub fn git_sha1_of_rest(reader: &mut impl Read, size: u64) -> io::Result<String> {
    of_rest(reader, Sha1::new_with_prefix(format!("blob {size}\0")))
}

fn of_rest(reader: &mut impl Read, mut hasher: impl Digest) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hexadecimal(hasher)),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The SHA-256 of bytes.
pub fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

/// Whether a text has the form of a SHA-256.
pub fn is_sha256(text: &str) -> bool {
    is_hexadecimal(text, 64)
}

/// Whether a text has so many digits, in lower case.
pub fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hash of what the hasher was given.
pub fn hexadecimal(hasher: impl Digest) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_agrees() {
        // printf 'hello\n' | git hash-object --stdin
        let found = git_sha1_of_rest(&mut &b"hello\n"[..], 6).unwrap();
        assert_eq!(found, "ce013625030ba8dba906f756967f9e9ca394464a");
        assert!(is_hexadecimal(&found, 40) && !is_sha256(&found));
    }
}
