//! The parts of a network that families act on.

use super::element::Element;
use crate::error::Result;
use crate::weights::config::{BlockConfig, Config, Skip};

/// A block of a network and its place there.
#[derive(Clone, Copy)]
pub(super) struct BlockAt<'a> {
    /// The number of its layer, from 1.
    pub layer: usize,
    /// Its place in the layer, from 0.
    pub index: usize,
    /// Its dimensions.
    pub config: &'a BlockConfig,
}

impl BlockAt<'_> {
    /// Its name, such as `layer1.0`.
    pub fn name(&self) -> String {
        format!("layer{}.{}", self.layer, self.index)
    }

    /// The name of one of its convolutions: `conv1`, `conv2`, `conv3` or `skip`.
    pub fn conv(&self, part: &str) -> String {
        format!("{}.{part}", self.name())
    }

    /// The convolutions that read what enters it.
    fn readers(&self) -> Vec<String> {
        let mut readers = vec![self.conv("conv1")];
        if self.config.skip.is_convolution() {
            readers.push(self.conv("skip"));
        }
        readers
    }
}

/// All blocks, or those of one layer, in order.
pub(super) fn blocks(config: &Config, layer: Option<usize>) -> impl Iterator<Item = BlockAt<'_>> {
    let all = config.layers.iter().zip(1..).flat_map(|(blocks, layer)| {
        blocks.iter().enumerate().map(move |(index, config)| BlockAt { layer, index, config })
    });
    all.filter(move |block| layer.is_none_or(|layer| layer == block.layer))
}

/// The values that run past the blocks, from where they are made by the stem or a skip that is a
/// convolution to where the next such skip, or the head, takes them. Identity skips carry them on.
pub(super) struct Stream<'a> {
    /// The layer in which it begins; the stem counts to the first.
    pub layer: usize,
    /// Its channels.
    pub width: usize,
    /// The block that it begins with; if none, it begins with the stem.
    pub first: Option<BlockAt<'a>>,
    /// The blocks that add to it and pass it on.
    pub blocks: Vec<BlockAt<'a>>,
    /// The block that takes it up into another stream; if none, the head does.
    pub next: Option<BlockAt<'a>>,
}

impl<'a> Stream<'a> {
    /// The convolutions whose outputs add up to it.
    pub fn writers(&self) -> Vec<String> {
        let mut writers = match &self.first {
            Some(first) => vec![first.conv("conv3"), first.conv("skip")],
            None => vec!["stem".to_string()],
        };
        writers.extend(self.blocks.iter().map(|block| block.conv("conv3")));
        writers
    }

    /// The convolutions that read it.
    pub fn readers(&self) -> Vec<String> {
        self.readers_from(0)
    }

    /// The convolutions that read it from one of its `blocks` on.
    pub fn readers_from(&self, block: usize) -> Vec<String> {
        let mut readers: Vec<_> = self.blocks[block..].iter().flat_map(BlockAt::readers).collect();
        readers.extend(match &self.next {
            Some(next) => next.readers(),
            None => vec!["fc".to_string()],
        });
        readers
    }

    /// The blocks that no hardball follows, each with the place in `self.blocks` of the block after it. The
    /// last block before the head is not among them, because the final hardball follows it.
    pub fn open_boundaries(&self) -> Vec<(BlockAt<'a>, usize)> {
        let first = self.first.filter(|first| !first.config.skip.ends_in_hardball()).map(|first| (first, 0));
        let mut boundaries: Vec<_> = first.into_iter().chain(self.blocks.iter().copied().zip(1..)).collect();
        if self.next.is_none() {
            boundaries.retain(|(_, after)| *after < self.blocks.len());
        }
        boundaries
    }
}

/// An element for each open boundary of each stream, as `make` makes it of the stream, the block before the
/// boundary and the place in `stream.blocks` of the block after it.
pub(super) fn at_open_boundaries(
    config: &Config,
    layer: Option<usize>,
    mut make: impl FnMut(&Stream, &BlockAt, usize) -> Result<Element>,
) -> Result<Element> {
    let mut sum = Element::default();
    for stream in streams(config, layer) {
        for (block, after) in stream.open_boundaries() {
            sum = sum.and(make(&stream, &block, after)?);
        }
    }
    Ok(sum)
}

/// The streams of a network, or those that begin in one layer.
pub(super) fn streams(config: &Config, layer: Option<usize>) -> Vec<Stream<'_>> {
    let mut streams =
        vec![Stream { layer: 1, width: config.stem_channels, first: None, blocks: Vec::new(), next: None }];
    for block in blocks(config, None) {
        let current = streams.last_mut().expect("the stem's is there");
        if block.config.skip == Skip::Identity {
            current.blocks.push(block);
        } else {
            current.next = Some(block);
            let width = block.config.out_channels;
            streams.push(Stream { layer: block.layer, width, first: Some(block), blocks: Vec::new(), next: None });
        }
    }
    streams.retain(|stream| layer.is_none_or(|layer| layer == stream.layer));
    streams
}
