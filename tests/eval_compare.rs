//! Two files of predictions are compared image by image, however their images are kept.

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use eval_support::{HELD_OUT, json, rows};
use qlnet::eval::compare::{Comparison, KEPT};
use qlnet::eval::dataset::Fingerprint;
use qlnet::{Error, PredictionsProblem};
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::browser::in_browser;
use support::program::{DIGITS, Qlnet, assert_error, stderr, stdout};

impl Qlnet {
    /// The predictions of qlnet-digits for the images of `data`, under that name.
    fn predictions(&self, name: &str, data: &Path, args: &[&str]) -> PathBuf {
        let file = self.path(name);
        json(&self.eval(data, &[&["--json", "--skip-errors", "--predictions", file.to_str().unwrap()], args].concat()));
        file
    }

    fn compare(&self, a: &Path, b: &Path, args: &[&str]) -> Output {
        self.run(&[&["eval", "--compare", a.to_str().unwrap(), b.to_str().unwrap()], args].concat())
    }

    /// A file of JSON lines of a run whose images are those of `rows`, in their order.
    fn of_rows(&self, name: &str, rows: &[Value]) -> PathBuf {
        let mut rows = rows.to_vec();
        let place = rows.iter().position(|row| row.get("run").is_some()).unwrap();
        let run = rows[place].as_object_mut().unwrap().remove("run").unwrap();
        let mut run: Value = serde_json::from_str(run.as_str().unwrap()).unwrap();
        let line = |row: &Value| {
            Fingerprint::line(row["path"].as_str().unwrap(), row["label"].as_u64().map(|label| label as u32))
        };
        let hash = Sha256::digest(rows.iter().map(line).collect::<String>());
        run["data"]["sha256"] = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        run["data"]["images"] = rows.len().into();
        rows[0]["run"] = run.to_string().into();
        self.file(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>().as_bytes())
    }
}

/// The rows of a file of JSON lines.
fn lines(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A row of a file by column.
type Columns = HashMap<String, String>;

/// Asserts that the images that only A gets right are those of the rows of both files, and that classes are sorted.
fn assert_images(result: &Value, both: &[(Columns, Columns)]) {
    // The images themselves, the surest first, and the classes that they are of.
    let images = result["only_a_images"].as_array().unwrap();
    assert!(images.is_sorted_by_key(|image| -image["a"]["probability"].as_f64().unwrap()));
    for image in images {
        let (row_a, row_b) = both.iter().find(|(a, _)| a["path"] == image["path"]).unwrap();
        assert_eq!(image["a"]["class"], image["label"]);
        assert_eq!(
            (image["label"].to_string(), image["b"]["class"].to_string()),
            (row_a["label"].clone(), row_b["top1"].clone())
        );
    }
    let classes = result["classes"].as_array().unwrap();
    let moved = |class: &Value| (class["top1_b"].as_f64().unwrap() - class["top1_a"].as_f64().unwrap()).abs();
    assert!(!classes.is_empty() && classes.is_sorted_by(|one, other| moved(one) >= moved(other)));
}

/// Every number of a comparison, from the rows of both files without the library.
#[test]
fn numbers_are_those_of_the_rows() {
    let qlnet = Qlnet::new();
    let data = Path::new(HELD_OUT);
    let a = qlnet.predictions("a.csv", data, &[]);
    let b = qlnet.predictions("b.csv", data, &["--resize", "90", "--interpolation", "bilinear"]);
    let result = json(&qlnet.compare(&a, &b, &["--json"]));

    let both: Vec<_> = rows(&a).into_iter().zip(rows(&b)).collect();
    let count = |places: u32, right_a: bool, right_b: bool| {
        let right = |rank: &str| rank.parse::<u32>().unwrap() <= places;
        both.iter().filter(|(a, b)| right(&a["rank"]) == right_a && right(&b["rank"]) == right_b).count()
    };
    for (name, places) in [("top1", 1), ("top5", 5)] {
        let counts =
            [("both", true, true), ("only_a", true, false), ("only_b", false, true), ("neither", false, false)];
        for (field, right_a, right_b) in counts {
            assert_eq!(result[name][field], count(places, right_a, right_b), "{name} {field}");
        }
    }
    let (only_a, only_b) = (count(1, true, false), count(1, false, true));
    assert!(only_a > 1 && only_b > 0, "{only_a}, {only_b}: too few to tell A from B");
    let difference = (only_b as f64 - only_a as f64) / 360.0;
    assert!((result["top1"]["difference"].as_f64().unwrap() - difference).abs() < 1e-12);
    assert_eq!(result["same_prediction"], both.iter().filter(|(a, b)| a["top1"] == b["top1"]).count());
    for (side, file) in [("a", &a), ("b", &b)] {
        let alone = json(&qlnet.run(&["eval", "--json", "--merge", file.to_str().unwrap()]));
        for field in ["top1", "top1_interval", "top5", "loss", "calibration_error", "preprocess", "data"] {
            assert_eq!(result[side][field], alone[field], "{side} {field}");
        }
    }
    // The label's probability is known in both: no change of it is larger than the largest.
    let p = |row: &Columns| (-row["loss"].parse::<f64>().unwrap()).exp();
    let largest = both.iter().map(|(a, b)| (p(a) - p(b)).abs()).fold(0.0, f64::max);
    let found = &result["largest_change"];
    let size = (found["a"].as_f64().unwrap() - found["b"].as_f64().unwrap()).abs();
    assert!(size >= largest - 1e-6 && size <= 1.0, "{found}, {largest}");

    let images = ["only_a_images", "only_b_images"].map(|field| result[field].as_array().unwrap().len());
    assert_eq!(images, [only_a, only_b]);
    assert_images(&result, &both);

    let differences = result["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0]["name"], "preprocessing");
    // The other way round.
    let turned = json(&qlnet.compare(&b, &a, &["--json"]));
    assert_eq!(turned["top1"]["only_a"], only_b);
    assert_eq!(turned["top1"]["mcnemar_p"], result["top1"]["mcnemar_p"]);
    assert_eq!(turned["only_b_images"].as_array().unwrap().len(), only_a);
}

#[test]
fn what_differs_is_named() {
    let qlnet = Qlnet::new();
    let data = Path::new(HELD_OUT);
    let a = qlnet.predictions("a.csv", data, &[]);
    let int8 = qlnet.predictions("int8.jsonl", data, &["--dtype", "int8"]);
    let moved = qlnet.path("moved.safetensors");
    let save = ["symmetry", DIGITS[0], DIGITS[1], "--save", moved.to_str().unwrap()];
    assert_eq!(qlnet.run(&save).status.code(), Some(0));
    let moved = qlnet.predictions("moved.csv", data, &["--weights", moved.to_str().unwrap()]);

    let output = qlnet.compare(&a, &int8, &[]);
    let table = stdout(&output);
    for line in [
        "dtype              A f32",
        "                   B int8",
        "images             360",
        "top-1              A 99.17 %   95 % interval 97.58 % to 99.72 %",
        "cross-entropy      A 0.0646, B 0.0",
        "right in both      357       99.17 %",
        "B - A, top-5       +0.00   95 % interval -1.06 to +1.06   McNemar's exact p 1.0000",
    ] {
        assert!(table.lines().any(|found| found.starts_with(line)), "`{line}` is not in:\n{table}");
    }
    assert_eq!(stderr(&output), "");

    // Moved along the symmetry the weights are others, and every image is as before.
    let result = json(&qlnet.compare(&a, &moved, &["--json"]));
    let names: Vec<_> = result["differences"].as_array().unwrap().iter().map(|found| found["name"].clone()).collect();
    assert_eq!(names, ["weights"]);
    assert_eq!((&result["same_prediction"], &result["top1"]["mcnemar_p"]), (&360.into(), &1.0.into()));
    assert!(result["largest_change"]["exact"].is_boolean());

    // The same twice: allowed, and said.
    let output = qlnet.compare(&a, &a, &["--json"]);
    assert!(stderr(&output).contains("same weights, options and images"), "{}", stderr(&output));
    let result = json(&output);
    assert_eq!((&result["largest_change"], &result["differences"]), (&Value::Null, &Value::Array(vec![])));
}

/// A folder per class, an archive, a flat folder with other names around the number, and any other order.
#[test]
fn rows_are_matched_by_names_where_paths_differ() {
    let qlnet = Qlnet::new();
    let resized = ["--resize", "80"];
    let a = qlnet.predictions("a.jsonl", Path::new(HELD_OUT), &[]);
    let b = qlnet.predictions("b.jsonl", Path::new(HELD_OUT), &resized);
    let expected = json(&qlnet.compare(&a, &b, &["--json"]));
    let fields = ["images", "top1", "top5", "same_prediction", "classes"];

    // All in one folder, so that neither paths nor their order are the same.
    let (folders, flat) = (qlnet.unpacked("folders"), qlnet.path("flat"));
    fs::create_dir(&flat).unwrap();
    let mut names = Vec::new();
    for row in lines(&a) {
        let path = row["path"].as_str().unwrap();
        let name = path.rsplit('/').next().unwrap();
        fs::rename(folders.join(path), flat.join(name)).unwrap();
        names.push(format!("{name},{}\n", row["label"]));
    }
    let labels = qlnet.file("labels.csv", names.concat().as_bytes());
    let flat = qlnet.predictions("flat.csv", &flat, &[&["--labels", labels.to_str().unwrap()], &resized[..]].concat());
    assert!(!rows(&flat)[0]["path"].contains('/'));
    let result = json(&qlnet.compare(&a, &flat, &["--json"]));
    for field in fields {
        assert_eq!(result[field], expected[field], "{field}");
    }
    let image = &result["only_a_images"][0];
    let name = |field: &str| image[field].as_str().unwrap().rsplit('/').next().unwrap();
    assert!(image["path"] != image["path_b"] && name("path") == name("path_b"), "{image}");

    let mut reordered = lines(&b);
    reordered.reverse();
    let reordered = qlnet.of_rows("reordered.jsonl", &reordered);
    // As the hub names ImageNet's images, and as others do.
    let renamed = |name: &str, file: &Path, form: fn(usize) -> String| {
        let mut rows = lines(file);
        rows.iter_mut().enumerate().for_each(|(image, row)| row["path"] = form(image).into());
        rows.sort_by_key(|row| row["path"].to_string());
        qlnet.of_rows(name, &rows)
    };
    let imagenet = renamed("imagenet.jsonl", &a, |image| format!("n{:03}/ILSVRC2012_val_{image:08}.JPEG", 999 - image));
    let hub = renamed("hub.jsonl", &b, |image| format!("x.tar/ILSVRC2012_val_{image:08}_n{image:03}.JPEG"));
    for files in [[&a, &reordered], [&imagenet, &hub]] {
        let result = json(&qlnet.compare(files[0], files[1], &["--json"]));
        for field in fields {
            assert_eq!(result[field], expected[field], "{field}");
        }
    }
}

#[test]
fn what_cannot_be_compared_is_one_error() {
    let qlnet = Qlnet::new();
    let a = qlnet.predictions("a.jsonl", Path::new(HELD_OUT), &[]);
    let all = lines(&a);
    let error = |b: &Path, parts: &[&str]| assert_error(&qlnet.compare(&a, b, &[]), parts);

    error(
        &qlnet.of_rows("fewer.jsonl", &all[..358]),
        &["a.jsonl has 9/", "and 1 more images that", "fewer.jsonl lacks"],
    );
    let mut rows = all.clone();
    rows[5]["path"] = "5/another.png".into();
    error(&qlnet.of_rows("other.jsonl", &rows), &["other.jsonl lacks, and ", "other.jsonl has 5/another.png that"]);
    rows[6]["path"] = "6/another.jpg".into();
    error(&qlnet.of_rows("twice.jsonl", &rows), &["has both 5/another.png and 6/another.jpg", "names alone"]);
    let mut rows = all.clone();
    // An image that is wrong in its first five, so that its row can be of another label.
    rows[7]["label"] = rows[7]["top2"].clone();
    rows[7]["rank"] = 2.into();
    let path = rows[7]["path"].as_str().unwrap().to_string();
    error(&qlnet.of_rows("labels.jsonl", &rows), &[&path, "label 0 in", "labels.jsonl", "same labels"]);
    let mut rows = all.clone();
    rows[0]["run"] = rows[0]["run"].as_str().unwrap().replace("\"classes\":10", "\"classes\":11").into();
    error(&qlnet.of_rows("classes.jsonl", &rows), &["is of 10 classes", "classes.jsonl of 11"]);
    let changed = fs::read_to_string(&a).unwrap().replacen("\"path\":\"1/0", "\"path\":\"1/9", 1);
    error(&qlnet.file("changed.jsonl", changed.as_bytes()), &["changed.jsonl: the rows are not those"]);

    // Not complete, a shard, or nothing at all.
    let text = fs::read_to_string(&a).unwrap();
    qlnet.file("part.jsonl.partial", &text.as_bytes()[..text.len() / 2]);
    error(&qlnet.path("part.jsonl"), &["part.jsonl is not complete", "--resume"]);
    error(&qlnet.path("part.jsonl.partial"), &["gap", "part.jsonl.partial has", "of 360 images"]);
    let shard = qlnet.predictions("shard.csv", Path::new(HELD_OUT), &["--shard", "1/3"]);
    error(&shard, &["shard.csv is shard 1/3 of its run", "--merge"]);
    error(&qlnet.path("missing.csv"), &["cannot read", "missing.csv"]);
    error(&qlnet.file("notes.txt", b"notes"), &["notes.txt", ".csv or .jsonl"]);
    let errors = |label: &Value, path: &Value| serde_json::json!({"path": path, "label": label, "error": "cut short"});
    let mut rows: Vec<Value> = all.iter().map(|row| errors(&row["label"], &row["path"])).collect();
    rows[0]["run"] = all[0]["run"].clone();
    error(&qlnet.of_rows("errors.jsonl", &rows), &["no image has scores in both"]);

    // The library says which.
    let part = Comparison::open(&a, &shard).unwrap_err();
    assert!(matches!(part, Error::Predictions { problem: PredictionsProblem::Part, .. }), "{part:?}");
    let unlike = Comparison::open(&qlnet.path("fewer.jsonl"), &a).unwrap_err();
    assert!(matches!(unlike, Error::Predictions { problem: PredictionsProblem::Unlike, .. }), "{unlike:?}");
}

#[test]
fn what_is_evaluated_is_not_compared() {
    let qlnet = Qlnet::new();
    let a = qlnet.predictions("a.csv", Path::new(HELD_OUT), &["--limit", "5"]);
    let name = a.to_str().unwrap();
    for args in [
        &["--compare", name][..],
        &["--compare", name, name, "--merge", name],
        &["--compare", name, name, "--predictions", "p.csv"],
        &["--compare", name, name, "--limit", "3"],
        &["--compare", name, name, "--model", "qlnet-digits"],
        &["--compare", name, name, "--labels", name],
    ] {
        assert_eq!(qlnet.run(&[&["eval"], args].concat()).status.code(), Some(2), "{args:?}");
    }
    assert_error(&qlnet.compare(&a, &a, &["--imagenet-val", HELD_OUT]), &["--report"]);
    // A third name is that of the images.
    assert_error(&qlnet.compare(&a, &a, &[name]), &["--report"]);
    assert_error(&qlnet.compare(&a, &a, &["--report", "r.pdf"]), &["r.pdf", ".html"]);
}

#[test]
fn images_without_scores_are_left_out_of_both() {
    let qlnet = Qlnet::new();
    let a = qlnet.predictions("a.jsonl", Path::new(HELD_OUT), &[]);
    let with_errors = |name: &str, places: &[usize]| {
        let mut rows = lines(&a);
        for &place in places {
            let row = &rows[place];
            rows[place] = serde_json::json!({"path": row["path"], "label": row["label"], "error": "cut short"});
        }
        qlnet.of_rows(name, &rows)
    };
    let (one, other) = (with_errors("one.jsonl", &[3, 40]), with_errors("other.jsonl", &[40, 50, 60]));
    let output = qlnet.compare(&one, &other, &["--json"]);
    assert!(stderr(&output).contains("4 of 360 images have no scores"), "{}", stderr(&output));
    let result = json(&output);
    assert_eq!((&result["images"], &result["left_out"]), (&356.into(), &4.into()));
    assert_eq!((&result["a"]["errors"], &result["b"]["errors"]), (&2.into(), &3.into()));
    assert_eq!(result["a"]["top1"], result["b"]["top1"]);
    assert!(stdout(&qlnet.compare(&one, &other, &[])).contains("left out           4\n"));
}

#[test]
fn the_report_shows_what_only_one_gets_right() {
    let qlnet = Qlnet::new();
    // Windows has no such names, but with the ampersand.
    let bad = if cfg!(windows) { "b&c" } else { "<b>&" };
    let folders = qlnet.unpacked("folders");
    for path in fs::read_dir(folders.join("7")).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>() {
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::rename(&path, folders.join("7").join(format!("{bad}{name}"))).unwrap();
    }
    let a = qlnet.predictions("a & a.csv", &folders, &[]);
    // Large enough that most digits are cut, and many are taken for others.
    let b = qlnet.predictions("b.csv", &folders, &["--resize", "130"]);
    let (report, without) = (qlnet.path("report.html"), qlnet.path("without.html"));
    let [report_name, without_name] = [&report, &without].map(|path| path.to_str().unwrap());
    let images = ["--imagenet-val", folders.to_str().unwrap()];
    let output = qlnet.compare(&a, &b, &[&["--json", "--report", report_name][..], &images].concat());
    assert_eq!(stderr(&output), "");
    let result = json(&output);
    let html = fs::read_to_string(&report).unwrap();
    for section in ["What differs", "Which images", "Classes that moved", "Only A is right", "How they were measured"] {
        assert!(html.contains(&format!("<h2>{section}</h2>")), "{section}");
    }
    let only_a = result["top1"]["only_a"].as_u64().unwrap();
    assert!(only_a > KEPT as u64, "{only_a}");
    assert!(html.contains(&format!("The 60 of {only_a} images of which A is surest.")));
    assert_eq!(result["only_a_images"].as_array().unwrap().len(), KEPT);
    let shown = 60 + result["only_b_images"].as_array().unwrap().len();
    assert_eq!(html.matches("<img ").count(), shown);
    assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), shown);
    assert!(
        html.contains("prefers-color-scheme: dark") && html.matches("<script").count() == 1 && !html.contains("http")
    );
    assert!(html.contains("a &#38; a.csv") && !html.contains("a & a.csv") && !html.contains(bad));
    for element in ["div", "section", "figure", "table", "tr", "td", "details"] {
        let (opened, closed) = (format!("<{element}"), format!("</{element}>"));
        let opened =
            html.match_indices(&opened).filter(|(at, _)| !html[at + opened.len()..].starts_with(char::is_alphabetic));
        assert_eq!(opened.count(), html.matches(&closed).count(), "{element}");
    }

    assert!(html.contains("--compare") && html.contains("UTC"));
    let script = r#"
        const table = document.querySelector("table.sortable");
        const cells = column => [...table.tBodies[0].rows].map(row => row.cells[column].textContent);
        table.tHead.rows[0].cells[5].querySelector("button").click();
        const original = new Image();
        original.src = document.querySelector("figure a").href;
        await original.decode();
        return [cells(0), cells(5), original.naturalWidth];
    "#;
    if let Some(found) = in_browser(&report, 400, script) {
        let mut moved: Vec<(f64, String)> = result["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|class| {
                let by = (class["only_b"].as_f64().unwrap() - class["only_a"].as_f64().unwrap())
                    / class["images"].as_f64().unwrap();
                (by, class["index"].to_string())
            })
            .collect();
        moved.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let [indices, points]: [Vec<String>; 2] =
            [0, 1].map(|column| serde_json::from_value(found[column].clone()).unwrap());
        assert_eq!(indices, moved.iter().map(|(_, index)| index.clone()).collect::<Vec<_>>());
        assert_eq!(points, moved.iter().map(|(by, _)| format!("{:+.2}", 100.0 * by)).collect::<Vec<_>>());
        assert!(found[2].as_u64().unwrap() > 0);
    }

    let output = qlnet.compare(&a, &b, &["--report", without_name]);
    assert!(stderr(&output).contains("no pictures; name the images too, with --imagenet-val"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&without).unwrap().matches("no picture<").count(), shown);
    let output = qlnet.compare(&a, &b, &["--report", without_name, "--imagenet-val", HELD_OUT]);
    assert!(stderr(&output).contains("does not hold all images"), "{}", stderr(&output));
    let nowhere = qlnet.path("nowhere/report.html");
    assert_error(&qlnet.compare(&a, &b, &["--report", nowhere.to_str().unwrap()]), &["cannot write"]);
}
