//! Bytes of images to a CUDA device, through page-locked memory.
//!
//! What a copy reads has to be locked in memory. Of other memory the driver makes such copies itself, in one thread and in
//! small pieces, which takes about as long as the network does in float16. Here all threads fill one piece while the card
//! fetches the one before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DevicePtrMut, DriverError, PinnedHostSlice, result,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

/// Bytes of a piece.
const PIECE: usize = 4 << 20;
/// What a thread copies at a time.
const SHARE: usize = 256 << 10;
/// How many pieces there are: one is filled while another is sent.
const PIECES: usize = 2;

/// Page-locked memory, and when the copy from it has been made.
struct Piece {
    memory: PinnedHostSlice<u8>,
    sent: CudaEvent,
}

/// The pieces of each device that nobody is using, by its number.
static FREE: Mutex<BTreeMap<usize, Vec<Piece>>> = Mutex::new(BTreeMap::new());

fn free() -> MutexGuard<'static, BTreeMap<usize, Vec<Piece>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes on the device, of that shape. They may be under way when this returns, but are not read any more.
///
/// # Errors
/// If the device fails, or lacks the memory.
pub fn upload(bytes: &[u8], shape: &Shape, device: &CudaDevice) -> Result<Tensor> {
    let stream = device.cuda_stream();
    // SAFETY: every byte is written below.
    let mut there = unsafe { device.alloc::<u8>(bytes.len())? };
    let number = stream.context().ordinal();
    // Not locked meanwhile: threads that wait for others do what else there is to do, which may be an upload.
    let pieces = free().remove(&number);
    // The system may lock no memory for us.
    match pieces.or_else(|| pieces_for(&stream).ok()) {
        Some(mut pieces) => {
            let (start, _used) = there.device_ptr_mut(&stream);
            let mut parts = bytes.chunks(PIECE).enumerate();
            let sent = parts
                .try_for_each(|(i, part)| send(part, start + (i * PIECE) as u64, &mut pieces[i % PIECES], &stream));
            if let Err(error) = sent {
                // The pieces may still be read.
                let _ = stream.synchronize();
                return Err(error).w();
            }
            free().insert(number, pieces);
        }
        None => device.memcpy_htod(bytes, &mut there)?,
    }
    let storage = CudaStorage::wrap_cuda_slice(there, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape.clone(), BackpropOp::none(), false))
}

/// Page-locked memory for the device of that stream.
fn pieces_for(stream: &Arc<CudaStream>) -> std::result::Result<Vec<Piece>, DriverError> {
    let context = stream.context();
    let piece = |_| {
        // SAFETY: what is read of it has been written before.
        let memory = unsafe { context.alloc_pinned(PIECE)? };
        Ok(Piece { memory, sent: context.new_event(None)? })
    };
    (0..PIECES).map(piece).collect()
}

/// Has a part copied to an address of the device, as soon as the piece is free.
fn send(part: &[u8], to: CUdeviceptr, piece: &mut Piece, stream: &CudaStream) -> std::result::Result<(), DriverError> {
    piece.sent.synchronize()?;
    let locked = &mut piece.memory.as_mut_slice()?[..part.len()];
    locked.par_chunks_mut(SHARE).zip(part.par_chunks(SHARE)).for_each(|(to, from)| to.copy_from_slice(from));
    // SAFETY: there are as many bytes at the address, and nobody writes the piece before `sent` has come.
    unsafe { result::memcpy_htod_async(to, locked, stream.cu_stream())? };
    piece.sent.record(stream)
}
