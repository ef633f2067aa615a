//! How many images run through the network together.

use candle_core::Device;

use crate::weights::config::{BlockConfig, Config};

/// How many images of this size run together on a device.
pub(super) fn images_at_once(config: &Config, device: &Device, height: usize, width: usize) -> usize {
    if device.is_cpu() {
        images_at_once_on_cpu(height, width, rayon::current_num_threads())
    } else {
        images_at_once_on_gpu(config, height, width)
    }
}

/// How many images of this size run together on a CPU: so many that every thread has work, and not many more,
/// because their activations would need more memory and leave the cache.
fn images_at_once_on_cpu(height: usize, width: usize, threads: usize) -> usize {
    /// Four images of 224x224.
    const PIXELS: usize = 4 * 224 * 224;
    (PIXELS / (height * width).max(1)).max(1).next_multiple_of(threads)
}

/// How many images of this size run together on a GPU: 256, or fewer where a tensor would have 2^31 elements
/// or more, which 32 bits with a sign do not count. An image that is larger still runs alone.
fn images_at_once_on_gpu(config: &Config, height: usize, width: usize) -> usize {
    (i32::MAX as usize / largest_tensor(config, height, width).max(1)).clamp(1, 256)
}

/// Elements of the largest tensor that the plain operations make of one image, those inside candle's
/// convolution included.
fn largest_tensor(config: &Config, height: usize, width: usize) -> usize {
    let halved = |(h, w): (usize, usize), stride: usize| (h.div_ceil(stride), w.div_ceil(stride));
    let mut size = halved((height, width), 2);
    // candle's `conv2d` copies the 7x7 window under every output pixel (im2col).
    // The pool pads the stem's output by one pixel on each side.
    let padded = (size.0 + 2) * (size.1 + 2) * config.stem_channels;
    let mut largest = padded.max(size.0 * size.1 * 3 * 7 * 7);
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
        // 147 values in the window of each of 112x112 pixels, or 512 channels of each of 56x56.
        assert_eq!(largest_tensor(&Config::qlnet_50_v0(), 224, 224), 112 * 112 * 147);
        let mut wide = Config::qlnet_50_v0();
        wide.layers[0][1].hidden_channels *= 4;
        assert_eq!(largest_tensor(&wide, 224, 224), 56 * 56 * 2 * 1024);
    }

    #[test]
    fn batches_on_a_cpu_give_every_thread_work() {
        assert_eq!(images_at_once_on_cpu(224, 224, 2), 4);
        assert_eq!(images_at_once_on_cpu(224, 224, 16), 16);
        assert_eq!(images_at_once_on_cpu(64, 64, 2), 50);
        assert_eq!(images_at_once_on_cpu(4096, 4096, 3), 3);
    }
}
