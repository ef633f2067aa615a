//! How large a network may be that a file describes.
//!
//! A file of a few kilobytes can have the shapes of a network that needs gigabytes or hours: activations are as wide as
//! the weights say, for each of thousands of pixels, and what prepares weights for int8 takes the cube of a stream's
//! width and of the filters of a channel. Every bound is many times what published networks have, and far above what
//! they were scaled to; the two that would be narrow for wide networks grow with the parameters, which a file pays for
//! with its bytes.

use crate::error::{Reason, ensure};
use crate::weights::config::{BlockConfig, Config, Skip};

/// Every published network has four layers. Each but the first halves an image's sides: sixteen, with the stem, make one
/// place of 131,072 pixels on a side.
const MOST_LAYERS: usize = 16;
/// Blocks of all layers. ResNet-152 has 50; what prepares weights for int8 takes the square.
const MOST_BLOCKS: usize = 256;
/// Published networks have one or two filters for each hidden channel.
const MOST_FILTERS: usize = 16;
/// Channels of any activation. The widest of a published network has 2,048, the filters of qlnet-50-v0's last layer.
const MOST_CHANNELS: usize = 1 << 14;
/// Outputs. ImageNet-21k has 21,841; each also has a label.
const MOST_CLASSES: usize = 1 << 20;
/// Pixels on a side of the images that activations are counted for: those of ImageNet.
const SIDE: usize = 224;
/// Elements of the largest activation. qlnet-50-v0 has 1.6 million, in its first layer.
const MOST_AT_ONCE: usize = 1 << 25;
/// Elements of what the filters and the ends of all blocks make: calibration has them in memory together. qlnet-50-v0
/// has 10 million.
const MOST_TOGETHER: usize = 1 << 27;
/// What a network without parameters may have of what is bounded by parameters: that of a stream of 256 channels.
const FREE: usize = 1 << 16;

impl Config {
    /// Checks that no file makes a network of more work than its size lets expect. The sizes of blocks are above zero
    /// and fit each other.
    ///
    /// # Errors
    /// If it does: the message says which number is too large, and what the most is.
    pub(super) fn check_bounds(&self) -> Result<(), Reason> {
        at_most("the network has", self.layers.len(), "layers", MOST_LAYERS)?;
        at_most("the network has", self.layers.iter().map(Vec::len).sum(), "blocks", MOST_BLOCKS)?;
        at_most("the stem has", self.stem_channels, "channels", MOST_CHANNELS)?;
        at_most("the network has", self.num_classes, "classes", MOST_CLASSES)?;
        for (name, block) in self.named_blocks() {
            let &BlockConfig { hidden_channels, filters, out_channels, .. } = block;
            let has = format!("{name} has");
            at_most(&has, filters, "filters for each hidden channel", MOST_FILTERS)?;
            at_most(&has, hidden_channels, "hidden channels", MOST_CHANNELS)?;
            at_most(&has, hidden_channels * filters, "filters together", MOST_CHANNELS)?;
            at_most(&has, out_channels, "channels at its end", MOST_CHANNELS)?;
        }
        self.check_activations()?;
        self.check_work()
    }

    /// What an image makes of the network's width.
    fn check_activations(&self) -> Result<(), Reason> {
        let for_an_image = format!("activations for an image of {SIDE}x{SIDE} pixels");
        let after_stem = SIDE.div_ceil(2);
        at_most("the stem has", after_stem * after_stem * self.stem_channels, &for_an_image, MOST_AT_ONCE)?;
        let (mut side, mut together) = (after_stem.div_ceil(2), 0usize);
        for (name, block) in self.named_blocks() {
            let &BlockConfig { hidden_channels, filters, out_channels, stride, .. } = block;
            let before = side * side;
            side = side.div_ceil(stride);
            let (filtered, end) = (side * side * hidden_channels * filters, side * side * out_channels);
            let most = filtered.max(end).max(before * 2 * hidden_channels);
            at_most(&format!("{name} has"), most, &for_an_image, MOST_AT_ONCE)?;
            together = together.saturating_add(filtered + end);
        }
        // Deep networks for small images have more, and parameters to match.
        let most = MOST_TOGETHER.max(self.parameters().saturating_mul(16));
        at_most("all blocks together have", together, &for_an_image, most)
    }

    /// What takes the cube of a number where the parameters may be as many as the number itself. Of a network that is
    /// made like the published ones the parameters are several times the squares, or the cubes, that are counted here.
    fn check_work(&self) -> Result<(), Reason> {
        let parameters = self.parameters();
        let most = parameters.saturating_add(FREE);
        let of_parameters = |what: &str| format!("{what}, in a network of {parameters} parameters");
        // Wherever a skip is a convolution, a stream begins, and has its own rotation.
        let begins = self.named_blocks().filter(|(_, block)| block.skip != Skip::Identity);
        let (mut squares, mut cubes) = (self.stem_channels.pow(2), 0usize);
        let what = of_parameters("as the sum of the squares of the widths of streams");
        at_most("the stem leads to", squares, &what, most)?;
        for (name, block) in begins {
            squares = squares.saturating_add(block.out_channels.pow(2));
            at_most(&format!("{name} leads to"), squares, &what, most)?;
        }
        let what = of_parameters("as the sum of the cubes of filters over hidden channels");
        for (name, block) in self.named_blocks() {
            cubes = cubes.saturating_add(block.filters.pow(3) * block.hidden_channels);
            at_most(&format!("{name} leads to"), cubes, &what, most)?;
        }
        Ok(())
    }

    /// Weights and biases of all convolutions and of the final map.
    fn parameters(&self) -> usize {
        let map = |inputs: usize, outputs: usize| outputs.saturating_mul(inputs + 1);
        let block = |block: &BlockConfig| {
            let &BlockConfig { in_channels, hidden_channels, filters, out_channels, skip, .. } = block;
            let rows = hidden_channels * filters;
            let skip = if skip.is_convolution() { map(in_channels, out_channels) } else { 0 };
            map(in_channels, 2 * hidden_channels) + map(9, rows) + map(rows, out_channels) + skip
        };
        let ends = map(3 * 7 * 7, self.stem_channels).saturating_add(map(self.num_features(), self.num_classes));
        self.layers.iter().flatten().map(block).fold(ends, usize::saturating_add)
    }

    /// The blocks with their names, such as `layer1.0`.
    fn named_blocks(&self) -> impl Iterator<Item = (String, &BlockConfig)> {
        self.layers.iter().enumerate().flat_map(|(i, blocks)| {
            blocks.iter().enumerate().map(move |(j, block)| (format!("layer{}.{j}", i + 1), block))
        })
    }
}

/// Checks a number: `{who} {number} {what}`.
fn at_most(who: &str, number: usize, what: &str, most: usize) -> Result<(), Reason> {
    ensure!(number <= most, "{who} {number} {what}, and at most {most} are allowed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::registry::MODELS;

    /// A network of one channel everywhere, or what `change` makes of it.
    fn narrow(layers: usize, change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::new(1, &vec![(1, 1); layers], 1, 1, 2);
        config.layers.iter_mut().flatten().for_each(|block| block.hidden_channels = 1);
        change(&mut config);
        config
    }

    fn error(config: &Config) -> String {
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn real_networks_are_far_from_every_bound() {
        for model in MODELS {
            (model.config)().check().unwrap();
        }
        let other = [
            // Four times as wide as qlnet-50-v0, and with four times the filters.
            Config::new(256, &[(256, 3), (512, 4), (1024, 6), (2048, 3)], 512, 2, 1000),
            Config::new(64, &[(64, 3), (128, 4), (256, 6), (512, 3)], 128, 8, 1000),
            // As deep as ResNet-152, and with the classes of ImageNet-21k.
            Config::new(64, &[(64, 3), (128, 8), (256, 36), (512, 3)], 128, 2, 21_841),
            // For small images: few layers, many blocks, and widths of WRN-28-10.
            Config::new(16, &[(160, 4), (320, 4), (640, 4)], 64, 2, 100),
            Config::new(64, &[(64, 18), (128, 18), (256, 18)], 64, 1, 10),
            Config::new(256, &[(256, 24)], 256, 2, 10),
            Config::new(8, &[(8, 1)], 8, 4, 2),
        ];
        for config in other {
            config.check().unwrap();
        }
        // Hidden channels that are fewer than those of the stream.
        let mut bottleneck = Config::new(64, &[(256, 3), (512, 4), (1024, 6), (2048, 3)], 0, 2, 1000);
        bottleneck.layers.iter_mut().flatten().for_each(|block| block.hidden_channels = block.out_channels / 4);
        bottleneck.check().unwrap();
    }

    #[test]
    fn parameters_are_those_of_the_convolutions() {
        let mut explicit = Config::qlnet_digits();
        explicit.layers[1][1].skip = Skip::Linear;
        for config in [Config::qlnet_50_v0(), Config::qlnet_10m(), explicit] {
            let weights = |shape: &[usize]| shape.iter().product::<usize>() + shape[0];
            assert_eq!(config.parameters(), config.convs().iter().map(|conv| weights(&conv.shape)).sum::<usize>());
        }
    }

    #[test]
    fn layers_are_few() {
        narrow(16, |_| {}).check().unwrap();
        let deep = narrow(66, |_| {});
        assert_eq!(error(&deep), "the network has 66 layers, and at most 16 are allowed");
        let blocks = |blocks| Config::new(1, &[(1, blocks)], 1, 1, 2);
        blocks(256).check().unwrap();
        assert_eq!(error(&blocks(257)), "the network has 257 blocks, and at most 256 are allowed");
        // Even so nothing divides by a stride that is zero.
        assert_eq!((narrow(16, |_| {}).stride(), deep.stride()), (1 << 17, usize::MAX));
    }

    #[test]
    fn widths_are_bounded_whatever_they_are() {
        type Change = fn(&mut Config, usize);
        let cases: [(Change, &str); 5] = [
            (
                |config, size| config.layers[0][0].filters = size,
                "layer1.0 has SIZE filters for each hidden channel, and at most 16 are allowed",
            ),
            (
                |config, size| config.layers[0][0].hidden_channels = size,
                "layer1.0 has SIZE hidden channels, and at most 16384 are allowed",
            ),
            (
                |config, size| {
                    (config.stem_channels, config.layers[0][0].in_channels) = (size, size);
                    config.layers[0][0].skip = Skip::Projection;
                },
                "the stem has SIZE channels, and at most 16384 are allowed",
            ),
            (
                |config, size| {
                    config.layers[0][0].out_channels = size;
                    config.layers[0][0].skip = Skip::Projection;
                },
                "layer1.0 has SIZE channels at its end, and at most 16384 are allowed",
            ),
            (|config, size| config.num_classes = size, "the network has SIZE classes, and at most 1048576 are allowed"),
        ];
        for size in [3_000_000, usize::MAX / 2, usize::MAX] {
            for (change, message) in cases {
                let config = narrow(1, |config| change(config, size));
                assert_eq!(error(&config), message.replace("SIZE", &size.to_string()));
            }
        }
        let many = narrow(1, |config| (config.layers[0][0].hidden_channels, config.layers[0][0].filters) = (4000, 5));
        assert_eq!(error(&many), "layer1.0 has 20000 filters together, and at most 16384 are allowed");
    }

    #[test]
    fn activations_are_bounded() {
        let stem = Config::new(2_700, &[(1, 1)], 0, 1, 2);
        let message =
            "the stem has 33868800 activations for an image of 224x224 pixels, and at most 33554432 are allowed";
        assert_eq!(error(&stem), message);
        // Of the halves that are multiplied, and of a block's end.
        let hidden = narrow(1, |config| config.layers[0][0].hidden_channels = 5_400);
        let end = Config::new(1, &[(10_800, 1)], 0, 1, 2);
        for config in [hidden, end] {
            let message = "layer1.0 has 33868800 activations for an image of 224x224 pixels, and at most 33554432";
            assert!(error(&config).starts_with(message), "{}", error(&config));
        }
        // The same is less after a stride.
        narrow(2, |config| config.layers[1][0].hidden_channels = 5_300).check().unwrap();
        let many = |blocks| Config::new(64, &[(64, blocks)], 64, 2, 2);
        many(73).check().unwrap();
        let message =
            "all blocks together have 137281536 activations for an image of 224x224 pixels, and at most 134217728";
        assert!(error(&many(76)).starts_with(message), "{}", error(&many(76)));
    }

    #[test]
    fn what_takes_the_cube_is_paid_for_by_parameters() {
        // 14 kB of half-precision weights, which took three seconds.
        let stream = narrow(1, |config| {
            config.layers[0][0].out_channels = 1024;
            config.layers[0][0].skip = Skip::Projection;
        });
        let message = "layer1.0 leads to 1048577 as the sum of the squares of the widths of streams, in a network of 6308 \
                       parameters, and at most 71844 are allowed";
        assert_eq!(error(&stream), message);
        // Streams that come and go between blocks.
        let widths = |config: &mut Config| {
            for (i, blocks) in config.layers.iter_mut().enumerate() {
                let width = |i: usize| if i % 2 == 1 { 250 } else { 1 };
                (blocks[0].in_channels, blocks[0].out_channels) = (width(i), width(i + 1));
                blocks[0].skip = Skip::Projection;
            }
        };
        narrow(2, widths).check().unwrap();
        assert!(error(&narrow(3, widths)).starts_with("layer3.0 leads to 125"), "{}", error(&narrow(3, widths)));
        // Filters that are paired with each other in 93 kB of half-precision weights.
        let filters =
            narrow(1, |config| (config.layers[0][0].hidden_channels, config.layers[0][0].filters) = (256, 16));
        let message =
            "layer1.0 leads to 1048576 as the sum of the cubes of filters over hidden channels, in a network of";
        assert!(error(&filters).starts_with(message), "{}", error(&filters));
    }
}
