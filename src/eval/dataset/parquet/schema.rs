//! Which columns of a Parquet file hold images and labels.

use ::parquet::basic::{Compression, Type};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::schema::types::SchemaDescriptor;
use serde_json::Value;

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
        let features = features(metadata);
        let label = match &layout.target_key {
            Some(name) => name,
            None => label_column(schema, &features),
        };
        let names = features.get(label).and_then(|feature| feature.get("names")).and_then(Value::as_array);
        let names = names.map(|names| names.iter().map(|name| Some(name.as_str()?.to_string())).collect());
        Ok(Self { bytes, path, label: labels(schema, label), class_names: names.flatten() })
    }
}

impl Columns {
    /// Refuses files whose columns are compressed in a way that is not read.
    pub fn ensure_codecs(&self, metadata: &ParquetMetaData) -> Result<(), Reason> {
        let columns = [Some(self.bytes), self.path, self.label.as_ref().ok().copied()];
        for group in metadata.row_groups() {
            for column in columns.into_iter().flatten().map(|column| group.column(column)) {
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
fn label_column<'a>(schema: &SchemaDescriptor, features: &'a Value) -> &'a str {
    let mut classes =
        features.as_object().into_iter().flatten().filter(|(_, feature)| feature["_type"] == "ClassLabel");
    match (classes.next(), classes.next()) {
        _ if has_column(schema, LABEL) => LABEL,
        (Some((only, _)), None) => only,
        _ if has_column(schema, CLASS) => CLASS,
        _ => LABEL,
    }
}

/// What `datasets` says of the columns: `{"label": {"_type": "ClassLabel", "names": [...]}, ...}`.
fn features(metadata: &ParquetMetaData) -> Value {
    let pairs = metadata.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
    let text = pairs.iter().find(|pair| pair.key == "huggingface").and_then(|pair| pair.value.as_deref());
    let mut value: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    value.pointer_mut("/info/features").map(Value::take).unwrap_or_default()
}
