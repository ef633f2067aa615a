//! What a file may take to decode. A few bytes can say that there are tiles far larger than the picture, or that every
//! strip is the same bytes: such a file is refused before anything is decompressed.

use crate::error::{Reason, Result, ensure};

/// At most as many bytes as this times the picture's pixels are decompressed. Four samples of 32 bits have as many,
/// which is the most that Pillow reads; pictures of more samples have a file of a size that allows them.
const BYTES_OF_PIXEL: u64 = 16;

/// As many decompressed bytes are held at once for any picture: a tile of 2048x2048 pixels with four samples of 8 bits.
const HELD: u64 = 16 << 20;
/// So are as many as this times the file's. With what a decoder holds besides, they are 64 times.
const HELD_OF_FILE: u64 = 16;

/// As many bytes are decompressed in turn for any picture, which takes about a second.
const DECOMPRESSED: u64 = 256 << 20;
/// So are as many as this times the file's: more than pictures are compressed to that are no single colour.
const DECOMPRESSED_OF_FILE: u64 = 64;

/// As many compressed bytes are read for any picture: a byte that decodes to nothing takes up to half a microsecond.
const READ: u64 = 256 << 10;
/// As many bytes are read for any picture that is not compressed.
const READ_AS_THEY_ARE: u64 = 64 << 20;
/// Besides, each byte of the file may be read as often as this: a few strips may lie in the same bytes.
const READ_OF_FILE: u64 = 4;
/// Besides, a byte may be read for as many pixels: those of one colour are fewer bytes, and may be the same ones.
const PIXELS_OF_READ: u64 = 16;

/// Tiles narrower than this may not lie side by side: each takes as much time in every row of pixels as some pixels do.
/// By the specification, tiles are 16 pixels wide or more.
const NARROWEST: u32 = 8;
/// In a picture of no more pixels than this they may: that time is short.
const FEW_PIXELS: u64 = 1 << 22;

/// By what it is judged how much is too much.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// `strip` or `tile`, for messages.
    pub(super) name: &'static str,
    /// Pixels of the picture.
    pub(super) pixels: u64,
    /// Bytes of the file.
    pub(super) file: u64,
}

impl Limits {
    /// Promises that no more is decompressed than the picture's size or the file's explains: `held` bytes at once, and
    /// `all` in turn.
    ///
    /// # Errors
    /// If it is more.
    pub(super) fn ensure_decompressed(self, held: u64, all: u64) -> Result<(), Reason> {
        let Self { name, pixels, file } = self;
        let of_pixels = pixels.saturating_mul(BYTES_OF_PIXEL);
        let most_held = of_pixels.max(HELD).max(file.saturating_mul(HELD_OF_FILE));
        ensure!(
            held <= most_held,
            "{name}s that are decompressed at once have {held} bytes, too many for this picture"
        );
        let most = of_pixels.max(DECOMPRESSED).max(file.saturating_mul(DECOMPRESSED_OF_FILE));
        ensure!(all <= most, "its {name}s decompress to {all} bytes, too many for this picture");
        Ok(())
    }

    /// Promises that a row of pixels is not put together from many tiles of a few pixels.
    ///
    /// # Errors
    /// If it is.
    pub(super) fn ensure_wide(self, width: u32, across: usize) -> Result<(), Reason> {
        let Self { name, pixels, .. } = self;
        let wide = across == 1 || width >= NARROWEST || pixels <= FEW_PIXELS;
        ensure!(wide, "{name}s that are {width} pixels wide are too narrow for this picture");
        Ok(())
    }

    /// Promises that compressed strips or tiles do not lie in the same bytes so often that it would take for ever to
    /// read them all. Some may: those of one colour, which are few bytes for many pixels. `places` are where each one
    /// begins, and its size; `tables` are the bytes that are read again for each.
    ///
    /// Some writers say of each strip that it goes to the end of the file. Returned is where strips begin, in order, if
    /// that makes too much: each is then read only up to where the next one begins ([`up_to_next`]).
    ///
    /// # Errors
    /// If that is too much, too.
    pub(super) fn ensure_once(
        self,
        places: impl Iterator<Item = (u64, u64)> + Clone,
        tables: u64,
    ) -> Result<Vec<u64>, Reason> {
        let most = READ + self.pixels / PIXELS_OF_READ + self.file.saturating_mul(READ_OF_FILE);
        let places = places.map(|(start, size)| (start, self.inside(start, size)));
        if sum(places.clone().map(|(_, size)| size.saturating_add(tables))) <= most {
            return Ok(Vec::new());
        }
        let mut starts: Vec<u64> = places.clone().map(|(start, _)| start).collect();
        starts.sort_unstable();
        starts.dedup();
        let sizes = places.map(|(start, size)| size.min(up_to_next(&starts, start)).saturating_add(tables));
        self.ensure_read(sum(sizes), most)?;
        Ok(starts)
    }

    /// Promises the same of strips or tiles that are not compressed: a picture is no larger than its file. One that is
    /// cut short has few bytes inside the file, and is refused when the others are missed.
    ///
    /// # Errors
    /// If they lie in the same bytes too often.
    pub(super) fn ensure_once_as_they_are(self, places: impl Iterator<Item = (u64, u64)>) -> Result<(), Reason> {
        let most = self.file.saturating_mul(READ_OF_FILE).saturating_add(READ_AS_THEY_ARE);
        self.ensure_read(sum(places.map(|(start, size)| self.inside(start, size))), most)
    }

    fn ensure_read(self, all: u64, most: u64) -> Result<(), Reason> {
        let Self { name, file, .. } = self;
        ensure!(all <= most, "its {name}s have {all} bytes together, and the file has {file}");
        Ok(())
    }

    /// How many of the bytes from `start` lie inside the file.
    fn inside(self, start: u64, size: u64) -> u64 {
        size.min(self.file.saturating_sub(start))
    }
}

fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// The number of bytes from `start` to the next one of `starts`, which are in order.
pub(super) fn up_to_next(starts: &[u64], start: u64) -> u64 {
    let next = starts.partition_point(|other| *other <= start);
    starts.get(next).map_or(u64::MAX, |next| next - start)
}

#[cfg(test)]
mod tests {
    use crate::input::decode::{Options, decode};

    const LZW: u32 = 5;
    const JPEG: u32 = 7;
    const PACK_BITS: u32 = 32773;
    const ZSTD: u32 = 50000;

    /// A file that begins with these bytes, at 8, and has these fields.
    fn tiff(data: &[u8], fields: &[(u16, &[u32])]) -> Vec<u8> {
        let mut file = [&b"II*\0\0\0\0\0"[..], data].concat();
        let mut entries = Vec::new();
        for (tag, values) in fields {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            entries.extend([&tag.to_le_bytes()[..], b"\x04\0", &(values.len() as u32).to_le_bytes()].concat());
            if values.len() == 1 {
                entries.extend(bytes);
            } else {
                entries.extend((file.len() as u32).to_le_bytes());
                file.extend(bytes);
            }
        }
        let start = file.len() as u32;
        file[4..8].copy_from_slice(&start.to_le_bytes());
        file.extend((fields.len() as u16).to_le_bytes());
        file.extend(entries);
        file.extend([0; 4]);
        file
    }

    /// A grey picture of strips of a row.
    fn strips(data: &[u8], compression: u32, width: u32, offsets: &[u32], sizes: &[u32]) -> Vec<u8> {
        let height = offsets.len() as u32;
        let fields: [(u16, &[u32]); 8] = [
            (256, &[width]),
            (257, &[height]),
            (258, &[8]),
            (259, &[compression]),
            (262, &[1]),
            (273, offsets),
            (278, &[1]),
            (279, sizes),
        ];
        tiff(data, &fields)
    }

    /// A picture of red, green, blue and further samples of `bits` bits, in tiles that are all the same byte.
    fn tiles(picture: (u32, u32), tile: (u32, u32), samples: u32, bits: u32) -> Vec<u8> {
        let needed = (picture.0.div_ceil(tile.0) * picture.1.div_ceil(tile.1)) as usize;
        let (offsets, sizes, further) = (vec![8; needed], vec![1; needed], vec![0; samples as usize - 3]);
        // 3 says that samples are floating-point numbers.
        let format = if bits == 64 { 3 } else { 1 };
        let fields: [(u16, &[u32]); 12] = [
            (256, &[picture.0]),
            (257, &[picture.1]),
            (258, &[bits]),
            (259, &[ZSTD]),
            (262, &[2]),
            (277, &[samples]),
            (322, &[tile.0]),
            (323, &[tile.1]),
            (324, &offsets),
            (325, &sizes),
            (338, &further),
            (339, &[format]),
        ];
        tiff(b"\0", &fields)
    }

    /// Why a file is refused.
    #[track_caller]
    fn assert_refused(file: &[u8], words: &str) {
        let error = decode(file, "a.tiff".as_ref(), Options::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn tiles_are_not_much_more_than_the_picture() {
        let held = "tiles that are decompressed at once have 512000000 bytes, too many for this picture";
        assert_refused(&tiles((1000, 1000), (1, 1000), 64, 64), held);
        let held = "tiles that are decompressed at once have 134217728 bytes, too many for this picture";
        assert_refused(&tiles((1, 1), (1 << 18, 1), 64, 64), held);
        let all = "its tiles decompress to 25165824000 bytes, too many for this picture";
        assert_refused(&tiles((16, 2000), (1 << 22, 1), 3, 8), all);
        let all = "its tiles decompress to 512000000 bytes, too many for this picture";
        assert_refused(&tiles((1000, 1000), (1000, 1), 64, 64), all);
        let narrow = "tiles that are 7 pixels wide are too narrow for this picture";
        assert_refused(&tiles((2800, 2800), (7, 2800), 3, 8), narrow);
        // These are taken, and what is no Zstandard is found only when it is decompressed.
        for (picture, tile, samples, bits) in
            [((1, 1), (2048, 2048), 4, 8), ((1000, 1000), (1, 1000), 3, 32), ((2800, 2800), (8, 2800), 3, 8)]
        {
            assert_refused(&tiles(picture, tile, samples, bits), "damaged or incomplete TIFF: tile 0: ");
        }
    }

    #[test]
    fn strips_that_are_the_same_bytes_are_not_read_again_and_again() {
        let file = include_bytes!("../../../../tests/fixtures/found/tiff/strips-in-the-same-bytes.tiff");
        assert_refused(file, "its strips have 1001000 bytes together, and the file has 6124");
        // 63 times the same, which is less than 64 times the file.
        let file = strips(&[0; 10_000], LZW, 16, &[8; 63], &[10_000; 63]);
        assert_refused(&file, "its strips have 630000 bytes together, and the file has ");
        // So much that each is read only up to the next one, which is too little.
        let data = [&[128; 20_000][..], &[241, 7]].concat();
        let (starts, sizes): (Vec<u32>, Vec<u32>) = (0..63).map(|index| (8 + index, 20_002 - index)).unzip();
        assert_refused(&strips(&data, PACK_BITS, 16, &starts, &sizes), "strip 0: it is cut short");
    }

    #[test]
    fn tables_are_counted_as_often_as_they_are_read() {
        let tables = vec![0; 2500];
        let fields: [(u16, &[u32]); 9] = [
            (256, &[16]),
            (257, &[400]),
            (258, &[8]),
            (259, &[JPEG]),
            (262, &[1]),
            (273, &[8; 50]),
            (278, &[8]),
            (279, &[2; 50]),
            (347, &tables),
        ];
        // 50 times 2 bytes, and the tables, which are 10,000.
        assert_refused(&tiff(b"\xff\xd8", &fields), "its strips have 500100 bytes together, and the file has ");
    }

    #[test]
    fn strips_may_go_to_the_end_of_the_file() {
        let data: Vec<u8> = (0..1000).flat_map(|row| [241, (row % 251) as u8]).collect();
        let starts: Vec<u32> = (0..1000).map(|row| 8 + 2 * row).collect();
        let length = strips(&data, PACK_BITS, 16, &starts, &[0; 1000]).len() as u32;
        let sizes: Vec<u32> = starts.iter().map(|start| length - start).collect();
        let file = strips(&data, PACK_BITS, 16, &starts, &sizes);
        let picture = decode(&file, "a.tiff".as_ref(), Options::default()).unwrap();
        assert_eq!(picture.dimensions(), (16, 1000));
        assert!(picture.enumerate_pixels().all(|(_, row, pixel)| pixel.0 == [(row % 251) as u8; 3]));
    }

    #[test]
    fn what_is_not_compressed_is_no_larger_than_its_file() {
        let file = strips(&[0; 8192], 1, 8192, &[8; 16384], &[8192; 16384]);
        assert_refused(&file, "its strips have 134217728 bytes together, and the file has ");
        // What is only cut short is said to be.
        let starts: Vec<u32> = (0..16384).map(|row| 8 + 8192 * row).collect();
        assert_refused(&strips(&[0; 8192], 1, 8192, &starts, &[8192; 16384]), ": it is cut short");
    }
}
