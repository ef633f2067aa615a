//! Every kind of picture file, against Pillow's pixels: `tests/fixtures/decode` has files and beside each what
//! Pillow makes of it. The scripts that made them are in `reference`.

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use image::RgbImage;
use qlnet::input::Preprocess;
use qlnet::input::{Options, decode};
use serde_json::Value;
use support::fixture;
use support::program::{DIGITS, Qlnet, assert_error, not_found, records, stderr, stdout};

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

/// Runs classify with something on its standard input.
fn classify_with_input(qlnet: &Qlnet, args: &[&str], input: &[u8]) -> Output {
    let mut command = qlnet.command();
    command.args(["classify", "--json", "-k", "1"]).args(DIGITS).args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn images(output: &Output) -> Vec<String> {
    records(output).iter().map(|record| record["image"].as_str().unwrap().into()).collect()
}

#[test]
fn images_are_named_by_a_list() {
    let qlnet = Qlnet::new();
    let (three, one) = ("samples/digits/3-45.png", "samples/digits/1-21.png");
    let list = qlnet.file("list.txt", format!("{one}\r\n\r\n{three}").as_bytes());
    let list = list.to_str().unwrap();
    let run = |args: &[&str], input: &str| classify_with_input(&qlnet, args, input.as_bytes());
    let output = run(&["--image-list", list], "");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert_eq!(images(&output), [one, three]);
    // Those of the command line come first, and a directory stands for its images.
    let output = run(&[three, "--image-list", "-"], &format!("samples/digits\n{one}\n"));
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let found = images(&output);
    assert_eq!((found.len(), &*found[0], &*found[11]), (12, three, one));
    // Standard input may be an image of the list, unless it is the list.
    let digit = std::fs::read(three).unwrap();
    let list = qlnet.file("with-stdin.txt", format!("{one}\n-\n").as_bytes());
    let output = classify_with_input(&qlnet, &["--image-list", list.to_str().unwrap()], &digit);
    assert_eq!((output.status.code(), images(&output)), (Some(0), vec![one.into(), "-".into()]));
    // What is not there is told, and the others are classified.
    let output = run(&["--image-list", "-"], &format!("nowhere.png\n{three}\n"));
    assert_eq!((output.status.code(), images(&output)), (Some(1), vec![three.into()]));
    assert!(stderr(&output).starts_with("error: nowhere.png: ") && stderr(&output).lines().count() == 1);
}

#[test]
#[cfg(unix)]
fn names_with_newlines_survive_in_a_list() {
    use std::os::unix::ffi::OsStrExt;
    let qlnet = Qlnet::new();
    let digit = std::fs::read("samples/digits/3-45.png").unwrap();
    let plain = qlnet.file("new\nline.png", &digit);
    let mut list = [plain.as_os_str().as_bytes(), b"\0"].concat();
    let mut expected = vec![plain.to_str().unwrap().to_string()];
    // Other systems refuse such names.
    if cfg!(target_os = "linux") {
        let other = qlnet.home.path().join(std::ffi::OsStr::from_bytes(b"\xe9\r.png"));
        std::fs::write(&other, &digit).unwrap();
        list.extend(other.as_os_str().as_bytes());
        expected.push(other.to_str().map_or(other.display().to_string(), String::from));
    }
    for flag in ["-0", "--null"] {
        let output = classify_with_input(&qlnet, &["--image-list", "-", flag], &list);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
        assert_eq!(images(&output), expected);
    }
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    let qlnet = Qlnet::new();
    let run = |args: &[&str], input: &[u8]| classify_with_input(&qlnet, args, input);
    let list = ["--image-list", "-"];
    assert_error(&run(&["-", "--image-list", "-"], b"a.png\n"), &["standard input cannot be both"]);
    assert_error(&run(&list, b"samples/digits/3-45.png\n-\n"), &["standard input is the list"]);
    assert_error(&run(&list, b""), &["-: no names in this list of images"]);
    assert_error(&run(&list, b"\n\n"), &["no names in this list"]);
    assert_error(&run(&list, b"a.png\0b.png\0"), &["standard input: line 1 contains NUL", "-0"]);
    assert_error(&run(&["--image-list", "-", "-0"], b"a.png\nb.png\n"), &["no name ends with NUL"]);
    assert_error(&run(&["--image-list", "no-such.txt"], b""), &["cannot read no-such.txt", &not_found("no-such.txt")]);
    // A picture instead of a list of them.
    let output = run(&["--image-list", "samples/digits/3-45.png"], b"");
    assert_error(&output, &["samples/digits/3-45.png: "]);
    assert!(stdout(&output).is_empty());
    // An empty list beside an image is an error too, and the image is classified.
    let output = run(&["samples/digits/3-45.png", "--image-list", "-"], b"");
    assert_eq!((output.status.code(), records(&output).len()), (Some(1), 1));
    // -0 is about the list.
    let output = run(&["samples/digits/3-45.png", "-0"], b"");
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--image-list"), "{}", stderr(&output));
}
