//! Every kind of picture file, against Pillow's pixels: `tests/fixtures/decode` has files and beside each what
//! Pillow makes of it. The scripts that made them are in `reference`.

mod support;

use std::path::{Path, PathBuf};

use image::RgbImage;
use qlnet::input::Preprocess;
use qlnet::input::{Options, decode};
use serde_json::Value;
use support::fixture;
use support::program::{DIGITS, Qlnet, stderr, stdout};

/// As the pixels lie in the file.
const STORED: Options = Options { exif: false, strict: false, max_pixels: qlnet::input::MAX_PIXELS };

/// The files beside which there is one of this ending, and what it holds.
fn expected(ending: &str) -> Vec<(PathBuf, RgbImage)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(fixture("decode")).unwrap() {
        let path = entry.unwrap().path();
        if let Some(name) = path.to_str().unwrap().strip_suffix(ending) {
            files.push((name.into(), image::open(&path).unwrap().into_rgb8()));
        }
    }
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Refused or warned of, or neither.
fn outcome(path: &Path, options: Options) -> Result<Option<String>, String> {
    let preprocess = Preprocess::notebook(32);
    let crop = preprocess.crop_of(&std::fs::read(path).unwrap(), path, options);
    crop.map(|crop| crop.warning).map_err(|error| format!("{error:#}"))
}

#[test]
fn pixels_are_pillows() {
    let files = expected(".rgb.png");
    for (path, expected) in &files {
        let decoded = decode(&std::fs::read(path).unwrap(), path, STORED).unwrap_or_else(|e| panic!("{path:?}: {e:#}"));
        assert_eq!(decoded.dimensions(), expected.dimensions(), "{path:?}");
        let largest = decoded.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Whoever converts Lab to sRGB has tables of their own.
        let tolerance = if name(path).starts_with("lab") { 1 } else { 0 };
        assert!(largest <= tolerance, "{path:?} differs by {largest}");
    }
    assert!(files.len() > 140, "{}", files.len());
}

#[test]
fn pictures_are_turned_as_pillow_turns_them() {
    let files = expected(".upright.png");
    for (path, expected) in &files {
        let bytes = std::fs::read(path).unwrap();
        let turned = decode(&bytes, path, Options::default()).unwrap();
        assert_eq!(&turned, expected, "{path:?}");
        let stored = decode(&bytes, path, STORED).unwrap();
        // A TIFF file is turned whether asked or not, as in Pillow.
        let same = name(path).ends_with(".tiff") || name(path).contains("-1.");
        assert_eq!(stored == turned, same, "{path:?}");
    }
    assert!(files.len() >= 4 * 8 + 6, "{}", files.len());
}

#[test]
fn what_is_not_whole_is_refused() {
    let mut refused = 0;
    for entry in std::fs::read_dir(fixture("decode/refused")).unwrap() {
        let path = entry.unwrap().path();
        let error = outcome(&path, Options::default()).expect_err(name(&path));
        assert!(!error.contains('\n') && error.len() < 200, "{error}");
        refused += 1;
    }
    assert!(refused > 15, "{refused}");
}

#[test]
fn damage_that_libjpeg_passes_over_is_told() {
    let strict = Options { strict: true, ..Options::default() };
    let mut damaged = 0;
    for (path, _) in expected(".rgb.png") {
        let warning = outcome(&path, Options::default()).unwrap();
        // Libraries pass over nonsense in place of EXIF data.
        let expected = name(&path).starts_with("damaged-") && !name(&path).contains("exif");
        assert_eq!(warning.is_some(), expected, "{path:?}: {warning:?}");
        assert_eq!(outcome(&path, strict).is_err(), expected, "{path:?}");
        damaged += usize::from(expected);
    }
    assert_eq!(damaged, 4);
    let warning = outcome(&fixture("decode/damaged-scan.jpg"), Options::default()).unwrap();
    assert_eq!(warning.as_deref(), Some("Corrupt JPEG data: premature end of data segment"));
}

#[test]
fn too_many_pixels_are_refused_before_they_are_decoded() {
    let bytes = std::fs::read(fixture("decode/rgb.png")).unwrap();
    let most = |max_pixels| decode(&bytes, "a.png".as_ref(), Options { max_pixels, ..STORED });
    assert!(most(37 * 26).is_ok());
    let error = format!("{:#}", most(37 * 26 - 1).unwrap_err());
    assert!(error.contains("37x26") && error.contains("961"), "{error}");
}

#[test]
fn classify_tells_of_damage_beside_its_answer() {
    let (damaged, good) = ("tests/fixtures/decode/damaged-scan.jpg", "tests/fixtures/decode/rgb.jpg");
    let classify =
        |args: &[&str]| Qlnet::new().run(&[&["classify", damaged, good, "--json"], &DIGITS[..], args].concat());
    let output = classify(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), format!("warning: {damaged}: Corrupt JPEG data: premature end of data segment\n"));
    let records: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0]["warning"], "Corrupt JPEG data: premature end of data segment");
    assert_eq!((records.len(), records[1].get("warning")), (2, None));
    let output = classify(&["--strict"]);
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(1), 1));
    assert!(stderr(&output).starts_with(&format!("error: {damaged}: damaged JPEG: ")), "{}", stderr(&output));
    let output = classify(&["--max-pixels", "961"]);
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(1), 2));
}

#[test]
fn eval_counts_damaged_files_or_refuses_them() {
    let qlnet = Qlnet::new();
    for (class, name) in ["rgb.jpg", "damaged-scan.jpg", "damaged-header.jpg"].into_iter().enumerate() {
        let folder = qlnet.home.path().join(format!("val/{class}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(fixture(&format!("decode/{name}")), folder.join(name)).unwrap();
    }
    let path = |name: &str| qlnet.home.path().join(name).to_str().unwrap().to_string();
    let (val, file) = (path("val"), path("rows.csv"));
    let eval = |args: &[&str]| qlnet.run(&[&["eval", "--imagenet-val", &val, "--json"], &DIGITS[..], args].concat());
    let output = eval(&["--predictions", &file]);
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&result["images"], &result["errors"], &result["warnings"]), (&3.into(), &0.into(), &2.into()));
    let text = stderr(&output);
    assert!(text.contains("warning: 1/damaged-scan.jpg: Corrupt") && text.contains("2 of the scored images"), "{text}");
    let rows = std::fs::read_to_string(&file).unwrap();
    assert_eq!(rows.lines().filter(|line| line.contains("Corrupt JPEG data")).count(), 2, "{rows}");
    // What the rows say is kept when they are read again.
    let output = qlnet.run(&["eval", "--merge", &file, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["warnings"], 2);

    let output = eval(&["--strict", "--skip-errors"]);
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&result["images"], &result["errors"], &result["warnings"]), (&1.into(), &2.into(), &0.into()));
    let output = eval(&["--strict", "--resume", &file]);
    assert!(
        stderr(&output).contains("other treatment of damaged files (scored there, refused here)"),
        "{}",
        stderr(&output)
    );
}
