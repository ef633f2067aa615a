//! Parquet files and WebDataset shards: the same images in each form give the same predictions. The files in
//! `tests/fixtures/sets` were written by Hugging Face's `datasets`, by pyarrow and by `webdataset`
//! (`scripts/make_datasets.py`), of the first four held-out digits of each class.

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use eval_support::{json, messages, rows};
use qlnet::eval::dataset::{Layout, Listing};
use support::fixture;
use support::program::{Qlnet, assert_error, stderr};

fn set(name: &str) -> PathBuf {
    fixture("sets").join(name)
}

/// The images that the sets were made of, as a folder per class.
fn originals(qlnet: &Qlnet) -> PathBuf {
    let all = qlnet.unpacked("all");
    for digit in fs::read_dir(&all).unwrap() {
        let mut files: Vec<_> = fs::read_dir(digit.unwrap().path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().skip(4).for_each(|file| fs::remove_file(file).unwrap());
    }
    all
}

/// The rows of an evaluation, without paths, in the order of their numbers, and its paths in their order.
fn predictions(qlnet: &Qlnet, data: &Path, args: &[&str]) -> (Vec<Vec<String>>, Vec<String>) {
    let file = qlnet.path("predictions.csv");
    json(&qlnet.eval(data, &[&["--json", "--predictions", file.to_str().unwrap()], args].concat()));
    let rows = rows(&file);
    let paths = rows.iter().map(|row| row["path"].clone()).collect();
    let numbers = |row: &HashMap<String, String>| {
        ["label", "top1", "p1", "p5", "rank", "loss"].map(|name| row[name].clone()).to_vec()
    };
    let mut numbers: Vec<_> = rows.iter().map(numbers).collect();
    numbers.sort();
    (numbers, paths)
}

#[test]
fn every_form_gives_the_same_predictions() {
    let qlnet = Qlnet::new();
    let (expected, _) = predictions(&qlnet, &originals(&qlnet), &[]);
    assert_eq!(expected.len(), 40);
    let first_paths = [
        ("parquet-hf", "validation-00000-of-00003.parquet/00/"),
        ("parquet-hf/data", "validation-00000-of-00003.parquet/00/"),
        ("parquet-none", "validation-00000-of-00002.parquet/00"),
        ("parquet-snappy", "validation-00000-of-00002.parquet/00"),
        ("parquet-zstd", "validation-00000-of-00002.parquet/00"),
        ("parquet-gzip", "validation-00000-of-00002.parquet/00"),
        ("parquet-converted", "0000.parquet/00"),
        ("wds-timm", "imagenet1k-validation-00.tar/"),
        ("wds-clip", "0.tar/"),
        ("wds-timm/imagenet1k-validation-{00..02}.tar", "imagenet1k-validation-00.tar/"),
        ("parquet-hf/data/validation-{00000..00002}-of-00003.parquet", "validation-00000-of-00003.parquet/00/"),
    ];
    for (name, first) in first_paths {
        let (numbers, paths) = predictions(&qlnet, &set(name), &[]);
        assert_eq!(numbers, expected, "{name}");
        assert!(paths[0].starts_with(first) && paths.is_sorted(), "{name}: {}", paths[0]);
    }
    // Another split, and one file.
    let (numbers, paths) = predictions(&qlnet, &set("parquet-hf"), &["--split", "train"]);
    assert!(!numbers.is_empty() && paths.iter().all(|path| path.starts_with("train-")), "{paths:?}");
    let (numbers, _) = predictions(&qlnet, &set("parquet-hf/data/validation-00001-of-00003.parquet"), &[]);
    assert!((10..=20).contains(&numbers.len()));
}

#[test]
fn parts_shards_and_resumed_runs_are_those_of_the_whole() {
    let qlnet = Qlnet::new();
    for name in ["parquet-hf", "parquet-zstd", "wds-timm"] {
        let data = set(name);
        let path = |file: &str| qlnet.path(&format!("{name}-{file}")).to_str().unwrap().to_string();
        let (whole, sample) = (path("whole.csv"), path("sample.csv"));
        json(&qlnet.eval(&data, &["--json", "--predictions", &whole]));
        let whole_rows = rows(whole.as_ref());
        // Few images with many workers, so that they are asked for out of order.
        json(&qlnet.eval(&data, &["--json", "--sample", "11", "--workers", "8", "--predictions", &sample]));
        for row in rows(sample.as_ref()) {
            assert!(whole_rows.iter().any(|other| other["path"] == row["path"] && other["loss"] == row["loss"]));
        }
        for shard in ["1/3", "2/3", "3/3"] {
            let file = path(&format!("shard-{}.csv", &shard[..1]));
            json(&qlnet.eval(&data, &["--json", "--shard", shard, "--workers", "3", "--predictions", &file]));
        }
        let merged = path("merged.csv");
        let shards = ["1", "2", "3"].map(|shard| path(&format!("shard-{shard}.csv")));
        let mut args = vec!["eval", "--json", "--predictions", &merged, "--merge"];
        args.extend(shards.iter().map(String::as_str));
        json(&qlnet.run(&args));
        assert_eq!(fs::read(&merged).unwrap(), fs::read(&whole).unwrap(), "{name}");
        // As a run that was killed leaves its file.
        let text = fs::read_to_string(&whole).unwrap();
        let cut = text.match_indices('\n').nth(17).unwrap().0 + 30;
        fs::write(format!("{whole}.partial"), &text[..cut]).unwrap();
        fs::remove_file(&whole).unwrap();
        json(&qlnet.eval(&data, &["--json", "--resume", &whole]));
        assert_eq!(fs::read_to_string(&whole).unwrap(), text, "{name}");
    }
}

#[test]
fn images_are_read_in_any_order() {
    let qlnet = Qlnet::new();
    let listing = Listing::new(&set("parquet-hf")).unwrap();
    let folder = Listing::new(&originals(&qlnet)).unwrap();
    let own = |path: &str| path.rsplit('/').next().unwrap().split(['_', '.']).next().unwrap().to_string();
    let by_name: HashMap<String, usize> = folder.paths().enumerate().map(|(index, path)| (own(path), index)).collect();
    let images = listing.images();
    let orders = [(0..images).rev().collect::<Vec<_>>(), (0..images).map(|index| index * 7 % images).collect()];
    for index in orders.concat() {
        let original = folder.read(by_name[&own(listing.path(index))]).unwrap();
        assert!(listing.read(index).unwrap() == original, "{}", listing.path(index));
    }
}

#[test]
fn a_list_of_labels_goes_by_rows_where_it_has_no_names() {
    let qlnet = Qlnet::new();
    let broken = |name: &str| set("broken").join(format!("{name}.parquet"));
    let (expected, _) = predictions(&qlnet, &broken("good"), &[]);
    let list: String = rows(&qlnet.path("predictions.csv")).iter().map(|row| format!("{}\n", row["label"])).collect();
    let list = qlnet.file("labels.txt", list.as_bytes());
    for name in ["test-split", "no-label", "null-label", "label-string"] {
        let (numbers, _) = predictions(&qlnet, &broken(name), &["--labels", list.to_str().unwrap()]);
        assert_eq!(numbers, expected, "{name}");
    }
    // By the names in the column of paths.
    let named: Vec<String> = rows(&qlnet.path("predictions.csv"))
        .iter()
        .map(|row| format!("{},{}\n", row["path"].rsplit('/').next().unwrap(), row["label"]))
        .collect();
    let list = qlnet.file("names.csv", named.into_iter().rev().collect::<String>().as_bytes());
    let (numbers, _) = predictions(&qlnet, &broken("test-split"), &["--labels", list.to_str().unwrap()]);
    assert_eq!(numbers, expected);
}

/// Asserts that a set is refused with one line.
fn refused(qlnet: &Qlnet, data: &Path, parts: &[&str]) {
    assert_error(&qlnet.eval(data, &[]), parts);
}

#[test]
fn tables_that_cannot_be_used_are_explained() {
    let qlnet = Qlnet::new();
    let broken = |name: &str| set("broken").join(format!("{name}.parquet"));
    for (name, parts) in [
        ("label-too-large", &["label-too-large.parquet/12/", "has the label 10", "0 to 9"][..]),
        ("test-split", &["every label is -1", "--labels"]),
        ("label-string", &["the column `label` holds no integers", "--target-key"]),
        ("label-float", &["the column `label` holds no integers"]),
        ("label-list", &["the column `label` holds no integers"]),
        ("no-label", &["there is no column `label`; there are `image`", "--target-key"]),
        ("no-image", &["there is no column `image`", "--input-key"]),
        ("image-list", &["the column `image` holds no images"]),
        ("no-rows", &["no images here"]),
        ("cut-before", &["damaged Parquet data"]),
    ] {
        refused(&qlnet, &broken(name), parts);
    }
    let good = fs::read(broken("good")).unwrap();
    for (name, bytes, part) in [
        ("cut.parquet", &good[..good.len() / 2], "not a Parquet file, or cut short"),
        ("empty.parquet", &[], "not a Parquet file, or cut short"),
        ("page.parquet", b"<html>log in</html>", "a web page in place of a Parquet file"),
        ("pointer.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ] {
        refused(&qlnet, &qlnet.file(name, bytes), &[name, part]);
    }
    refused(
        &qlnet,
        &set("parquet-hf/data/validation-{00000..00004}-of-00003.parquet"),
        &["2 of 5 files are not there", "there is validation-0000"],
    );
    refused(&qlnet, &set("wds-timm/imagenet1k-{validation.tar"), &["a brace is not closed"]);
    let output = qlnet.eval(&set("parquet-hf"), &["--split", "nowhere"]);
    assert_error(&output, &["no split `nowhere`", "train"]);
    let output = qlnet.eval(&broken("good"), &["--target-key", "class", "--input-key", "img"]);
    assert_error(&output, &["there is no column `img`"]);
}

#[test]
fn rows_without_a_picture_are_errors_of_one_image() {
    let qlnet = Qlnet::new();
    for (name, part) in [
        ("null-bytes", "null-bytes.parquet/12/"),
        ("null-image", "null-image.parquet/12: the row has no bytes of an image"),
        ("empty-bytes", "the file is empty"),
        ("not-a-picture", "not an image of a known format"),
        ("null-label", "null-label.parquet/12/0078_0.png: it has no label, so it is not scored"),
    ] {
        let output = qlnet.eval(&set("broken").join(format!("{name}.parquet")), &[]);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains(part) && text.contains("1 of 24 images could not be read"), "{name}: {text}");
    }
    let output = qlnet.eval(&set("broken/page-header.parquet"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("damaged Parquet data"), "{}", stderr(&output));
    // Bytes without a struct around them, and a column beside the one that is called image.
    for name in ["image-binary", "two-images", "good"] {
        json(&qlnet.eval(&set("broken").join(format!("{name}.parquet")), &["--json"]));
    }
}

/// A tar archive in the home directory with these files.
fn shard(qlnet: &Qlnet, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    qlnet.file(name, &archive.into_inner().unwrap())
}

#[test]
fn shards_are_told_apart_and_wrong_ones_explained() {
    let qlnet = Qlnet::new();
    let originals = originals(&qlnet);
    let listing = Listing::new(&originals).unwrap();
    let (three, seven) = (listing.read(12).unwrap(), listing.read(28).unwrap());
    let (three, seven) = (three.as_slice(), seven.as_slice());
    let good = [("a.png", three), ("a.cls", b"3\n"), ("b.png", seven), ("b.json", b"{\"label\": 7}")];
    let output = qlnet.eval(&shard(&qlnet, "good.tar", &good), &["--json"]);
    assert_eq!(json(&output)["top1"], 1.0);
    assert!(messages(&output).starts_with("note: images of 2 classes, scored among"), "{}", messages(&output));
    let with = |name: &str, more: &[(&'static str, &'static [u8])], parts: &[&str]| {
        refused(&qlnet, &shard(&qlnet, name, &[&good[..], more].concat()), parts);
    };
    with("twice.tar", &[("a.cls", b"3")], &["twice.tar: a.cls is in the archive twice"]);
    with("text.tar", &[("c.cls", b"three")], &["c.cls holds no class index: \"three\""]);
    with("json.tar", &[("c.json", b"{")], &["c.json is no JSON"]);
    with("field.tar", &[("c.json", b"{\"label\": 1.5}")], &["c.json: label is no class index: 1.5"]);
    with("large.tar", &[("c.cls", b"10")], &["0 to 9: `10`", "--class-map"]);
    with("negative.tar", &[("c.cls", b"-3")], &["has the label -3"]);
    let unlabelled = shard(&qlnet, "unlabelled.tar", &[&good[..], &[("c.png", three)]].concat());
    let file = qlnet.path("rows.csv");
    let output = qlnet.eval(&unlabelled, &["--skip-errors", "--json", "--predictions", file.to_str().unwrap()]);
    assert_eq!((&json(&output)["images"], &json(&output)["errors"]), (&2.into(), &1.into()));
    let whole = fs::read(&file).unwrap();
    assert_eq!((rows(&file)[2]["label"].as_str(), &rows(&file)[2]["error"][..15]), ("", "it has no label"));
    // What is read back is what was written.
    let merged = qlnet.path("merged.csv");
    let args = ["eval", "--merge", file.to_str().unwrap(), "--skip-errors", "--predictions", merged.to_str().unwrap()];
    assert!(qlnet.run(&args).status.success());
    assert!(fs::read(&merged).unwrap() == whole);
    let both = shard(&qlnet, "both.tar", &[&good[..], &[("a.jpg", three)]].concat());
    refused(&qlnet, &both, &["the sample a has both a.png and a.jpg"]);
    json(&qlnet.eval(&both, &["--input-key", "png", "--json"]));
    // Of the sample without an image, there is one error.
    let output = qlnet.eval(&shard(&qlnet, "lone.tar", &[&good[..], &[("c.cls", b"3")]].concat()), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lone.tar/c: the sample has no image"), "{}", stderr(&output));
    // Other fields, and labels that count the classes that are named beside the shards.
    let other = shard(&qlnet, "other.tar", &[("a.png", three), ("a.json", b"{\"class\": 3}")]);
    json(&qlnet.eval(&other, &["--target-key", "class", "--json"]));
    qlnet.file("classnames.txt", b"seven\n7\n3\n");
    let named = shard(&qlnet, "named.tar", &[("a.png", three), ("a.cls", b"2"), ("b.png", seven), ("b.cls", b"1")]);
    let output = qlnet.eval(&named, &["--json"]);
    assert_eq!(json(&output)["top1"], 1.0);
    assert!(messages(&output).starts_with("note: its labels are not the model's"), "{}", messages(&output));
    // Names with dots are no samples where nothing says a class.
    let dotted = [("3/img.1.png", three), ("3/img.5.png", three), ("7/img.1.png", seven)];
    assert_eq!(json(&qlnet.eval(&shard(&qlnet, "dots.tar", &dotted), &["--json"]))["images"], 3);
    // Archives that count different classes.
    for folder in ["one", "other"] {
        fs::create_dir(qlnet.path(folder)).unwrap();
        fs::copy(&named, qlnet.path(folder).join("x.tar")).unwrap();
    }
    fs::write(qlnet.path("one/classnames.txt"), "7\n3\n").unwrap();
    refused(&qlnet, &qlnet.path("{other,one}/x.tar"), &["one/x.tar: its classes have other names than those of"]);
    fs::write(qlnet.path("one/classnames.txt"), "7\n\n3\n").unwrap();
    refused(&qlnet, &qlnet.path("one/x.tar"), &["classnames.txt: a line is blank"]);
    refused(&qlnet, &qlnet.path("{one,other}"), &["stands for the folder", "several sets"]);
    refused(&qlnet, &qlnet.path("{x,x}.tar"), &["stands for a file twice"]);
    // There the program expands them, for no shell does.
    if !cfg!(windows) {
        refused(&qlnet, &qlnet.path("*.tar"), &["*.tar is not there", "braces"]);
    }
    // Several archives are shards, or nothing that goes together.
    let plain = shard(&qlnet, "plain.tar", &[("3/a.png", three)]);
    assert!(Listing::of_files("x".as_ref(), vec![plain.clone()], &Layout::default()).is_ok());
    let mixed = Listing::of_files("x".as_ref(), vec![named.clone(), plain], &Layout::default());
    assert!(mixed.err().unwrap().to_string().contains("plain.tar: no WebDataset shard: no image has a file `cls`"));
    let kinds = Listing::of_files("x".as_ref(), vec![named, set("broken/good.parquet")], &Layout::default());
    assert!(kinds.err().unwrap().to_string().contains("files of two kinds"));
}

#[test]
fn what_lies_beside_images_and_shards_is_passed_over() {
    let qlnet = Qlnet::new();
    // As img2dataset leaves its folders, and as people keep tables about images.
    let shards = qlnet.path("shards");
    fs::create_dir(&shards).unwrap();
    for number in ["00", "01", "02"] {
        let name = format!("imagenet1k-validation-{number}.tar");
        fs::copy(set("wds-timm").join(&name), shards.join(&name)).unwrap();
        fs::copy(set("broken/no-image.parquet"), shards.join(format!("{number}.parquet"))).unwrap();
    }
    let (expected, _) = predictions(&qlnet, &set("wds-timm"), &[]);
    // A shard is missing of those that a file counts.
    fs::copy(set("wds-timm/_info.json"), shards.join("_info.json")).unwrap();
    fs::write(shards.join("nshards.txt"), "3").unwrap();
    let last = shards.join("imagenet1k-validation-02.tar");
    fs::rename(&last, qlnet.path("away")).unwrap();
    refused(&qlnet, &shards, &["nshards.txt says that there are 3 shards, and there are 2"]);
    fs::remove_file(shards.join("nshards.txt")).unwrap();
    refused(&qlnet, &shards, &["_info.json lists imagenet1k-validation-02.tar, which is not there"]);
    fs::rename(qlnet.path("away"), &last).unwrap();
    assert_eq!(predictions(&qlnet, &shards, &[]).0, expected);
    // Beside tables of images too; alone, they are told what they lack.
    let tables = qlnet.path("tables");
    fs::create_dir(&tables).unwrap();
    fs::copy(set("broken/no-image.parquet"), tables.join("stats-validation.parquet")).unwrap();
    refused(&qlnet, &tables, &["there is no column `image`; there are `label`, `text`"]);
    fs::copy(set("broken/good.parquet"), tables.join("images-validation.parquet")).unwrap();
    assert_eq!(predictions(&qlnet, &tables, &[]).0.len(), 24);
    let folders = originals(&qlnet);
    fs::copy(set("broken/no-image.parquet"), folders.join("features.parquet")).unwrap();
    assert_eq!(predictions(&qlnet, &folders, &[]).0, expected);
    // Options that say nothing of a folder are not passed over.
    let output = qlnet.eval(&folders, &["--split", "train", "--json"]);
    assert!(
        messages(&output).contains("--split, --input-key and --target-key do nothing here"),
        "{}",
        messages(&output)
    );
}
