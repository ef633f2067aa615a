//! How many images run through the network together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Result, Tensor};

use crate::network::device::in_memory;
use crate::network::gpu;
use crate::network::model::sides;
use crate::weights::config::{BlockConfig, Config};

/// The most images that run together on a GPU, where more bring nothing.
const MOST: usize = 256;
/// What the plain operations keep at a time, beside what kernels do: copies with padding, and sums not yet in place.
const PLAIN: usize = 3;

/// How many images run together, and what limits it.
#[derive(Clone, Debug)]
pub(super) struct Batching {
    /// Bytes that a GPU has for activations; less once that was too much. On a CPU there is no such limit.
    memory: Option<Arc<AtomicUsize>>,
    /// Bytes of an activation's element.
    element: usize,
    /// Whether kernels run, or the plain operations.
    kernels: bool,
}

impl Batching {
    /// For a network in an element type whose weights are on the device.
    pub fn new(device: &Device, dtype: DType) -> Self {
        let memory = gpu::memory_for_activations(device).map(|memory| Arc::new(AtomicUsize::new(memory)));
        Self { memory, element: dtype.size_in_bytes(), kernels: gpu::runs_on(device, dtype) }
    }

    /// How many images of this size run together on a device.
    pub fn images_at_once(&self, config: &Config, device: &Device, height: usize, width: usize) -> usize {
        if device.is_cpu() {
            return images_at_once_on_cpu(height, width, rayon::current_num_threads());
        }
        let memory = self.memory.as_ref().map_or(usize::MAX, |memory| memory.load(Ordering::Relaxed));
        let fitting = memory / self.bytes(config, height, width).max(1);
        images_at_once_on_gpu(config, height, width).min(fitting).max(1)
    }

    /// What `run` makes of [images](crate::network::model::QLNet::forward), of no more at a time than run well together,
    /// and of fewer where a GPU's memory does not do: in memory, as it was computed.
    ///
    /// # Errors
    /// If the device fails, for want of memory only where it cannot hold a single image.
    pub fn in_parts(
        &self,
        config: &Config,
        images: &Tensor,
        run: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (n, device) = (images.dim(0)?, images.device());
        let (height, width) = sides(images)?;
        let _alone = gpu::alone(device);
        loop {
            let at_once = self.images_at_once(config, device, height, width).min(n.max(1));
            let run = |images: &Tensor| in_memory(&run(images)?);
            let result = match n <= at_once {
                true => run(images),
                false => {
                    let parts = (0..n).step_by(at_once);
                    let parts = parts.map(|start| run(&images.narrow(0, start, at_once.min(n - start))?));
                    parts.collect::<Result<Vec<_>>>().and_then(|parts| Tensor::cat(&parts, 0))
                }
            };
            match result {
                Err(error) if gpu::is_out_of_memory(&error) && self.halve(config, at_once, height, width) => {
                    gpu::release(device);
                }
                result => return result,
            }
        }
    }

    /// After a device has run out of memory with so many images of this size: half of them, and of all that is larger,
    /// from now on. False if one was too much.
    fn halve(&self, config: &Config, images: usize, height: usize, width: usize) -> bool {
        if let (Some(memory), 2..) = (&self.memory, images) {
            memory.fetch_min(self.bytes(config, height, width) * (images / 2), Ordering::Relaxed);
            return true;
        }
        false
    }

    /// Bytes that are needed for each image of this size.
    fn bytes(&self, config: &Config, height: usize, width: usize) -> usize {
        let elements = elements_at_a_time(config, height, width);
        elements * self.element * if self.kernels { 1 } else { PLAIN }
    }
}

/// How many images of this size run together on a CPU: so many that every thread has work, and not many more,
/// because their activations would need more memory and leave the cache.
fn images_at_once_on_cpu(height: usize, width: usize, threads: usize) -> usize {
    /// Four images of 224x224.
    const PIXELS: usize = 4 * 224 * 224;
    (PIXELS / (height * width).max(1)).max(1).next_multiple_of(threads)
}

/// How many images of this size may run together on a GPU: [`MOST`], or fewer where a tensor would have 2^31
/// elements or more, which 32 bits with a sign do not count. An image that is larger still runs alone.
fn images_at_once_on_gpu(config: &Config, height: usize, width: usize) -> usize {
    (i32::MAX as usize / largest_tensor(config, height, width).max(1)).clamp(1, MOST)
}

/// The most elements of one image that are in memory at the same time where kernels run.
fn elements_at_a_time(config: &Config, height: usize, width: usize) -> usize {
    let halved = |(h, w): (usize, usize), stride: usize| (h.div_ceil(stride), w.div_ceil(stride));
    let mut size = halved((height, width), 2);
    // The image, its windows, and what the first convolution makes of them.
    let mut most = height * width * 3 + size.0 * size.1 * (gpu::WINDOW + config.stem_channels);
    size = halved(size, 2);
    for block in config.layers.iter().flatten() {
        let &BlockConfig { in_channels, hidden_channels: hidden, filters, out_channels, stride, .. } = block;
        let before = size.0 * size.1;
        size = halved(size, stride);
        let after = size.0 * size.1;
        // The block's input stays for the skip.
        let gated = before * (in_channels + 2 * hidden) + after * filters * hidden;
        let residual = before * in_channels + after * (filters * hidden + in_channels + 3 * out_channels);
        most = most.max(gated).max(residual);
    }
    most
}

/// Elements of the largest tensor that the plain operations or kernels make of one image, those inside candle's convolution
/// included.
fn largest_tensor(config: &Config, height: usize, width: usize) -> usize {
    let halved = |(h, w): (usize, usize), stride: usize| (h.div_ceil(stride), w.div_ceil(stride));
    let mut size = halved((height, width), 2);
    // The 7x7 window under every output pixel is copied, by kernels and by candle's `conv2d` (im2col).
    // The plain pool pads the stem's output by one pixel on each side.
    let padded = (size.0 + 2) * (size.1 + 2) * config.stem_channels;
    let mut largest = padded.max(size.0 * size.1 * gpu::WINDOW);
    size = halved(size, 2);
    for block in config.layers.iter().flatten() {
        let &BlockConfig { in_channels, hidden_channels: hidden, filters, out_channels, stride, .. } = block;
        let (h, w) = size;
        size = halved(size, stride);
        let (oh, ow) = size;
        // conv1's output, conv2's input with its padding, and conv2's output or what leaves the block.
        let padded = stride * (oh + 2) * stride * (ow + 2) * hidden.max(in_channels);
        largest = largest.max(h * w * 2 * hidden).max(padded).max(oh * ow * (filters * hidden).max(out_channels));
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_on_a_gpu_stay_below_the_limit_of_elements() {
        const LIMIT: usize = 1 << 31;
        for config in [Config::qlnet_50_v0(), Config::qlnet_10m(), Config::qlnet_digits()] {
            for side in (1..=4096).step_by(9).chain([224, 677, 4096]) {
                let images = images_at_once_on_gpu(&config, side, side);
                let elements = largest_tensor(&config, side, side);
                assert!((1..=256).contains(&images));
                assert!(images * elements < LIMIT, "{images} images of {side}x{side}");
                assert!(images == 256 || (images + 1) * elements >= LIMIT, "only {images} images of {side}x{side}");
            }
        }
        let images = |height, width| images_at_once_on_gpu(&Config::qlnet_50_v0(), height, width);
        assert_eq!(images(224, 224), 256);
        assert!(images(677, 677) < 256);
        assert_eq!(images(4096, 1024), images(1024, 4096));
        // Too large for any batch: they run one by one.
        assert_eq!(images(1 << 14, 1 << 14), 1);
    }

    #[test]
    fn the_largest_tensor_of_a_small_image_is_in_layer_1_or_the_windows_of_the_stem() {
        // 152 values in the window of each of 112x112 pixels, or 512 channels of each of 56x56.
        assert_eq!(largest_tensor(&Config::qlnet_50_v0(), 224, 224), 112 * 112 * 152);
        let mut wide = Config::qlnet_50_v0();
        wide.layers[0][1].hidden_channels *= 4;
        assert_eq!(largest_tensor(&wide, 224, 224), 56 * 56 * 2 * 1024);
    }

    #[test]
    fn batches_on_a_gpu_fit_its_memory_and_shrink_where_they_did_not() {
        let config = Config::qlnet_50_v0();
        let batching = |memory: usize, element: usize, kernels: bool| Batching {
            memory: Some(Arc::new(AtomicUsize::new(memory))),
            element,
            kernels,
        };
        // The input of the second block, both halves, and what two filters make of their product, of 56x56 pixels.
        let image = 4 * 56 * 56 * (64 + 4 * 256);
        assert_eq!(batching(0, 4, true).bytes(&config, 224, 224), image);
        assert_eq!(batching(0, 2, true).bytes(&config, 224, 224), image / 2);
        assert_eq!(batching(0, 4, false).bytes(&config, 224, 224), image * 3);
        // The windows and 64 channels of 112x112 pixels are the largest where blocks are narrower.
        let mut narrow = Config::qlnet_50_v0();
        narrow.layers[0].iter_mut().for_each(|block| block.hidden_channels /= 2);
        narrow.layers[1][0].hidden_channels /= 2;
        let windows = 224 * 224 * 3 + 112 * 112 * (152 + 64);
        assert_eq!(elements_at_a_time(&narrow, 224, 224), windows);

        let room = batching(20 * image, 4, true);
        let at_once = |h, w| {
            let memory = room.memory.as_ref().unwrap().load(Ordering::Relaxed);
            (memory / room.bytes(&config, h, w)).clamp(1, images_at_once_on_gpu(&config, h, w))
        };
        assert_eq!(at_once(224, 224), 20);
        assert!(room.halve(&config, 20, 224, 224));
        assert_eq!(at_once(224, 224), 10);
        // More was tried elsewhere meanwhile.
        assert!(room.halve(&config, 20, 224, 224));
        assert_eq!(at_once(224, 224), 10);
        assert!(at_once(112, 112) > 30);
        assert_eq!(at_once(4000, 4000), 1);
        assert!(!room.halve(&config, 1, 224, 224));
    }

    #[test]
    fn batches_on_a_cpu_give_every_thread_work() {
        assert_eq!(images_at_once_on_cpu(224, 224, 2), 4);
        assert_eq!(images_at_once_on_cpu(224, 224, 16), 16);
        assert_eq!(images_at_once_on_cpu(64, 64, 2), 50);
        assert_eq!(images_at_once_on_cpu(4096, 4096, 3), 3);
    }
}
