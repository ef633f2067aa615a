//! Which columns of a Parquet file hold images and labels.

use ::parquet::basic::{Compression, Type};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::schema::types::SchemaDescriptor;

use super::features::{Features, features};
use crate::error::{Reason, Result, bail, ensure};
use crate::eval::dataset::Layout;

/// Names of the columns where none are named, as the hub's data sets of pictures have them.
const IMAGE: &str = "image";
const LABEL: &str = "label";
/// And as the hub has them that it made of WebDataset shards by itself, on the branch `refs/convert/parquet`.
const CLASS: &str = "cls";

/// The columns of a file that matter here, by their numbers among all that have values.
pub struct Columns {
    /// The images' bytes.
    pub bytes: usize,
    /// The names of their files, if there are any.
    pub path: Option<usize>,
    /// The classes' indices, or why there are none.
    pub label: Result<usize, Reason>,
    /// What the classes are called, where `datasets` wrote that into the file.
    pub class_names: Option<Vec<String>>,
}

impl Columns {
    /// Finds the columns.
    pub fn of(metadata: &ParquetMetaData, layout: &Layout) -> Result<Self, Reason> {
        let schema = metadata.file_metadata().schema_descr();
        let image = match &layout.input_key {
            Some(name) => name,
            None => only_images(schema).unwrap_or(IMAGE),
        };
        let (bytes, path) = images(schema, image)?;
        let mut features = described(metadata);
        let label = match &layout.target_key {
            Some(name) => name,
            None => label_column(schema, &features),
        };
        let label = label.to_string();
        let class_names = features.remove(&label).and_then(|feature| feature.names);
        Ok(Self { bytes, path, label: labels(schema, &label), class_names })
    }

    /// The numbers of all of them.
    pub fn used(&self) -> impl Iterator<Item = usize> {
        [Some(self.bytes), self.path, self.label.as_ref().ok().copied()].into_iter().flatten()
    }

    /// Refuses files whose columns are compressed in a way that is not read.
    pub fn ensure_codecs(&self, metadata: &ParquetMetaData) -> Result<(), Reason> {
        for group in metadata.row_groups() {
            for column in self.used().map(|column| group.column(column)) {
                let codec = column.compression();
                let read = matches!(
                    codec,
                    Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)
                );
                let name = column.column_path();
                ensure!(read, "the column {name} is compressed by {codec}; zstd, snappy, gzip and none are read");
            }
        }
        Ok(())
    }
}

/// The columns of an image's bytes and its path.
fn images(schema: &SchemaDescriptor, name: &str) -> Result<(usize, Option<usize>), Reason> {
    let bytes = |index: usize| {
        let column = schema.column(index);
        column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0
    };
    let found = leaf(schema, &[name, "bytes"]).or_else(|| leaf(schema, &[name])).filter(|index| bytes(*index));
    let Some(found) = found else {
        ensure!(has_column(schema, name), "there is no column `{name}`; there are {}", column_names(schema));
        bail!("the column `{name}` holds no images: they are bytes, or {{bytes, path}}");
    };
    Ok((found, leaf(schema, &[name, "path"]).filter(|index| bytes(*index))))
}

/// The column of the classes' indices.
fn labels(schema: &SchemaDescriptor, name: &str) -> Result<usize, Reason> {
    let integers = |index: &usize| {
        let column = schema.column(*index);
        matches!(column.physical_type(), Type::INT32 | Type::INT64) && column.max_rep_level() == 0
    };
    if let Some(index) = leaf(schema, &[name]).filter(integers) {
        return Ok(index);
    }
    ensure!(has_column(schema, name), "there is no column `{name}`; there are {}", column_names(schema));
    bail!("the column `{name}` holds no integers, and labels are the indices of classes")
}

/// The column with values at that path.
fn leaf(schema: &SchemaDescriptor, path: &[&str]) -> Option<usize> {
    schema.columns().iter().position(|column| column.path().parts() == path)
}

fn has_column(schema: &SchemaDescriptor, name: &str) -> bool {
    schema.root_schema().get_fields().iter().any(|field| field.name() == name)
}

fn column_names(schema: &SchemaDescriptor) -> String {
    const SHOWN: usize = 20;
    let names = schema.root_schema().get_fields().iter().take(SHOWN).map(|field| format!("`{}`", field.name()));
    names.collect::<Vec<_>>().join(", ")
}

/// The only column of structs with bytes, where none is called `image`.
fn only_images(schema: &SchemaDescriptor) -> Option<&str> {
    if has_column(schema, IMAGE) {
        return None;
    }
    let mut structs = schema.columns().iter().filter_map(|column| match column.path().parts() {
        [name, bytes] if bytes == "bytes" => Some(name.as_str()),
        _ => None,
    });
    let name = structs.next()?;
    structs.next().is_none().then_some(name)
}

/// The column of labels where none is named.
fn label_column<'a>(schema: &SchemaDescriptor, features: &'a Features) -> &'a str {
    let mut classes = features.iter().filter(|(_, feature)| feature.is_class);
    match (classes.next(), classes.next()) {
        _ if has_column(schema, LABEL) => LABEL,
        (Some((only, _)), None) => only,
        _ if has_column(schema, CLASS) => CLASS,
        _ => LABEL,
    }
}

/// What `datasets` says of the columns.
fn described(metadata: &ParquetMetaData) -> Features {
    let pairs = metadata.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
    let text = pairs.iter().find(|pair| pair.key == "huggingface").and_then(|pair| pair.value.as_deref());
    text.map(features).unwrap_or_default()
}
