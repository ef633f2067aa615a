//! Keeps networks as they are packed for the CPU, so that a start maps a file into memory and computes.
//!
//! Without that a start reads the folded weights, checks them, copies them and packs them, which takes longer than
//! the network does for one image. The packed weights are in the directory of the folded ones, in a file for each
//! checkpoint, [`Precision`], format and width of vectors:
//!
//! ```text
//! 8 bytes     QLNETPKD
//! u32         bytes of the header
//! u32         CRC-32 of the header
//! u32         CRC-32 of all data
//! header      JSON: for what the file was made, the dimensions of the network, bytes of the data
//! ...         zeros to the next page
//! data        what `QLNet::write_packed` writes, in whole cache lines
//! ```
//!
//! At every start the header is checked: it must be intact, and its key the very one that would be written now. The
//! sizes of all parts follow from the dimensions, and together they must be the rest of the file. So a file that
//! was cut, or is of another program, version, checkpoint or CPU, is refused at once, and nothing is read outside
//! of it.
//!
//! The data, 40 MB, are checked in full once for each state of the file, as the system tells it: size, times of
//! modification and change, device and inode ([`RememberedHash`]). The first start after the one that has written
//! it reads all of it, and so does the first after anything was written to it. That is enough, since the content
//! of a file does not change by itself: what happens to it on the way to the disk is found by that check, what
//! programs do to it changes its times, and a disk that gives back other bits than it was given would have to
//! deceive its own checksums.
//!
//! A file that is missing or refused is made again silently. Where the directory cannot be written, the network is
//! packed at every start.

use std::fs::{File, Metadata};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{Mmap, MmapOptions};
use serde::{Deserialize, Serialize};

use crate::network::cpu::operand::{Format, Products};
use crate::network::cpu::packed::Sections;
use crate::network::cpu::vector::lanes;
use crate::network::model::QLNet;
use crate::network::precision::Precision;
use crate::weights::cache::{PACKED, replace_with};
use crate::weights::config::Config;
use crate::weights::digest::sha256_of;
use crate::weights::remembered_hash::RememberedHash;

/// Changes whenever files of an earlier version must not be used any more: with the layout of the file, of panels,
/// and with how weights are rounded.
const VERSION: &str = "v1";

const MAGIC: &[u8; 8] = b"QLNETPKD";

/// Bytes before the header.
const PREFIX: usize = 20;

/// What data begin at a multiple of.
const PAGE: usize = 4096;

/// The place of a packed network.
pub(super) struct PackedFile {
    cache: PathBuf,
    path: PathBuf,
    format: Format,
    key: String,
}

/// What is in the header, besides its length and checksums.
#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    config: Config,
    /// Bytes of the data.
    length: usize,
}

impl PackedFile {
    /// The place below a cache directory for the network of a checkpoint, given its SHA-256. `prepared` names what is
    /// done to folded weights before they are packed, and is empty if nothing is.
    pub(super) fn new(cache: &Path, sha256: &str, precision: Precision, products: Products, prepared: &str) -> Self {
        let format = products.format();
        let layout = match format {
            Format::Float => "float",
            Format::Bfloat => "bfloat",
            Format::Bytes => "bytes",
            Format::Words => "words",
        };
        let mut kind = format!("{VERSION}-{precision}-{layout}-{}-{}", lanes(), std::env::consts::ARCH);
        if !prepared.is_empty() {
            kind = format!("{kind}-{prepared}");
        }
        let path = cache.join(format!("{sha256}.{kind}.{PACKED}"));
        Self { cache: cache.into(), path, format, key: format!("{sha256} {kind}") }
    }

    /// The network, if it is there and whole. Its weights are the mapped file.
    pub(super) fn read(&self) -> Option<QLNet> {
        let now = SystemTime::now();
        let file = File::open(&self.path).ok()?;
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        // SAFETY: files of the cache are replaced by rename, and no program that knows them changes one in place;
        // the map is of what was opened even when another file gets its name. A program that overwrites the file
        // nevertheless changes numbers, of which every bit pattern is valid. One that cuts it short ends this
        // process with SIGBUS, as it would any program that maps its libraries; only a copy would help.
        let map = unsafe { map(&file) }.ok()?;
        let (header, start) = self.header(&map)?;
        let remembered = RememberedHash::new(&self.cache, &self.path, &metadata)?;
        let hash = sha256_of(&map[..start]);
        if remembered.read().as_ref() != Some(&hash) {
            if crc32fast::hash(&map[start..]) != number(&map, 16)? {
                return None;
            }
            remembered.write(&hash, now);
        }
        let mut sections = Sections::new(Arc::new(map), start)?;
        QLNet::from_packed(&header.config, self.format, &mut sections).filter(|_| sections.are_taken())
    }

    /// The header, and where the data begin.
    fn header(&self, bytes: &[u8]) -> Option<(Header, usize)> {
        let length = number(bytes, 8)? as usize;
        let end = length.checked_add(PREFIX).filter(|end| bytes.starts_with(MAGIC) && *end <= bytes.len())?;
        let text = &bytes[PREFIX..end];
        if crc32fast::hash(text) != number(bytes, 12)? {
            return None;
        }
        let header: Header = serde_json::from_slice(text).ok()?;
        header.config.check().ok()?;
        let start = end.next_multiple_of(PAGE);
        let fits = header.key == self.key && start.checked_add(header.length) == Some(bytes.len());
        fits.then_some((header, start))
    }

    /// Writes a network.
    ///
    /// # Errors
    /// If the file cannot be written. It is then as it was.
    pub(super) fn write(&self, net: &QLNet) -> io::Result<()> {
        replace_with(&self.path, |file| {
            let mut header = Header { key: self.key.clone(), config: net.config().clone(), length: usize::MAX };
            // The length is known at the end, and has fewer digits then.
            let start = (PREFIX + serde_json::to_vec(&header)?.len()).next_multiple_of(PAGE);
            file.write_all(&vec![0; start])?;
            let mut data = Checked { out: &mut *file, hasher: crc32fast::Hasher::new(), length: 0 };
            net.write_packed(&mut data)?;
            let (length, checksum) = (data.length, data.hasher.finalize());
            header.length = length;
            let text = serde_json::to_vec(&header)?;
            file.rewind()?;
            file.write_all(MAGIC)?;
            let length = u32::try_from(text.len()).map_err(io::Error::other)?;
            for number in [length, crc32fast::hash(&text), checksum] {
                file.write_all(&number.to_le_bytes())?;
            }
            file.write_all(&text)
        })
    }
}

/// Maps a file, with all pages that are in the system's cache, which is cheaper than to ask for them one by one.
///
/// # Safety
/// That of [`MmapOptions::map`].
unsafe fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the caller's promise.
    unsafe { MmapOptions::new().populate().map(file) }
}

/// The number at a place.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Counts and sums up what is written.
struct Checked<W> {
    out: W,
    hasher: crc32fast::Hasher,
    length: usize,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
