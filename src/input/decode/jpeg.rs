//! JPEG by libjpeg-turbo's C code, with Pillow's settings, which are the library's defaults: Pillow's pixels
//! to the bit. The crate mozjpeg-sys carries the sources; decoding is libjpeg-turbo's, untouched.

use std::any::Any;
use std::ffi::{c_int, c_ulong, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, anyhow, bail, ensure};
use mozjpeg_sys as ffi;

use super::arithmetic::{cmyk_to_rgb, to_rgb};
use super::{CUT_SHORT, Decoder, orientation};

/// What decodes JPEG files.
pub const NAME: &str = "libjpeg-turbo";

/// Rows that are decoded at a time: two of the blocks that a JPEG file consists of.
const STRIP: usize = 16;

/// A JPEG file.
pub struct Jpeg<'a>(Library<'a>);

impl<'a> Jpeg<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If there is none, or it has neither one, three nor four components of 8 bits.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut library = Library::open(bytes)?;
        // As Pillow: the library has found out how the colours are stored.
        let components = library.info().num_components;
        library.info_mut().out_color_space = match components {
            1 => ffi::JCS_GRAYSCALE,
            3 => ffi::JCS_RGB,
            4 => ffi::JCS_CMYK,
            n => bail!("a JPEG of {n} components is not decoded"),
        };
        Ok(Self(library))
    }
}

impl Decoder for Jpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.0.info().image_width, self.0.info().image_height)
    }

    fn orientation(&self) -> u8 {
        let (exif, xmp) = self.0.metadata();
        orientation::of(exif.as_deref(), xmp.as_deref())
    }

    fn memory(&self) -> u64 {
        let info = self.0.info();
        let values = u64::from(info.image_width) * u64::from(info.image_height) * info.num_components as u64;
        // SAFETY: the header has been read.
        let whole = unsafe { ffi::jpeg_has_multiple_scans(info) } != 0;
        // All coefficients of a progressive file, 16 bits each; of others, rows.
        if whole { 2 * values } else { 64 * u64::from(info.image_width) * info.num_components as u64 }
    }

    fn read(mut self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>> {
        let mut rgb = Vec::new();
        self.0.read(&mut |samples, channels| match channels {
            3 => put(samples),
            1 => {
                to_rgb(samples, 1, &mut rgb);
                put(&rgb);
            }
            _ => {
                rgb.clear();
                // Adobe's programs store what is left of white, and Pillow assumes theirs.
                let inks = samples.as_chunks().0.iter().map(|cmyk: &[u8; 4]| cmyk.map(|ink| 255 - ink));
                rgb.extend(inks.flat_map(cmyk_to_rgb));
                put(&rgb);
            }
        })?;
        Ok(self.0.warning().into_iter().collect())
    }
}

/// What the components of a JPEG stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    Grey,
    Rgb,
    YCbCr,
    /// Four components as they are.
    Cmyk,
}

impl Colours {
    pub fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// Decodes a JPEG stream that is part of another file, which says what the components are: `[height, width,
/// components]`, 8 bits each. `check` is asked whether width and height are right before anything is allocated
/// for them. What libjpeg passed over is added to `warnings`.
///
/// # Errors
/// If it is damaged, or has another size or number of components.
pub fn samples(
    stream: &[u8],
    stored: Colours,
    wanted: Colours,
    check: impl FnOnce((u32, u32)) -> Result<()>,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let space = |colours| match colours {
        Colours::Grey => ffi::JCS_GRAYSCALE,
        Colours::Rgb => ffi::JCS_RGB,
        Colours::YCbCr => ffi::JCS_YCbCr,
        Colours::Cmyk => ffi::JCS_CMYK,
    };
    let mut library = Library::open(stream)?;
    let info = library.info_mut();
    check((info.image_width, info.image_height))?;
    let (found, expected) = (info.num_components, stored.channels());
    ensure!(found as usize == expected, "the JPEG inside has {found} components, not {expected}");
    info.jpeg_color_space = space(stored);
    info.out_color_space = space(wanted);
    // libtiff, which is the one to ask for YCbCr, repeats the samples of Cb and Cr and does not smooth them.
    info.do_fancy_upsampling = (wanted != Colours::YCbCr).into();
    let mut pixels = Vec::new();
    library.read(&mut |samples, _| pixels.extend_from_slice(samples))?;
    warnings.extend(library.warning());
    Ok(pixels)
}

/// The library's state for one file.
struct Library<'a> {
    /// Never null, and only freed with this.
    inner: *mut Inner,
    bytes: PhantomData<&'a [u8]>,
}

/// What C code and the functions that it calls point to. No reference to the whole is held.
struct Inner {
    info: ffi::jpeg_decompress_struct,
    errors: ffi::jpeg_error_mgr,
    progress: ffi::jpeg_progress_mgr,
    told: Told,
}

/// What the library told.
#[derive(Default)]
struct Told {
    /// The first warning, and how many there were.
    first: Option<String>,
    count: usize,
    /// The data ended before the file's end marker.
    ended: bool,
}

/// An error of the library on its way through the C code.
struct Fatal(String);

impl<'a> Library<'a> {
    /// Reads the header.
    fn open(bytes: &'a [u8]) -> Result<Self> {
        // SAFETY: these are C structures, for which zeros are what their makers begin with.
        let inner = unsafe {
            Inner {
                info: std::mem::zeroed(),
                errors: std::mem::zeroed(),
                progress: std::mem::zeroed(),
                told: Told::default(),
            }
        };
        let library = Self { inner: Box::into_raw(Box::new(inner)), bytes: PhantomData };
        let inner = library.inner;
        let read = guarded(|| {
            // SAFETY: `inner` stays where it is until it is dropped, and `bytes` live longer.
            unsafe {
                (*inner).info.common.err = ffi::jpeg_std_error(&mut (*inner).errors);
                (*inner).errors.error_exit = Some(fail);
                (*inner).errors.emit_message = Some(note);
                ffi::jpeg_create_decompress(&raw mut (*inner).info);
                (*inner).info.common.client_data = (&raw mut (*inner).told).cast::<c_void>();
                (*inner).progress.progress_monitor = Some(bound_scans);
                (*inner).info.common.progress = &raw mut (*inner).progress;
                ffi::jpeg_mem_src(&mut (*inner).info, bytes.as_ptr(), bytes.len() as c_ulong);
                ffi::jpeg_save_markers(&mut (*inner).info, APP1, 0xffff);
                // A file may begin with tables alone.
                while ffi::jpeg_read_header(&mut (*inner).info, 0) == TABLES_ONLY {}
            }
        });
        // Behind the end of the data it reads an end marker that is not there, and complains of that.
        library.ensure_whole()?;
        read?;
        Ok(library)
    }

    fn info(&self) -> &ffi::jpeg_decompress_struct {
        // SAFETY: nothing changes it while the reference lives, which borrows `self`.
        unsafe { &(*self.inner).info }
    }

    fn info_mut(&mut self) -> &mut ffi::jpeg_decompress_struct {
        // SAFETY: as above.
        unsafe { &mut (*self.inner).info }
    }

    fn told(&self) -> &Told {
        // SAFETY: C code writes it only while it runs, and then no such reference lives.
        unsafe { &(*self.inner).told }
    }

    /// What it warned of.
    fn warning(&self) -> Option<String> {
        let Told { first, count, .. } = self.told();
        let more = if *count > 1 { format!(" (and {} more warnings)", count - 1) } else { String::new() };
        first.as_ref().map(|first| format!("{first}{more}"))
    }

    /// Hands the rows over, in strips, with the number of channels.
    fn read(&mut self, put: &mut dyn FnMut(&[u8], usize)) -> Result<()> {
        // SAFETY: the structure is that of an open file.
        guarded(|| unsafe { ffi::jpeg_start_decompress(self.info_mut()) })?;
        self.ensure_whole()?;
        let (height, channels) = (self.info().output_height, self.info().output_components as usize);
        let line = self.info().output_width as usize * channels;
        let mut strip = vec![0u8; STRIP * line];
        while self.info().output_scanline < height {
            let rows = STRIP.min((height - self.info().output_scanline) as usize);
            let mut pointers: Vec<*mut u8> = strip.chunks_exact_mut(line).map(<[u8]>::as_mut_ptr).collect();
            let mut done = 0;
            while done < rows {
                // SAFETY: `done..rows` are pointers to rows of the size that the library writes.
                done += guarded(|| unsafe {
                    ffi::jpeg_read_scanlines(self.info_mut(), pointers[done..].as_mut_ptr(), (rows - done) as u32)
                })? as usize;
                self.ensure_whole()?;
            }
            put(&strip[..rows * line], channels);
        }
        // What is missing behind the last row, as the end marker, is nothing that Pillow would miss.
        // SAFETY: all rows have been read.
        guarded(|| unsafe { ffi::jpeg_finish_decompress(self.info_mut()) }).map(drop)
    }

    /// The library goes on with grey where the data ends. Pillow does not.
    fn ensure_whole(&self) -> Result<()> {
        ensure!(!self.told().ended, CUT_SHORT);
        Ok(())
    }

    /// EXIF and XMP, as Pillow puts them together.
    fn metadata(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        // What says how a picture is turned comes at the beginning of what a camera has to say.
        const MOST: usize = 1 << 20;
        let (mut exif, mut xmp): (Option<Vec<u8>>, _) = (None, None);
        let mut marker = self.info().marker_list;
        // SAFETY: it is a list that lives as long as the structure.
        while let Some(segment) = unsafe { marker.as_ref() } {
            if !segment.data.is_null() {
                // SAFETY: the library allocated the segment with this length.
                let data = unsafe { std::slice::from_raw_parts(segment.data, segment.data_length as usize) };
                if let Some(more) = data.strip_prefix(b"Exif\0\0") {
                    let exif = exif.get_or_insert_default();
                    exif.extend_from_slice(&more[..more.len().min(MOST.saturating_sub(exif.len()))]);
                } else if let Some(packet) = data.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                    xmp = Some(packet.to_vec());
                }
            }
            marker = segment.next;
        }
        (exif, xmp)
    }
}

impl Drop for Library<'_> {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, whatever its state, and this never fails; nothing points to it then.
        unsafe {
            ffi::jpeg_destroy_decompress(&mut (*self.inner).info);
            drop(Box::from_raw(self.inner));
        }
    }
}

/// The marker of EXIF's and XMP's segments.
const APP1: c_int = 0xe1;

/// `JPEG_HEADER_TABLES_ONLY` of jpeglib.h.
const TABLES_ONLY: c_int = 2;

/// `JMSG_LENGTH_MAX` of jpeglib.h.
const MESSAGE_LENGTH: usize = 200;

/// More scans than any encoder writes. Each goes through the whole picture, so that a small file of very many
/// would take for ever.
const MOST_SCANS: c_int = 100;

/// Runs C code whose errors come as a panic that the C code lets through.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload: Box<dyn Any + Send>| match payload.downcast::<Fatal>() {
        Ok(fatal) => anyhow!(fatal.0),
        Err(other) => resume_unwind(other),
    })
}

/// The text of the library's last message.
fn message(common: &mut ffi::jpeg_common_struct) -> String {
    let mut buffer = [0u8; MESSAGE_LENGTH];
    // SAFETY: the error manager is that of `open`. The function takes a pointer to as many bytes as there are, and
    // ends the text with a zero; the binding has another type for it, of a shorter and constant buffer.
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

/// What the library calls when it cannot go on.
unsafe extern "C-unwind" fn fail(common: &mut ffi::jpeg_common_struct) {
    const LOSSLESS: c_int = 0xc3;
    // SAFETY: `open` has set it, and the code says what the parameter is.
    let lossless = unsafe {
        let errors = &mut *common.err;
        errors.msg_code == ffi::JERR_SOF_UNSUPPORTED as c_int && (*errors.msg_parm.i())[0] == LOSSLESS
    };
    let text = if lossless { "lossless JPEG is not decoded".into() } else { message(common) };
    // Not `panic!`, which would print.
    resume_unwind(Box::new(Fatal(text)));
}

/// What the library calls when something is wrong (-1), or to tell what it does (0 and up).
unsafe extern "C-unwind" fn note(common: &mut ffi::jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    // SAFETY: `open` has set both.
    let (told, code) = unsafe { (common.client_data.cast::<Told>().as_mut(), (*common.err).msg_code) };
    if let Some(told) = told {
        told.ended |= code == ffi::JWRN_JPEG_EOF as c_int;
        told.count += 1;
        told.first.get_or_insert_with(|| message(common));
    }
}

/// What the library calls now and then.
unsafe extern "C-unwind" fn bound_scans(common: &mut ffi::jpeg_common_struct) {
    // SAFETY: it is the beginning of the structure that was given to the library.
    let info = unsafe { &*(&raw const *common).cast::<ffi::jpeg_decompress_struct>() };
    if info.input_scan_number > MOST_SCANS {
        resume_unwind(Box::new(Fatal(format!("it has more than {MOST_SCANS} scans"))));
    }
}
