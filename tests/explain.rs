//! `qlnet classify` with maps, pages and rows: what is asked for beside the classes.

mod support;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
#[cfg(unix)]
use support::browser::in_browser;
use support::program::{DIGITS, Qlnet, assert_error, records, stderr, stdout};
use support::reference_dir;

/// The numbers of a map, in rows.
fn rows(map: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(map.clone()).unwrap()
}

/// Asserts that each logit is the mean of its map of so many places.
fn assert_maps_add_up(record: &Value, places: usize) {
    let predictions = record["predictions"].as_array().unwrap();
    for prediction in predictions {
        let map = rows(&prediction["map"]).concat();
        assert_eq!(map.len(), places);
        let (sum, logit) = (map.iter().sum::<f64>(), prediction["logit"].as_f64().unwrap());
        let largest = map.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let difference = (sum - places as f64 * logit).abs() / (places as f64 * largest);
        assert!(difference < 1e-5, "{prediction}: {difference:e}");
    }
}

#[test]
fn maps_add_up_to_the_logits_and_pictures_show_them() {
    let qlnet = Qlnet::new();
    let maps = qlnet.home.path().join("new/maps");
    let with = ["classify", "samples/digits", "--json", "-k", "3", "--explain", maps.to_str().unwrap()];
    let output = qlnet.command().args(with).args(DIGITS).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let explained = records(&output);
    let plain = records(&qlnet.run(&["classify", "samples/digits", "--json", "-k", "3", DIGITS[0], DIGITS[1]]));
    assert_eq!(explained.len(), 10);
    for (mut record, plain) in explained.into_iter().zip(plain) {
        assert_maps_add_up(&record, 4);
        let picture = image::open(record["picture"].as_str().unwrap()).unwrap();
        // Four images of 64x64, enlarged five times, in two rows.
        assert_eq!(picture.width(), 2 * 20 + 3 * 320 + 2 * 16);
        let stem = Path::new(plain["image"].as_str().unwrap()).file_stem().unwrap().to_owned();
        assert_eq!(Path::new(record["picture"].as_str().unwrap()).file_stem().unwrap(), stem);
        // What is said besides is what is said without maps.
        record.as_object_mut().unwrap().remove("picture");
        record["predictions"].as_array_mut().unwrap().iter_mut().for_each(|prediction| {
            prediction.as_object_mut().unwrap().remove("map");
        });
        assert_eq!(record, plain);
    }
    let output = qlnet.run(&[
        "classify",
        "samples/digits/3-45.png",
        "--explain",
        maps.to_str().unwrap(),
        "-k1",
        DIGITS[0],
        DIGITS[1],
    ]);
    let last = stdout(&output).lines().last().unwrap().to_string();
    assert_eq!(last, format!("  where it looked: {}", maps.join("3-45.png").display()));
}

#[test]
fn the_full_size_network_has_49_places() {
    let Some(dir) = reference_dir() else { return };
    let qlnet = Qlnet::new();
    let maps = qlnet.home.path().join("maps");
    let mut command = qlnet.command();
    command.args(["classify", "--json", "-k", "1000", "--explain"]).arg(&maps).arg("--weights");
    command.arg(dir.join("qlnet-50-v0.digits.pth.tar")).arg(dir.join("images/chelsea.png"));
    let output = command.output().unwrap();
    let record = &records(&output)[0];
    assert_maps_add_up(record, 49);
    let map = rows(&record["predictions"][0]["map"]);
    assert_eq!((map.len(), map[0].len()), (7, 7));
    // No more maps are drawn than there is room for.
    assert_eq!(image::open(maps.join("chelsea.png")).unwrap().width(), 2 * 20 + 3 * 224 + 2 * 16);
}

#[test]
fn pictures_are_written_over_no_image() {
    let qlnet = Qlnet::new();
    let digit = qlnet.file("3.png", &std::fs::read("samples/digits/3-45.png").unwrap());
    let home = qlnet.home.path().to_str().unwrap();
    let output = qlnet.run(&["classify", digit.to_str().unwrap(), "--explain", home, DIGITS[0], DIGITS[1]]);
    assert_error(&output, &["3.png: it is in", "a directory that is not searched"]);
    let file = digit.to_str().unwrap();
    let output = qlnet.run(&["classify", file, "--explain", file, DIGITS[0], DIGITS[1]]);
    assert_error(&output, &["cannot make the directory"]);
    assert_eq!(std::fs::read(&digit).unwrap(), std::fs::read("samples/digits/3-45.png").unwrap());
}

#[test]
fn the_first_line_says_what_produced_the_others() {
    let qlnet = Qlnet::new();
    let command = ["classify", "samples/digits", "--json", "--no-exif", "-k1", DIGITS[0], DIGITS[1]];
    let plain = stdout(&qlnet.run(&command));
    let output = stdout(&qlnet.command().args(command).arg("--header").output().unwrap());
    let (first, others) = output.split_once('\n').unwrap();
    assert_eq!(others, plain);
    let mut header: Value = serde_json::from_str(first).unwrap();
    let object = header.as_object_mut().unwrap();
    // It depends on the processor.
    assert!(object.remove("instructions").unwrap().is_string());
    assert_eq!(
        header,
        json!({
            "qlnet": env!("CARGO_PKG_VERSION"), "model": "qlnet-digits", "classes": 10, "dtype": "f32", "device": "cpu",
            "weights_sha256": "ff1a0a63e48a6530c5493345169cc149de862bbc2b48a904189458098b3630ce",
            "preprocess": { "resize": 64, "interpolation": "bicubic", "crop": 64 }, "jpeg_decoder": "libjpeg-turbo",
            "exif": false, "strict": false, "max_pixels": 178_956_970,
        })
    );
    let output = qlnet.run(&["classify", "samples/digits", "--header", DIGITS[0], DIGITS[1]]);
    assert_error(&output, &["--header", "--json or --csv"]);
}

#[test]
fn rows_hold_what_json_holds_whatever_the_names() {
    let qlnet = Qlnet::new();
    std::fs::create_dir(qlnet.home.path().join("in")).unwrap();
    // Windows has no such names.
    let name = if cfg!(windows) { "a 'b', c.png" } else { "a \"b\",\n.png" };
    for (name, digit) in [(name, "3-45"), ("é.png", "0-78")] {
        qlnet.file(&format!("in/{name}"), &std::fs::read(format!("samples/digits/{digit}.png")).unwrap());
    }
    let folder = qlnet.home.path().join("in");
    let run = |form: &str| {
        let output = qlnet.run(&["classify", folder.to_str().unwrap(), form, "--header", DIGITS[0], DIGITS[1]]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        output
    };
    let (csv, json) = (run("--csv").stdout, records(&run("--json")));
    let mut reader = csv::Reader::from_reader(&csv[..]);
    let found: Vec<HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    let mut expected = Vec::new();
    for record in &json[1..] {
        for (place, prediction) in record["predictions"].as_array().unwrap().iter().enumerate() {
            let text = |value: &Value| value.as_str().map_or(value.to_string(), String::from);
            let mut row: HashMap<String, String> =
                ["index", "label", "probability", "logit"].map(|name| (name.into(), text(&prediction[name]))).into();
            row.insert("image".into(), text(&record["image"]));
            row.insert("rank".into(), (place + 1).to_string());
            for name in ["wnid", "image_base64"] {
                row.insert(name.into(), String::new());
            }
            row.insert("run".into(), if expected.is_empty() { json[0].to_string() } else { String::new() });
            expected.push(row);
        }
    }
    assert_eq!(found.len(), 10);
    for (mut found, mut expected) in found.into_iter().zip(expected) {
        let [one, other] = [&mut found, &mut expected].map(|row| {
            let run = row.remove("run").unwrap();
            (!run.is_empty()).then(|| serde_json::from_str::<Value>(&run).unwrap())
        });
        assert_eq!(one, other);
        for name in ["probability", "logit"] {
            let [found, expected] = [&mut found, &mut expected].map(|row| row.remove(name).unwrap());
            assert_eq!(found.parse::<f64>().unwrap(), expected.parse::<f64>().unwrap());
        }
        assert_eq!(found, expected);
    }
}

/// Images with names that are no HTML, a damaged one, and one that is none.
#[cfg(unix)]
fn folder_of_many_kinds(qlnet: &Qlnet) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let folder = qlnet.home.path().join("in");
    std::fs::create_dir(&folder).unwrap();
    let digits: Vec<_> = std::fs::read_dir("samples/digits").unwrap().map(|file| file.unwrap().path()).collect();
    for copy in 0..12 {
        for digit in &digits {
            let name = format!("{copy:02} {}", digit.file_name().unwrap().to_str().unwrap());
            std::fs::copy(digit, folder.join(name)).unwrap();
        }
    }
    let bytes = std::fs::read("samples/digits/3-45.png").unwrap();
    qlnet.file("in/z <img src=x onerror=alert(1)> & \"'.png", &bytes);
    qlnet.file("in/z <script>.png", b"</script><script>alert(1)</script>");
    std::fs::write(folder.join(std::ffi::OsStr::from_bytes(b"z \xe9.png")), &bytes).unwrap();
    folder
}

/// What a person does with the page; the numbers of the map come back too.
#[cfg(unix)]
const DRIVE: &str = r##"
const wait = () => new Promise(done => setTimeout(done, 60));
const shownCells = () => [...document.querySelectorAll(".cell")].map(cell => cell.querySelector(".file").textContent);
const set = async (id, value) => {
  const element = document.getElementById(id);
  if (element.type === "checkbox") element.checked = value; else element.value = value;
  element.dispatchEvent(new Event("input", { bubbles: true }));
  await wait();
  return document.getElementById("count").textContent;
};
const key = async (target, name) => {
  target.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  await wait();
};
const out = {};
await wait();
out.images = document.getElementById("summary").textContent;
out.all = document.getElementById("count").textContent;
out.cells = document.querySelectorAll(".cell").length;
out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
out.failed = document.querySelector("#failed-place summary").textContent;
out.reason = document.querySelector("#failed-place li").textContent;
out.classes = document.querySelectorAll("#classes .bar").length;
out.threes = await set("class", "3");
out.anywhere = await set("any", true);
await set("any", false);
out.path = await set("path", "07 3-");
out.only = shownCells();
await key(document.getElementById("path"), "Escape");
out.cleared = document.getElementById("count").textContent;
out.sure = await set("from", "97");
await set("from", "");
await set("sort", "probability");
out.probabilities = [...document.querySelectorAll(".cell .p")].map(cell => parseFloat(cell.textContent));
await set("sort", "name");
await set("reverse", true);
out.last = shownCells()[0];
document.getElementById("sieve").reset();
await wait();
await key(document.body, "/");
out.focus = document.activeElement.id;
const grid = document.getElementById("grid");
grid.focus();
await key(grid, "End");
out.end = document.getElementById(grid.getAttribute("aria-activedescendant")).title;
await key(grid, "Home");
await key(grid, "ArrowRight");
await key(grid, "Enter");
const detail = document.getElementById("detail");
out.open = [detail.open, document.getElementById("name").textContent, document.getElementById("numbers").hidden];
out.address = document.querySelector("#link a").getAttribute("href");
await key(detail, "ArrowDown");
const canvas = document.getElementById("picture");
for (let tries = 0; canvas.dataset.drawn !== "1 0" && tries < 50; tries++) await wait();
const pixel = (x, y) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
out.pixels = [pixel(10, 10), pixel(437, 10), pixel(10, 437), pixel(437, 437)];
const numbers = () => [...document.querySelectorAll("#map tr")].map(row => [...row.cells].map(cell => Number(cell.dataset.value)));
out.map = numbers();
out.sum = document.getElementById("sum").textContent;
await key(detail, "ArrowDown");
out.second = numbers();
await key(detail, "ArrowRight");
out.next = document.getElementById("name").textContent;
document.getElementById("close").click();
out.closed = !detail.open;
return out;
"##;

#[test]
#[cfg(unix)]
fn a_page_shows_sorts_and_filters_all_images() {
    let qlnet = Qlnet::new();
    let folder = folder_of_many_kinds(&qlnet);
    let page = qlnet.home.path().join("sheet.html");
    let run = |arguments: &[&str]| {
        qlnet.command().arg("classify").arg(&folder).args(arguments).args(DIGITS).output().unwrap()
    };
    let output = run(&["--report", page.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "one image has no answer");
    assert!(stdout(&output).is_empty(), "the page replaces the table");
    assert!(stderr(&output).contains("sheet.html: 122 images, "), "{}", stderr(&output));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(!html.contains("<img src=x") && !html.contains("<script>alert"), "names are text");
    assert_eq!(html.matches("class=\"rows\"").count(), 2);

    let json = run(&["--json", "--explain", qlnet.home.path().join("maps").to_str().unwrap()]);
    let json = records(&json);
    assert_eq!(json.len(), 122);
    let first =
        |record: &Value| (record["predictions"][0]["index"].clone(), record["predictions"][0]["probability"].clone());
    let count =
        |test: &dyn Fn(&Value) -> bool| format!("{} of 122 images", json.iter().filter(|record| test(record)).count());
    for width in [1200, 400] {
        let Some(mut found) = in_browser(&page, width, DRIVE) else { return };
        let mut take = |name: &str| found[name].take();
        assert_eq!((take("images"), take("all")), (json!("122 images."), json!("122 of 122 images")));
        let cells = take("cells").as_u64().unwrap();
        assert!((4..122).contains(&cells), "{cells} cells: those in view");
        assert_eq!(take("overflow"), 0, "at {width} pixels");
        assert_eq!(take("failed"), "1 without an answer");
        assert!(take("reason").as_str().unwrap().contains("z <script>.png"));
        assert_eq!(take("classes"), 10);
        assert_eq!(take("threes"), count(&|record| first(record).0 == 3));
        let anywhere = |record: &Value| record["predictions"].as_array().unwrap().iter().any(|p| p["index"] == 3);
        assert_eq!(take("anywhere"), count(&anywhere));
        assert_eq!(take("path"), "1 of 122 images");
        assert_eq!(take("only"), json!(["07 3-45.png"]));
        assert_eq!(take("cleared"), "122 of 122 images");
        assert_eq!(take("sure"), count(&|record| first(record).1.as_f64().unwrap() >= 0.97));
        let sorted: Vec<f64> = serde_json::from_value(take("probabilities")).unwrap();
        assert!(sorted.len() >= 4 && sorted.is_sorted_by(|a, b| a >= b), "{sorted:?}");
        assert!(take("last").as_str().unwrap().starts_with("z "));
        assert_eq!(take("focus"), "path");
        let end = json.last().unwrap()["image"].as_str().unwrap();
        assert!(take("end").as_str().unwrap().starts_with(end));
        assert_eq!(take("open"), json!([true, json[1]["image"], true]));
        let address = take("address");
        assert!(address.as_str().unwrap().starts_with("./in/00%20"), "{address}");
        for (rank, name) in ["map", "second"].into_iter().enumerate() {
            let numbers = |map: &Value| rows(map).concat().iter().map(|value| *value as f32).collect::<Vec<_>>();
            assert_eq!(numbers(&take(name)), numbers(&json[1]["predictions"][rank]["map"]));
        }
        let logit = json[1]["predictions"][0]["logit"].as_f64().unwrap();
        assert_eq!(take("sum"), format!("The mean of these 4 numbers, +{logit:.3}, is the logit."));
        assert_pixels(&take("pixels"), &rows(&json[1]["predictions"][0]["map"]).concat());
        assert_eq!(take("next"), json[2]["image"]);
        assert_eq!(take("closed"), true);
    }
}

/// Corners of the image are drawn in the colours of their places: red above zero, blue below.
#[cfg(unix)]
fn assert_pixels(pixels: &Value, map: &[f64]) {
    let pixels: Vec<[f64; 4]> = serde_json::from_value(pixels.clone()).unwrap();
    let largest = map.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for ([red, _, blue, opacity], value) in pixels.into_iter().zip(map) {
        assert_eq!(opacity, 255.0);
        if value.abs() > 0.1 * largest {
            assert_eq!(red > blue, *value > 0.0, "{red} {blue} for {value}");
        }
    }
}

#[test]
fn a_page_that_cannot_be_written_is_told_at_once() {
    let qlnet = Qlnet::new();
    for (name, part) in [("sheet.txt", "ends in .html"), ("missing/sheet.html", "missing/sheet.html")] {
        let page = qlnet.home.path().join(name);
        let output =
            qlnet.run(&["classify", "samples/digits", "--report", page.to_str().unwrap(), DIGITS[0], DIGITS[1]]);
        assert_error(&output, &[part]);
    }
    let image = qlnet.file("page.html", &std::fs::read("samples/digits/3-45.png").unwrap());
    let image = image.to_str().unwrap();
    let output = qlnet.run(&["classify", image, "--report", image, DIGITS[0], DIGITS[1]]);
    assert_error(&output, &["page.html would be written over"]);
}
