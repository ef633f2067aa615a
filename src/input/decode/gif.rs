//! The first frame of a GIF file, as Pillow shows it (`GifImagePlugin.py`). The `image` crate is not used: it puts
//! the frame on a transparent screen, which has no colour where alpha is dropped, and cuts off what reaches outside.

use weezl::{BitOrder, LzwStatus, decode::Decoder as Lzw};

use super::{CUT_SHORT, Decoder};
use crate::error::{Context, Reason, Result, bail, ensure};

/// A GIF file, of which the first frame is the picture.
pub(super) struct Gif<'a> {
    /// Width of the screen in pixels, or more where the frame needs it.
    width: usize,
    /// Height of the screen in pixels, or more where the frame needs it.
    height: usize,
    frame: Frame,
    /// The colour around the frame, as an index of `colours`.
    background: u8,
    /// RGB.
    colours: [[u8; 3]; 256],
    /// Bits of the shortest LZW codes, as the file counts them.
    code_bits: u8,
    /// The file from the first sub-block of the frame's LZW data on.
    data: &'a [u8],
}

/// Where the frame lies on the screen, in pixels.
struct Frame {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    interlaced: bool,
}

impl<'a> Gif<'a> {
    /// Reads everything up to the first frame's pixels.
    ///
    /// # Errors
    /// If the file ends before them, or holds no frame.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let mut rest = bytes;
        let header = rest.split_off(..13).context(CUT_SHORT)?;
        ensure!(header.starts_with(b"GIF87a") || header.starts_with(b"GIF89a"), "not a GIF file");
        let number = |field: &[u8]| usize::from(u16::from_le_bytes([field[0], field[1]]));
        let global_colours = colour_table(&mut rest, header[10])?;
        let mut transparent = None;
        loop {
            match rest.split_off_first().context(CUT_SHORT)? {
                b'!' => {
                    let label = rest.split_off_first().context(CUT_SHORT)?;
                    let mut block = sub_block(&mut rest);
                    if let (0xf9, &[flags, _, _, index, ..]) = (label, block)
                        && flags & 1 != 0
                    {
                        transparent = Some(index);
                    }
                    while !block.is_empty() {
                        block = sub_block(&mut rest);
                    }
                }
                b',' => break,
                b';' => bail!("it holds no picture"),
                // Stray bytes, which Pillow passes over.
                _ => {}
            }
        }
        let descriptor = rest.split_off(..9).context(CUT_SHORT)?;
        let [left, top, width, height] = [0, 2, 4, 6].map(|at| number(&descriptor[at..]));
        ensure!(width > 0 && height > 0, "its first frame has no pixels ({width}x{height})");
        let frame = Frame { left, top, width, height, interlaced: descriptor[8] & 0x40 != 0 };
        let colours = [colour_table(&mut rest, descriptor[8])?, global_colours];
        let code_bits = *rest.split_off_first().context(CUT_SHORT)?;
        ensure!((1..=11).contains(&code_bits), "LZW codes of {code_bits} bits");
        Ok(Self {
            width: number(&header[6..]).max(left + width),
            height: number(&header[8..]).max(top + height),
            frame,
            // As in Pillow, not the background colour that the header names, which programs ignore.
            background: transparent.unwrap_or(0),
            colours: palette(colours),
            code_bits,
            data: rest,
        })
    }

    /// The frame's pixels as indices, in the order in which they are stored.
    fn indices(&self) -> Result<Vec<u8>, Reason> {
        let mut indices = vec![0; self.frame.width * self.frame.height];
        let mut lzw = Lzw::new(BitOrder::Lsb, self.code_bits);
        let mut rest = self.data;
        let mut block = sub_block(&mut rest);
        let mut written = 0;
        // What comes behind the last pixel does not matter.
        while written < indices.len() {
            let step = lzw.decode_bytes(block, &mut indices[written..]);
            block = &block[step.consumed_in..];
            written += step.consumed_out;
            match step.status {
                Ok(LzwStatus::Ok) => continue,
                Ok(LzwStatus::NoProgress) => block = sub_block(&mut rest),
                Ok(LzwStatus::Done) | Err(_) => break,
            }
            if block.is_empty() {
                break;
            }
        }
        ensure!(written == indices.len(), "its LZW data end early or are not valid");
        Ok(indices)
    }
}

impl Decoder for Gif<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width as u32, self.height as u32)
    }

    fn memory(&self) -> u64 {
        let frame = self.frame.width as u64 * self.frame.height as u64;
        // Of each row of the frame there are up to two slices; the tables of LZW are less than 64 KiB.
        frame + 4 * self.width as u64 + 32 * self.frame.height as u64 + (1 << 16)
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let Frame { left, top, width, height, interlaced } = self.frame;
        let indices = self.indices()?;
        let mut stored: Vec<&[u8]> = indices.chunks_exact(width).collect();
        if interlaced {
            let passes = [(0, 8), (4, 8), (2, 4), (1, 2)];
            let order = passes.into_iter().flat_map(|(first, step)| (first..height).step_by(step));
            let mut in_place = vec![&[][..]; height];
            order.zip(stored).for_each(|(y, row)| in_place[y] = row);
            stored = in_place;
        }
        let mut row = vec![self.background; self.width];
        let mut pixels = Vec::with_capacity(3 * self.width);
        for y in 0..self.height {
            let inside = y.checked_sub(top).and_then(|y| stored.get(y));
            match inside {
                Some(inside) => row[left..left + width].copy_from_slice(inside),
                None => row.fill(self.background),
            }
            pixels.clear();
            pixels.extend(row.iter().flat_map(|&index| self.colours[usize::from(index)]));
            put(&pixels);
        }
        Ok(Vec::new())
    }
}

/// Takes the colour table off `rest`, if `flags` say that there is one.
fn colour_table<'a>(rest: &mut &'a [u8], flags: u8) -> Result<Option<&'a [u8]>, Reason> {
    let announced = flags & 0x80 != 0;
    announced.then(|| rest.split_off(..6 << (flags & 7)).context(CUT_SHORT)).transpose()
}

/// The colour of each index. As in Pillow, a table counts only if one of its colours is not its index as a shade of
/// grey: the first such table does, and indices beyond its end are black. Without one, indices are shades of grey.
fn palette(local_and_global: [Option<&[u8]>; 2]) -> [[u8; 3]; 256] {
    let grey = std::array::from_fn(|index| [index as u8; 3]);
    let mut tables = local_and_global.into_iter().flatten().map(|table| table.as_chunks::<3>().0);
    match tables.find(|table| !grey.starts_with(table)) {
        Some(table) => std::array::from_fn(|index| table.get(index).copied().unwrap_or_default()),
        None => grey,
    }
}

/// Takes the next sub-block off `rest`. It is empty at the end of the data, and cut short where the file is.
fn sub_block<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = rest.split_off_first().map_or(0, |&length| usize::from(length));
    let block = rest.split_off(..length.min(rest.len()));
    block.unwrap_or_default()
}
