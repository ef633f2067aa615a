//! Checkpoints in every layout that `torch.save` gives a zip.
#![cfg_attr(not(unix), allow(dead_code, reason = "some tests are for Unix alone"))]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use candle_core::Tensor;
use qlnet::weights::Checkpoint;
use support::{fixture, tensors};
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

/// Content that need not be written: so many zeros.
enum Content {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// A number in 32 bits; all of them are set where it does not fit, and stands elsewhere.
fn number(field: u64) -> [u8; 4] {
    (field.min(0xffff_ffff) as u32).to_le_bytes()
}

/// Writes a zip as PyTorch's `inline_container.cc` does, from 1.6 to 2.15: stored, each content aligned to 64
/// bytes by an extra field `FB`, sizes behind it in a data descriptor, and zip64 end records always.
fn write_as_torch(folder: &str, entries: &[(String, Content)], out: &mut (impl Write + Seek)) {
    let mut central = Vec::new();
    for (name, content) in entries {
        central.extend(write_entry(&format!("{folder}/{name}"), content, out));
    }
    let start = out.stream_position().unwrap();
    out.write_all(&central).unwrap();
    let end = start + central.len() as u64;
    let count = entries.len() as u64;
    let short = (count.min(0xffff) as u16).to_le_bytes();
    let size = central.len() as u64;
    let records = [
        &b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x1e\x03\x2d\0\0\0\0\0\0\0\0\0"[..],
        &[count, count, size, start].map(u64::to_le_bytes).concat(),
        b"PK\x06\x07\0\0\0\0",
        &end.to_le_bytes(),
        b"\x01\0\0\0PK\x05\x06\0\0\0\0",
        &short,
        &short,
        &number(size),
        &number(start),
        b"\0\0",
    ];
    out.write_all(&records.concat()).unwrap();
}

/// Writes an entry, and returns its record in the central directory.
fn write_entry(name: &str, content: &Content, out: &mut (impl Write + Seek)) -> Vec<u8> {
    let (size, crc) = match content {
        Content::Bytes(bytes) => (bytes.len() as u64, crc32fast::hash(bytes)),
        Content::Zeros(count) => (*count, 0),
    };
    let start = out.stream_position().unwrap();
    let head = start as usize + 30 + name.len() + 4;
    let padding = head.next_multiple_of(64) - head;
    out.write_all(b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    out.write_all(&(name.len() as u16).to_le_bytes()).unwrap();
    out.write_all(&(padding as u16 + 4).to_le_bytes()).unwrap();
    out.write_all(name.as_bytes()).unwrap();
    out.write_all(b"FB").unwrap();
    out.write_all(&(padding as u16).to_le_bytes()).unwrap();
    out.write_all(&vec![b'Z'; padding]).unwrap();
    match content {
        Content::Bytes(bytes) => out.write_all(bytes).unwrap(),
        Content::Zeros(count) => drop(out.seek(SeekFrom::Current(*count as i64)).unwrap()),
    }
    out.write_all(b"PK\x07\x08").unwrap();
    out.write_all(&crc.to_le_bytes()).unwrap();
    if size > 0xffff_fffe {
        out.write_all(&[size.to_le_bytes(), size.to_le_bytes()].concat()).unwrap();
    } else {
        out.write_all(&[number(size), number(size)].concat()).unwrap();
    }

    // What does not fit into 32 bits stands in the zip64 extra field.
    let large: Vec<u8> =
        [size, size, start].iter().filter(|field| **field > 0xffff_fffe).flat_map(|f| f.to_le_bytes()).collect();
    let extra = match large.len() {
        0 => Vec::new(),
        length => [&b"\x01\0"[..], &(length as u16).to_le_bytes(), &large].concat(),
    };
    [
        &b"PK\x01\x02\0\0\0\0\x08\x08\0\0\0\0\0\0"[..],
        &[crc.to_le_bytes(), number(size), number(size)].concat(),
        &(name.len() as u16).to_le_bytes(),
        &(extra.len() as u16).to_le_bytes(),
        &[0; 10],
        &number(start),
        name.as_bytes(),
        &extra,
    ]
    .concat()
}

/// The content of a checkpoint that PyTorch wrote, without the folder that it lies in.
fn entries(fixture_name: &str) -> Vec<(String, Content)> {
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, File::open(fixture(fixture_name)).unwrap()).unwrap();
    let names: Vec<_> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let mut content = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        Content::Bytes(bytes)
    };
    names.iter().map(|name| (name.split_once('/').unwrap().1.to_string(), content(name))).collect()
}

fn values(tensors: impl IntoIterator<Item = (String, Tensor)>) -> BTreeMap<String, Vec<f32>> {
    let values = |t: Tensor| t.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, values(tensor))).collect()
}

fn open(bytes: &[u8]) -> BTreeMap<String, Vec<f32>> {
    values(Checkpoint::from_bytes(bytes).unwrap().tensors().clone())
}

#[test]
fn our_layout_is_pytorchs() {
    let whole = std::fs::read(fixture("stem-of-21-characters.pth")).unwrap();
    let mut made = Cursor::new(Vec::new());
    write_as_torch("stem-of-21-characters", &entries("stem-of-21-characters.pth"), &mut made);
    assert!(made.into_inner() == whole, "to the byte");
}

#[test]
fn a_stem_of_21_characters_is_a_name_as_any_other() {
    let opened = values(Checkpoint::open(&fixture("stem-of-21-characters.pth")).unwrap().tensors().clone());
    let mut expected = values(tensors(&fixture("one-filter.safetensors")));
    expected.retain(|name, _| !name.ends_with("num_batches_tracked"));
    assert_eq!(opened, expected);
}

#[test]
fn names_of_every_length_and_script_are_taken() {
    let entries = entries("two-filters.pth.tar");
    let expected = values(Checkpoint::open(&fixture("two-filters.pth.tar")).unwrap().tensors().clone());
    let lengths = (1..=64).map(|length| "my-best-model-run-007"[..].repeat(4)[..length].to_string());
    let others = ["epoch 12. best (copy)", "модель", "模型", "e\u{301}t\u{e9}", ".hidden", "data.pkl", "data", "a\\b"];
    for folder in lengths.chain(others.map(String::from)) {
        let mut file = Cursor::new(Vec::new());
        write_as_torch(&folder, &entries, &mut file);
        assert!(open(&file.into_inner()) == expected, "{folder}");
    }
}

#[test]
fn many_entries_and_none() {
    let mut many = entries("two-filters.pth.tar");
    many.extend((0..70_000).map(|i| (format!("data/more-{i}"), Content::Bytes(vec![0; 4]))));
    let mut file = Cursor::new(Vec::new());
    write_as_torch("many", &many, &mut file);
    assert_eq!(open(&file.into_inner()).len(), open(&std::fs::read(fixture("two-filters.pth.tar")).unwrap()).len());

    let mut file = Cursor::new(Vec::new());
    // pickle.dumps({}, 2)
    write_as_torch("none", &[("data.pkl".into(), Content::Bytes(b"\x80\x02}q\x00.".to_vec()))], &mut file);
    let error = Checkpoint::from_bytes(&file.into_inner()).err().unwrap();
    assert!(format!("{error:#}").contains("holds no tensors"), "{error:#}");
}

/// As a training state with a large optimizer. The file is sparse, and only the weights are read.
#[cfg(unix)]
#[test]
fn a_file_of_over_4_gib_is_taken() {
    let mut large = entries("two-filters.pth.tar");
    // After the pickle, before the weights.
    large.insert(1, ("data/optimizer".into(), Content::Zeros((4 << 30) + (1 << 20))));
    let path = tempfile::NamedTempFile::new().unwrap();
    write_as_torch("large", &large, &mut path.as_file());
    assert!(path.as_file().metadata().unwrap().len() > 4 << 30);
    let expected = values(Checkpoint::open(&fixture("two-filters.pth.tar")).unwrap().tensors().clone());
    assert!(values(Checkpoint::open(path.path()).unwrap().tensors().clone()) == expected);
}
