//! libjpeg-turbo's decompressor, in C, behind functions that are safe to call: its errors, which it leaves by a jump,
//! become panics that end at the border, and its warnings are kept.

use std::any::Any;
use std::ffi::{c_int, c_ulong, c_void};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys as ffi;

use super::CUT_SHORT;
use crate::error::{Reason, Result, ensure};

/// Rows that are decoded at a time: the height of two of the 8x8 blocks that a JPEG file consists of.
const STRIP: usize = 16;

/// libjpeg's decompressor of one file, whose header has been read.
pub(super) struct Decompressor<'a> {
    /// Never null: it comes from a box, and is freed when this is dropped. C code holds pointers into it, so that
    /// there are no references to the whole.
    state: *mut State,
    /// libjpeg reads the file's bytes as long as this lives.
    bytes: PhantomData<&'a [u8]>,
}

/// What libjpeg and the functions that it calls back point to.
struct State {
    info: ffi::jpeg_decompress_struct,
    errors: ffi::jpeg_error_mgr,
    progress: ffi::jpeg_progress_mgr,
    warnings: Warnings,
}

/// libjpeg's warnings.
#[derive(Default)]
struct Warnings {
    first: Option<String>,
    count: usize,
    /// One of them was that the data ended before the file's end marker.
    ended: bool,
}

/// The payload of the panic by which an error of libjpeg gets through the C code.
struct Fatal(String);

impl<'a> Decompressor<'a> {
    /// Reads the header.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        // SAFETY: these C structures consist of numbers, pointers and optional functions, for which zeros are valid.
        let (info, errors, progress) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        let state = Box::into_raw(Box::new(State { info, errors, progress, warnings: Warnings::default() }));
        let decompressor = Self { state, bytes: PhantomData };
        let read = guarded(|| {
            // SAFETY: `state` comes from a box that is freed with `decompressor`, so that the pointers into it that C
            // code keeps stay valid until `jpeg_destroy_decompress`, and so does `bytes`, which `'a` borrows. No
            // other reference into it lives meanwhile. The functions are called in the order that libjpeg demands.
            unsafe {
                (*state).info.common.err = ffi::jpeg_std_error(&mut (*state).errors);
                (*state).errors.error_exit = Some(error_exit);
                (*state).errors.emit_message = Some(emit_message);
                // libjpeg keeps it: a message may come at any time.
                (*state).info.common.client_data = state.cast::<c_void>();
                ffi::jpeg_create_decompress(&raw mut (*state).info);
                (*state).progress.progress_monitor = Some(limit_scans);
                (*state).info.common.progress = &raw mut (*state).progress;
                ffi::jpeg_mem_src(&mut (*state).info, bytes.as_ptr(), bytes.len() as c_ulong);
                // A file may begin with tables alone.
                while ffi::jpeg_read_header(&mut (*state).info, 0) == TABLES_ONLY {}
            }
        });
        // Where the data end, libjpeg reads an end marker that is not there, and its error would be about that.
        decompressor.ensure_whole()?;
        read?;
        Ok(decompressor)
    }

    pub(super) fn info(&self) -> &ffi::jpeg_decompress_struct {
        // SAFETY: `state` is valid, and C code writes `info` only in methods that borrow `self` mutably.
        unsafe { &(*self.state).info }
    }

    pub(super) fn info_mut(&mut self) -> &mut ffi::jpeg_decompress_struct {
        // SAFETY: `state` is valid, and `self` is borrowed mutably: there is no other reference to `info`.
        unsafe { &mut (*self.state).info }
    }

    fn warnings(&self) -> &Warnings {
        // SAFETY: `state` is valid, and C code's callback writes them only in methods that borrow `self` mutably.
        unsafe { &(*self.state).warnings }
    }

    /// The first warning, and how many there are.
    pub(super) fn warning(&self) -> Option<String> {
        let Warnings { first, count, .. } = self.warnings();
        let more = if *count > 1 { format!(" (and {} more warnings)", count - 1) } else { String::new() };
        first.as_ref().map(|first| format!("{first}{more}"))
    }

    /// Decodes, and hands the rows over in strips, with the number of channels. If only some columns are expected, what
    /// the rows hold beside them is not decoded.
    pub(super) fn read(
        &mut self,
        expected: Option<Range<u32>>,
        put: &mut dyn FnMut(&[u8], usize),
    ) -> Result<(), Reason> {
        // SAFETY: the header has been read, and `jpeg_start_decompress` is called once.
        guarded(|| unsafe { ffi::jpeg_start_decompress(self.info_mut()) })?;
        self.ensure_whole()?;
        let (width, height) = (self.info().output_width as usize, self.info().output_height);
        let channels = self.info().output_components as usize;
        let line = width * channels;
        // Where in a line the decoded columns begin.
        let first = self.leave_out(expected)? as usize * channels;
        let mut strip = vec![0u8; STRIP * line];
        while self.info().output_scanline < height {
            let rows = STRIP.min((height - self.info().output_scanline) as usize);
            let lines = strip.chunks_exact_mut(line);
            let mut pointers: Vec<*mut u8> = lines.map(|line| line[first..].as_mut_ptr()).collect();
            let mut done = 0;
            while done < rows {
                // SAFETY: `pointers[done..rows]` point to as many rows, each with room for the columns that libjpeg
                // writes: they end where the line does, or before.
                done += guarded(|| unsafe {
                    ffi::jpeg_read_scanlines(self.info_mut(), pointers[done..].as_mut_ptr(), (rows - done) as u32)
                })? as usize;
                self.ensure_whole()?;
            }
            put(&strip[..rows * line], channels);
        }
        // Pillow does not ask for what follows the last row, such as the end marker: it may be missing.
        // SAFETY: decompression has been started, and all rows have been read.
        guarded(|| unsafe { ffi::jpeg_finish_decompress(self.info_mut()) }).map(drop)
    }

    /// Has the columns left out that are not expected: their blocks are read, so that what is wrong with them is
    /// found, and not transformed. Returns the first column that is decoded.
    fn leave_out(&mut self, expected: Option<Range<u32>>) -> Result<u32, Reason> {
        let info = self.info();
        let width = info.output_width;
        // SAFETY: `info` is that of an open file, whose header has been read, as the function demands.
        let several_scans = unsafe { ffi::jpeg_has_multiple_scans(info) } != 0;
        // A block more on each side: colours of lower resolution are smoothed between neighbours. What progressive
        // files leave open is smoothed further.
        let margin = 8 * info.max_h_samp_factor as u32;
        let Some(Range { start, end }) = expected.filter(|_| !several_scans) else { return Ok(0) };
        let mut first = start.saturating_sub(margin);
        let mut columns = end.saturating_add(margin).min(width).saturating_sub(first);
        if columns == 0 || columns == width {
            return Ok(0);
        }
        // SAFETY: decompression has been started, no row has been read, and the columns lie within the width.
        guarded(|| unsafe { ffi::jpeg_crop_scanline(self.info_mut(), &mut first, &mut columns) })?;
        Ok(first)
    }

    /// libjpeg fills up with grey where the data end. Pillow does not.
    fn ensure_whole(&self) -> Result<(), Reason> {
        ensure!(!self.warnings().ended, "{CUT_SHORT}");
        Ok(())
    }
}

impl Drop for Decompressor<'_> {
    fn drop(&mut self) {
        // SAFETY: `state` comes from `Box::into_raw` and is freed only here. `jpeg_destroy_decompress` may be called
        // in any state, also that of zeros, and never calls `error_exit`; afterwards no C code points to `state`.
        unsafe {
            ffi::jpeg_destroy_decompress(&mut (*self.state).info);
            drop(Box::from_raw(self.state));
        }
    }
}

/// `JPEG_HEADER_TABLES_ONLY` of jpeglib.h.
const TABLES_ONLY: c_int = 2;

/// `JMSG_LENGTH_MAX` of jpeglib.h.
const MESSAGE_LENGTH: usize = 200;

/// A picture of so many values may have so many scans, of which encoders write up to 20, and smaller ones more, but no more
/// than 100. Each goes through the whole picture, even where it has no bytes: a small file with many would take for ever.
fn most_scans(values: u64) -> c_int {
    const FOR_EACH: u64 = 1_000_000_000;
    (20 + FOR_EACH / values.max(1)).min(100) as c_int
}

/// A file with more warnings is not decoded to its end: a few bytes can have one for each pixel.
const MOST_WARNINGS: usize = 10_000_000;

/// Runs C code, and makes an error of the panic by which [`error_exit`], [`emit_message`] and [`limit_scans`] leave it.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload: Box<dyn Any + Send>| match payload.downcast::<Fatal>() {
        Ok(fatal) => Reason::new(fatal.0),
        Err(other) => resume_unwind(other),
    })
}

/// The text of libjpeg's last message.
///
/// # Safety
/// `common` must be the beginning of the `info` of a [`State`] that [`Decompressor::open`] has set up.
unsafe fn last_message(common: &mut ffi::jpeg_common_struct) -> String {
    let mut buffer = [0u8; MESSAGE_LENGTH];
    // SAFETY: `open` has set `err`. `format_message` takes a pointer to `MESSAGE_LENGTH` bytes, and ends the text with
    // a zero. Only the type of that pointer is changed, to a mutable one: the binding's is to a shorter and
    // constant buffer.
    unsafe {
        if let Some(format) = (*common.err).format_message {
            let format: unsafe extern "C-unwind" fn(&mut ffi::jpeg_common_struct, *mut u8) =
                std::mem::transmute(format);
            format(common, buffer.as_mut_ptr());
        }
    }
    let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}

/// libjpeg calls it when it cannot go on. It must not return.
///
/// # Safety
/// As [`last_message`].
unsafe extern "C-unwind" fn error_exit(common: &mut ffi::jpeg_common_struct) {
    const LOSSLESS: c_int = 0xc3;
    // SAFETY: `open` has set `err`. With this code, the first parameter is a number: the marker of the frame.
    let lossless = unsafe {
        let errors = &mut *common.err;
        errors.msg_code == ffi::JERR_SOF_UNSUPPORTED as c_int && (*errors.msg_parm.i())[0] == LOSSLESS
    };
    // SAFETY: the caller's promise.
    let text = if lossless { "lossless JPEG is not decoded".into() } else { unsafe { last_message(common) } };
    // Not `panic!`, which would print.
    resume_unwind(Box::new(Fatal(text)));
}

/// libjpeg calls it with a warning (level -1) or to trace what it does (0 and up). It does not return where there are too
/// many warnings.
///
/// # Safety
/// As [`last_message`]; and no reference to the state's `warnings` may live.
unsafe extern "C-unwind" fn emit_message(common: &mut ffi::jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    // SAFETY: `open` has set `client_data` to the state, and `err`. `warnings` is another field than `common`, and
    // there is no other reference to it.
    let (warnings, code) = unsafe { (&mut (*common.client_data.cast::<State>()).warnings, (*common.err).msg_code) };
    warnings.ended |= code == ffi::JWRN_JPEG_EOF as c_int;
    warnings.count += 1;
    if warnings.count > MOST_WARNINGS {
        resume_unwind(Box::new(Fatal(format!("it is damaged in more than {MOST_WARNINGS} places"))));
    }
    // SAFETY: the caller's promise.
    warnings.first.get_or_insert_with(|| unsafe { last_message(common) });
}

/// libjpeg calls it now and then, to report its progress.
///
/// # Safety
/// As [`last_message`].
unsafe extern "C-unwind" fn limit_scans(common: &mut ffi::jpeg_common_struct) {
    let state = common.client_data.cast::<State>();
    // SAFETY: `open` has set `client_data` to the state, of which `common` is another part than what is read.
    let (width, height, components, scan) = unsafe {
        let info = &raw const (*state).info;
        ((*info).image_width, (*info).image_height, (*info).num_components, (*info).input_scan_number)
    };
    let most = most_scans(u64::from(width) * u64::from(height) * components.max(0) as u64);
    if scan > most {
        resume_unwind(Box::new(Fatal(format!("it has more than {most} scans"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_picture_may_have_fewer_scans() {
        assert_eq!([0, 1, 3 * 4000 * 3000, 3 * 13_376 * 13_376].map(most_scans), [100, 100, 47, 21]);
    }
}
