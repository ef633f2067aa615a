//! A part of the images, for one of several processes.

use serde::{Deserialize, Serialize};

/// Part `index` of `of`, from 1: of every `of` images the `index`th. As text `1/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Shard {
    /// All images.
    pub const WHOLE: Self = Self { index: 1, of: 1 };
    /// The most parts: of each, some rows are held in memory when they are put together.
    const MOST: usize = 1000;

    /// Part `index` of `of`; `None` if there is no such part, or there are more than a thousand.
    pub fn new(index: usize, of: usize) -> Option<Self> {
        ((1..=of).contains(&index) && of <= Self::MOST).then_some(Self { index, of })
    }

    /// The numbers of its images, where there are so many in all.
    pub fn images(self, images: usize) -> impl Iterator<Item = usize> + Clone {
        (self.index - 1..images).step_by(self.of)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse().ok();
        match text.split_once('/').map(|(index, of)| (parse(index), parse(of))) {
            Some((Some(index), Some(of))) => Self::new(index, of),
            _ => None,
        }
        .ok_or_else(|| format!("expected I/N with I from 1 to N, such as 1/8, and N at most {}", Self::MOST))
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}
