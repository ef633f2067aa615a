//! What packed networks are made for, in the names of their files.

use std::fmt;

use crate::network::cpu::operand::{Format, Products};
use crate::network::cpu::vector::lanes;
use crate::network::precision::Precision;
use crate::weights::cache::FORMAT;

/// Changes whenever files of an earlier version must not be used any more: with the layout of the file, of panels,
/// and with how weights are rounded.
const VERSION: &str = "v1";

/// What stands between the checkpoint's SHA-256 and the ending in the name of a packed network:
/// `v1-folded-v1-f32-float-16-x86_64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedKind {
    /// Of the file, and of the folded weights that it was made of.
    versions: [String; 2],
    /// The name of a [`Precision`].
    pub precision: String,
    /// How numbers are laid out.
    pub layout: String,
    /// Of vectors.
    pub lanes: String,
    /// As [`std::env::consts::ARCH`].
    pub arch: String,
    /// What was done to the weights before, if anything.
    pub prepared: Option<String>,
}

/// Whether a packed network can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// By this program on this CPU.
    Here,
    /// By this program on another CPU, or with other instructions than `QLNET_SIMD` allows.
    Elsewhere,
    /// By no program of this version.
    Nowhere,
}

impl PackedKind {
    /// What this program makes on this CPU. `prepared` names what is done to folded weights before they are packed,
    /// and is empty if nothing is.
    pub(super) fn here(precision: Precision, products: Products, prepared: &str) -> Self {
        let layout = match products.format() {
            Format::Float => "float",
            Format::Bfloat => "bfloat",
            Format::Bytes => "bytes",
            Format::Words => "words",
        };
        Self {
            versions: [VERSION, FORMAT].map(String::from),
            precision: precision.name().into(),
            layout: layout.into(),
            lanes: lanes().to_string(),
            arch: std::env::consts::ARCH.into(),
            prepared: (!prepared.is_empty()).then(|| prepared.into()),
        }
    }

    /// Reads what stands in a name, if this version wrote it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split('-').collect();
        let [version, "folded", folded, precision, layout, lanes, arch, rest @ ..] = words.as_slice() else {
            return None;
        };
        let [precision, layout, lanes, arch] = [precision, layout, lanes, arch].map(|word| word.to_string());
        let prepared = rest.first().map(|word| word.to_string());
        let versions = [version, folded].map(|word| word.to_string());
        (rest.len() < 2).then_some(Self { versions, precision, layout, lanes, arch, prepared })
    }

    /// Where it can be used. `prepared` are the names of what is done to weights today.
    pub(crate) fn fit(&self, prepared: &[&str]) -> Fit {
        let known = self.prepared.as_deref().is_none_or(|name| prepared.contains(&name));
        let products =
            self.precision.parse().ok().and_then(|precision: Precision| Some((precision, precision.products()?)));
        let Some((precision, products)) = products.filter(|_| known && self.versions == [VERSION, FORMAT]) else {
            return Fit::Nowhere;
        };
        let here = Self::here(precision, products, self.prepared.as_deref().unwrap_or_default());
        if *self == here { Fit::Here } else { Fit::Elsewhere }
    }
}

impl fmt::Display for PackedKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { versions: [version, folded], precision, layout, lanes, arch, prepared } = self;
        write!(f, "{version}-folded-{folded}-{precision}-{layout}-{lanes}-{arch}")?;
        prepared.iter().try_for_each(|prepared| write!(f, "-{prepared}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            for prepared in ["", "p1"] {
                let kind = PackedKind::here(precision, precision.products().unwrap(), prepared);
                assert_eq!(PackedKind::parse(&kind.to_string()), Some(kind.clone()));
                assert_eq!(kind.fit(&["p1"]), Fit::Here);
                assert_eq!(PackedKind { lanes: "2".into(), ..kind }.fit(&["p1"]), Fit::Elsewhere);
            }
        }
        let fit = |text: &str| PackedKind::parse(text).map(|kind| kind.fit(&["p1"]));
        assert_eq!(fit("v1-folded-v1-f32-float-2-m68k"), Some(Fit::Elsewhere));
        for old in ["v0-folded-v1-f32-float-16-x86_64", "v1-folded-v0-f32-float-16-x86_64"] {
            assert_eq!(fit(old), Some(Fit::Nowhere), "{old}");
        }
        assert_eq!(fit("v1-folded-v1-int8-bytes-16-x86_64-p0"), Some(Fit::Nowhere), "another preparation");
        assert_eq!(fit("v1-folded-v1-f16-float-16-x86_64"), Some(Fit::Nowhere), "nothing is packed in it");
        assert_eq!(fit("v1-f32"), None);
    }
}
