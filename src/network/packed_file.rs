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
//! modification and change, device and inode ([`RememberedHash`]). The starts in the first seconds after the one that
//! has written it read all of it, and so does the first after anything was written to it. That is enough, since the
//! content of a file does not change by itself: what happens to it on the way to the disk is found by that check, what
//! programs do to it changes its times, and a disk that gives back other bits than it was given would have to
//! deceive its own checksums.
//!
//! A file that is missing or refused is made again silently. Where the directory cannot be written, or the system
//! does not let a mapped file be replaced (Windows), the network is packed at every start.

use std::fs::Metadata;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::bounded::open_file;
use crate::digest::sha256_of;
use crate::kept::remembered_hash::RememberedHash;
use crate::kept::{PACKED, replace_with};
use crate::network::cpu::operand::{Format, Products};
use crate::network::cpu::packed::Sections;
use crate::network::model::QLNet;
use crate::network::packed_kind::PackedKind;
use crate::network::precision::Precision;
use crate::weights::config::Config;

const MAGIC: &[u8; 8] = b"QLNETPKD";

/// Bytes before the header.
const PREFIX: usize = 20;

/// What data begin at a multiple of.
const PAGE: usize = 4096;

/// The place of a packed network.
pub(crate) struct PackedFile {
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
    pub(crate) fn new(cache: &Path, sha256: &str, precision: Precision, products: Products, prepared: &str) -> Self {
        let kind = PackedKind::here(precision, products, prepared);
        let path = cache.join(format!("{sha256}.{kind}.{PACKED}"));
        Self { cache: cache.into(), path, format: products.format(), key: format!("{sha256} {kind}") }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The network, if it is there and whole. Its weights are the mapped file.
    pub(crate) fn read(&self) -> Option<QLNet> {
        let now = SystemTime::now();
        let file = open_file(&self.path).ok()?;
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        // SAFETY: files of the cache are replaced by rename, and no program that knows them changes one in place;
        // the map is of what was opened even when another file gets its name. A program that overwrites the file
        // nevertheless changes numbers, of which every bit pattern is valid. One that cuts it short ends this
        // process with SIGBUS, as it would any program that maps its libraries; only a copy would help.
        let map = unsafe { Mmap::map(&file) }.ok()?;
        let (header, start) = self.header(&map)?;
        let remembered = RememberedHash::new(&self.cache, &self.path, &metadata);
        let hash = sha256_of(&map[..start]);
        if remembered.as_ref().and_then(RememberedHash::read).as_ref() != Some(&hash) {
            if crc32fast::hash(&map[start..]) != number(&map, 16)? {
                return None;
            }
            remembered.iter().for_each(|remembered| remembered.write(&hash, now));
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
            // The length is known at the end, and has fewer digits then: spaces take their place.
            let room = serde_json::to_vec(&header)?.len();
            let start = (PREFIX + room).next_multiple_of(PAGE);
            file.write_all(&vec![0; start])?;
            let mut data = Checked { out: &mut *file, hasher: crc32fast::Hasher::new(), length: 0 };
            net.write_packed(&mut data)?;
            let (length, checksum) = (data.length, data.hasher.finalize());
            header.length = length;
            let mut text = serde_json::to_vec(&header)?;
            text.resize(room, b' ');
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::cpu::vector::lanes;
    use crate::weights::Weights;
    use candle_core::Device;
    use std::fs::{self, File};
    use std::time::Duration;

    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn digits(precision: Precision) -> QLNet {
        QLNet::from_weights(&Weights::from_model("qlnet-digits").unwrap(), precision, &Device::Cpu).unwrap()
    }

    fn place(dir: &tempfile::TempDir, precision: Precision) -> PackedFile {
        PackedFile::new(dir.path(), SHA256, precision, precision.products().unwrap(), "")
    }

    fn packed(net: &QLNet) -> Vec<u8> {
        let mut bytes = Vec::new();
        net.write_packed(&mut bytes).unwrap();
        bytes
    }

    /// A cache with a network, the place of the network, and the bytes of the file.
    fn written() -> (tempfile::TempDir, PackedFile, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let file = place(&dir, Precision::F32);
        file.write(&digits(Precision::F32)).unwrap();
        let bytes = fs::read(&file.path).unwrap();
        (dir, file, bytes)
    }

    /// A file whose checksums are right.
    fn forged(header: &Header, data: &[u8]) -> Vec<u8> {
        let text = serde_json::to_vec(header).unwrap();
        let mut bytes = MAGIC.to_vec();
        for number in [text.len() as u32, crc32fast::hash(&text), crc32fast::hash(data)] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(text);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        [&bytes[..], data].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let (file, net) = (place(&dir, precision), digits(precision));
            assert!(file.read().is_none());
            file.write(&net).unwrap();
            let found = file.read().unwrap();
            assert!(packed(&found) == packed(&net) && found.config() == net.config());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "neither records of new files nor temporary ones");
    }

    /// A file for something else is refused even under this name.
    #[test]
    fn the_key_is_part_of_the_file() {
        let (dir, file, bytes) = written();
        let (header, start) = file.header(&bytes).unwrap();
        let data = &bytes[start..];
        let written = |key: String| {
            let header = Header { key, config: header.config.clone(), length: data.len() };
            fs::write(&file.path, forged(&header, data)).unwrap();
            file.read().is_some()
        };
        assert!(written(file.key.clone()));
        let lanes = format!("-{}-", lanes());
        for (part, other) in [("v1", "v2"), ("f32", "bf16"), ("float", "bytes"), (&lanes, "-5-"), ("0123", "1123")] {
            let key = file.key.replacen(part, other, 1);
            assert!(key != file.key && !written(key), "{part}");
        }
        let products = Products::Float32;
        let prepared = PackedFile::new(dir.path(), SHA256, Precision::F32, products, "balanced1");
        assert!(prepared.path != file.path && prepared.key != file.key);
    }

    /// Whatever the header says, nothing is read outside of the file.
    #[test]
    fn other_dimensions_are_refused() {
        let (_dir, file, bytes) = written();
        let (Header { key, config, .. }, start) = file.header(&bytes).unwrap();
        let data = &bytes[start..];
        let read = |change: &dyn Fn(&mut Config), data: &[u8]| {
            let mut config = config.clone();
            change(&mut config);
            fs::write(&file.path, forged(&Header { key: key.clone(), config, length: data.len() }, data)).unwrap();
            file.read().is_some()
        };
        assert!(read(&|_| {}, data));
        for len in [0, 64, data.len() / 2, data.len() - 64, data.len() - 1] {
            assert!(!read(&|_| {}, &data[..len]), "{len}");
        }
        assert!(!read(&|_| {}, &[data, &[0; 64]].concat()));
        for size in [0, 1, 17, 1 << 20, usize::MAX / 4, usize::MAX - 1, usize::MAX] {
            let changes: [&dyn Fn(&mut Config); 7] = [
                &|config| config.num_classes = size + 64,
                &|config| (config.stem_channels, config.layers[0][0].in_channels) = (size, size),
                &|config| config.layers[0][0].hidden_channels = size,
                &|config| config.layers[0][0].filters = size,
                &|config| config.layers.last_mut().unwrap()[0].out_channels = size,
                &|config| config.layers.truncate(size % 4),
                &|config| config.layers[1][0].stride = size.max(3),
            ];
            for (i, change) in changes.iter().enumerate() {
                if i == 0 && size > 1 << 20 {
                    continue;
                }
                assert!(!read(change, data), "{size}, {i}");
            }
        }
    }

    /// The length of the data has fewer digits than the room that is left for it, also where that decides on the page.
    #[test]
    fn headers_of_every_length_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let net = digits(Precision::F32);
        let mut file = place(&dir, Precision::F32);
        let key = file.key.clone();
        file.write(&net).unwrap();
        let text = number(&fs::read(&file.path).unwrap(), 8).unwrap() as usize;
        let missing = PAGE - (PREFIX + text) % PAGE;
        for more in missing.saturating_sub(24)..missing + 4 {
            file.key = format!("{key}{}", "x".repeat(more));
            file.write(&net).unwrap();
            assert!(file.read().is_some(), "{more}");
        }
    }

    #[test]
    fn each_byte_of_the_header_counts() {
        let (_dir, file, bytes) = written();
        let end = PREFIX + number(&bytes, 8).unwrap() as usize;
        for i in 0..end {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1;
            fs::write(&file.path, flipped).unwrap();
            assert!(file.read().is_none(), "{i}");
        }
        for len in [0, 7, 8, PREFIX, end - 1, end, PAGE, bytes.len() - 1] {
            fs::write(&file.path, &bytes[..len]).unwrap();
            assert!(file.read().is_none(), "{len}");
        }
    }

    /// A record for a file with a flipped bit shows whether the data were checked.
    #[test]
    fn data_are_checked_once_for_each_state() {
        let (dir, file, mut bytes) = written();
        let (_, start) = file.header(&bytes).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file.path, &bytes).unwrap();
        assert!(file.read().is_none());
        let later = SystemTime::now() + Duration::from_secs(60);
        let record = |header: &[u8]| {
            let metadata = fs::metadata(&file.path).unwrap();
            RememberedHash::new(dir.path(), &file.path, &metadata).unwrap().write(&sha256_of(header), later);
        };
        record(b"another header");
        assert!(file.read().is_none());
        record(&bytes[..start]);
        assert!(file.read().is_some(), "the record is believed");
        let touched = SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(&file.path).unwrap().set_modified(touched).unwrap();
        assert!(file.read().is_none(), "a touched file is checked again");
    }

    /// If this fails, weights are packed in another way than before: change `VERSION` of `packed_kind`, and then these numbers.
    #[test]
    fn a_version_has_one_layout() {
        let expected = [
            ("v1-folded-v1-f32-float-4-x86_64", 0x629e2967),
            ("v1-folded-v1-bf16-float-4-x86_64", 0xad260947),
            ("v1-folded-v1-int8-words-4-x86_64", 0xf56d6833),
            ("v1-folded-v1-f32-float-8-x86_64", 0xbfb2205b),
            ("v1-folded-v1-bf16-float-8-x86_64", 0xa13c9cca),
            ("v1-folded-v1-int8-words-8-x86_64", 0xc0f172d0),
            ("v1-folded-v1-f32-float-16-x86_64", 0x2c72ed4e),
            ("v1-folded-v1-bf16-float-16-x86_64", 0x52611631),
            ("v1-folded-v1-int8-words-16-x86_64", 0x5157f400),
            ("v1-folded-v1-bf16-bfloat-16-x86_64", 0x2f77b42a),
            ("v1-folded-v1-int8-bytes-8-x86_64", 0x2f41b7a2),
            ("v1-folded-v1-int8-bytes-16-x86_64", 0xe72a37a8),
        ];
        let mut other = Vec::new();
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let dir = tempfile::tempdir().unwrap();
            let key = place(&dir, precision).key.replace(SHA256, "");
            let (kind, checksum) = (key.trim(), crc32fast::hash(&packed(&digits(precision))));
            let expected = expected.iter().find(|(name, _)| *name == kind);
            let unknown = expected.is_none() && cfg!(target_arch = "x86_64");
            if unknown || expected.is_some_and(|(_, expected)| checksum != *expected) {
                other.push(format!("(\"{kind}\", {checksum:#010x}),"));
            }
        }
        assert!(other.is_empty(), "found:\n{}", other.join("\n"));
    }
}
