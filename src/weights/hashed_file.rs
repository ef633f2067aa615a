//! A file that is hashed as it is read from beginning to end, and of which any part can be read again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use crate::digest::hexadecimal;

/// A file of known SHA-256. What is read of it is the content that was hashed, or an error: another program
/// may write to the file meanwhile, and then the hash would be that of other weights.
///
/// To hash twice would cost more than all else, and to keep the content would need memory that a file in
/// the cache never uses. A CRC-32 of each chunk, taken along with the hash, needs neither.
pub(super) struct HashedFile {
    file: File,
    sha256: String,
    /// In bytes.
    length: u64,
    /// The CRC-32 of each chunk when it was hashed.
    checksums: Vec<u32>,
    /// Where the next byte is read.
    position: u64,
    /// A chunk that has been read again and checked, and its index.
    chunk: Vec<u8>,
    index: Option<usize>,
}

/// In bytes.
const CHUNK: u64 = 1 << 18;

impl HashedFile {
    /// Reads a file from its beginning to its end.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let (mut hasher, mut length, mut checksums) = (Sha256::new(), 0, Vec::new());
        let mut chunk = Vec::with_capacity(CHUNK as usize);
        while file.by_ref().take(CHUNK).read_to_end(&mut chunk)? > 0 {
            hasher.update(&chunk);
            checksums.push(crc32fast::hash(&chunk));
            length += chunk.len() as u64;
            chunk.clear();
        }
        Ok(Self { file, sha256: hexadecimal(hasher), length, checksums, position: 0, chunk, index: None })
    }

    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// In bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads a chunk again, and checks it.
    fn load(&mut self, index: usize) -> io::Result<()> {
        let start = index as u64 * CHUNK;
        self.index = None;
        self.chunk.clear();
        self.file.seek(SeekFrom::Start(start))?;
        self.file.by_ref().take(CHUNK.min(self.length - start)).read_to_end(&mut self.chunk)?;
        if crc32fast::hash(&self.chunk) != self.checksums[index] {
            return Err(io::Error::other("another program changed the file while it was being read"));
        }
        self.index = Some(index);
        Ok(())
    }
}

impl Read for HashedFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || out.is_empty() {
            return Ok(0);
        }
        let index = (self.position / CHUNK) as usize;
        if self.index != Some(index) {
            self.load(index)?;
        }
        let rest = &self.chunk[(self.position % CHUNK) as usize..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for HashedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_of;
    use std::io::Write;

    #[test]
    fn what_is_read_again_is_what_was_hashed() {
        let content: Vec<u8> = (0..700_000u32).map(|i| (i.wrapping_mul(i) % 251) as u8).collect();
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(&content).unwrap();
        let mut file = HashedFile::new(written.reopen().unwrap()).unwrap();
        assert_eq!((file.sha256(), file.length()), (&*sha256_of(&content), 700_000));
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert!(all == content);
        for (from, at) in
            [(SeekFrom::Start(300_000), 300_000), (SeekFrom::End(-5), 699_995), (SeekFrom::End(5), 700_005)]
        {
            assert_eq!(file.seek(from).unwrap(), at);
            let mut rest = Vec::new();
            file.read_to_end(&mut rest).unwrap();
            assert!(rest == content[content.len().min(at as usize)..]);
        }
        assert!(file.seek(SeekFrom::Start(0)).is_ok() && file.seek(SeekFrom::Current(-1)).is_err());

        // More bytes at the end are no part of what was hashed; others in its place are an error.
        written.write_all(b"more").unwrap();
        file.rewind().unwrap();
        assert_eq!(std::io::copy(&mut file, &mut std::io::sink()).unwrap(), 700_000);
        written.seek(SeekFrom::Start(400_000)).unwrap();
        written.write_all(&[content[400_000] ^ 1]).unwrap();
        file.rewind().unwrap();
        let error = std::io::copy(&mut file, &mut std::io::sink()).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
        written.as_file().set_len(10).unwrap();
        file.rewind().unwrap();
        assert!(std::io::copy(&mut file, &mut std::io::sink()).is_err());
    }
}
