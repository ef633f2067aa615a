//! `qlnet eval` as a user runs it: scores, the table, and the files that are written at the end.
#![cfg_attr(not(unix), allow(unused_mut, reason = "some parts are for Unix alone"))]

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;

use eval_support::{HELD_OUT, held_out, json, messages, rows};
use qlnet::Classifier;
use qlnet::eval::dataset::{Classes, Dataset, LabelFiles, Listing, Selection};
use qlnet::eval::{Pipeline, evaluate};
use qlnet::{DatasetProblem, Error};
use serde_json::Value;
use support::browser::in_browser;
use support::program::{Qlnet, assert_error, not_found, stderr, stdout};
use support::{fixture, reference_dir};

#[test]
fn the_held_out_digits_score_as_in_pytorch() {
    let qlnet = Qlnet::new();
    let file = qlnet.path("p.csv");
    let output = qlnet.eval(Path::new(HELD_OUT), &["--json", "--predictions", file.to_str().unwrap()]);
    let result = json(&output);
    assert_eq!(messages(&output), "");
    assert_eq!((result["images"].as_u64(), result["errors"].as_u64()), (Some(360), Some(0)));
    assert_eq!((result["top1"].as_f64(), result["top5"].as_f64()), (Some(357.0 / 360.0), Some(1.0)));
    assert!(result["images_per_second"].as_f64().unwrap() > 0.0);
    let (found, expected) = (rows(&file), rows(&fixture("digits-held-out.csv")));
    assert_eq!((found.len(), expected.len()), (360, 360));
    let mut loss = 0.0;
    for (found, expected) in found.iter().zip(&expected) {
        for column in ["path", "label", "top1", "top2", "top3", "top4", "top5", "rank"] {
            assert_eq!(found[column], expected[column], "{column} of {}", found["path"]);
        }
        for column in ["p1", "p2", "p3", "p4", "p5", "loss"] {
            let number = |row: &HashMap<String, String>| row[column].parse::<f64>().unwrap();
            let (found, expected) = (number(found), number(expected));
            assert!((found - expected).abs() <= 2e-6 + 1e-5 * expected.abs(), "{column}: {found} {expected}");
        }
        loss += expected["loss"].parse::<f64>().unwrap() / 360.0;
    }
    assert!((result["loss"].as_f64().unwrap() - loss).abs() < 1e-6);
}

#[test]
fn fewer_bits_change_at_most_one_answer_of_360() {
    let expected = rows(&fixture("digits-held-out.csv"));
    for dtype in ["bf16", "int8"] {
        let qlnet = Qlnet::new();
        let file = qlnet.path("p.csv");
        let output =
            qlnet.eval(Path::new(HELD_OUT), &["--json", "--dtype", dtype, "--predictions", file.to_str().unwrap()]);
        assert_eq!(json(&output)["dtype"], dtype);
        let found = rows(&file);
        assert_eq!(found.len(), expected.len());
        let other = found.iter().zip(&expected).filter(|(found, expected)| found["top1"] != expected["top1"]).count();
        let same = found.iter().zip(&expected).filter(|(found, expected)| found["loss"] == expected["loss"]).count();
        assert!(other <= 1, "{dtype}: {other} other answers");
        assert!(same < 10, "{dtype}: {same} of 360 images have the same loss, so nothing was rounded");
    }
}

/// The twelve digits among the reference images, in a full-size network with ImageNet's classes.
#[test]
fn reference_images_score_as_in_pytorch() {
    let Some(reference) = reference_dir() else { return };
    let expected: Value = serde_json::from_slice(&fs::read(reference.join("expected.json")).unwrap()).unwrap();
    let qlnet = Qlnet::new();
    let dir = qlnet.path("val");
    for entry in fs::read_dir(reference.join("images")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some((wnid, _)) = name.split_once("_ILSVRC") {
            fs::create_dir_all(dir.join(wnid)).unwrap();
            fs::copy(&path, dir.join(wnid).join(name)).unwrap();
        }
    }
    let (weights, file) = (reference.join("qlnet-50-v0.digits.pth.tar"), qlnet.path("p.jsonl"));
    let [data, weights, predictions] = [&dir, &weights, &file].map(|path| path.to_str().unwrap());
    let args = ["eval", "--imagenet-val", data, "--weights", weights, "--predictions", predictions, "--json"];
    let result = json(&qlnet.run(&args));
    assert_eq!(result["images"], 12);
    let mut right = 0;
    for line in fs::read_to_string(&file).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let name = row["path"].as_str().unwrap().rsplit('/').next().unwrap();
        let mut images = expected["images"].as_array().unwrap().iter();
        let image = images.find(|image| image["image"].as_str().unwrap().ends_with(name)).unwrap();
        let logits: Vec<f64> = image["logits"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        let label = row["label"].as_u64().unwrap() as usize;
        let rank = 1 + logits.iter().filter(|logit| **logit > logits[label]).count() as u64;
        assert_eq!(row["rank"], rank, "{name}");
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let top = row["top1"].as_u64().unwrap() as usize;
        assert!(logits.iter().all(|logit| *logit <= logits[top]), "{name}");
        assert!((row["p1"].as_f64().unwrap() - logits[top].exp() / sum).abs() < 2e-3, "{name}");
        right += u64::from(rank == 1);
    }
    assert_eq!(result["top1"], right as f64 / 12.0);
}

#[test]
fn real_labels_accept_several_answers() {
    let qlnet = Qlnet::new();
    let (flat, labels) = qlnet.flat("flat", 20);
    fs::write(flat.join("labels.txt"), labels.iter().map(|label| format!("{label}\n")).collect::<String>()).unwrap();
    // The first image shows nothing that anybody agrees on, the second something else.
    let mut lists: Vec<Vec<u32>> = labels.iter().map(|label| vec![(label + 1) % 10, *label]).collect();
    lists[0].clear();
    lists[1] = vec![(labels[1] + 1) % 10];
    let real = qlnet.file("real.json", serde_json::to_string(&lists).unwrap().as_bytes());
    let result = json(&qlnet.eval(&flat, &["--json", "--real-labels", real.to_str().unwrap()]));
    assert_eq!((&result["top1"], &result["real_images"]), (&Value::from(1.0), &Value::from(19)));
    assert_eq!(result["real"], 18.0 / 19.0);
    let table = stdout(&qlnet.eval(&flat, &["--real-labels", real.to_str().unwrap()]));
    assert!(table.contains("ReaL top-1         94.74 %") && table.contains("of 19 images"), "{table}");

    // Of the second image, another answer may be among the five most likely.
    let rows = qlnet.home.path().join("rows.jsonl");
    let args = ["--json", "--real-labels", real.to_str().unwrap(), "--predictions", rows.to_str().unwrap()];
    let result = json(&qlnet.eval(&flat, &args));
    let rows = fs::read_to_string(rows).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let near = rows
        .zip(&lists)
        .filter(|(row, list)| (1..=5).any(|place| list.iter().any(|class| row[format!("top{place}")] == *class)));
    let near = near.count();
    assert!((18..=19).contains(&near));
    assert_eq!(result["real_top5"], near as f64 / 19.0);
    assert!(table.contains(&format!("ReaL top-5         {:.2} %", 100.0 * near as f64 / 19.0)), "{table}");
}

#[test]
fn a_part_is_chosen_by_number_or_by_seed() {
    let qlnet = Qlnet::new();
    let archive = held_out();
    let select = |selection| -> Vec<String> {
        let classes = Classes::new(&qlnet::weights::find("qlnet-digits").unwrap().labels());
        let dataset =
            Dataset::new(Listing::new(&archive).unwrap(), &classes, LabelFiles::default()).unwrap().select(selection);
        assert!(
            (0..dataset.images()).all(|image| dataset.path(image)[..1] == dataset.label(image).unwrap().to_string())
        );
        dataset.listing().paths().map(str::to_string).collect()
    };
    let all = select(Selection::All);
    assert_eq!(select(Selection::First(7)), all[..7]);
    let random = |count, seed| select(Selection::Random { count, seed });
    assert_eq!(random(20, 1), random(20, 1));
    assert_ne!(random(20, 1), random(20, 2));
    assert_eq!(random(1000, 1), all);
    assert!(random(20, 1).is_sorted() && random(20, 1).len() == 20);
    // Every image is drawn with the same probability: 360 draws of a tenth each, of 36.
    let mut drawn = HashMap::<String, u32>::new();
    (0..360).flat_map(|seed| random(36, seed)).for_each(|path| *drawn.entry(path).or_default() += 1);
    assert!(all.iter().all(|path| (10..=70).contains(&drawn[path])));

    let sample = ["--sample", "50", "--seed", "3"];
    let result = json(&qlnet.eval(&archive, &[&["--json"], &sample[..]].concat()));
    assert_eq!((&result["images"], &result["complete"]), (&Value::from(50), &Value::from(true)));
    assert_eq!(result["selection"]["random"]["seed"], 3);
    let table = stdout(&qlnet.eval(&archive, &[&["--shard", "2/2"], &sample[..]].concat()));
    assert!(table.starts_with("images             25   50 at random, seed 3, shard 2/2"), "{table}");
}

#[test]
fn unreadable_images_are_counted_and_named() {
    let qlnet = Qlnet::new();
    let folders = qlnet.unpacked("folders");
    let bad = |name: &str| folders.join("4").join(name);
    fs::write(bad("a-empty.png"), b"").unwrap();
    fs::write(bad("b-text.JPEG"), b"<html>not found</html>").unwrap();
    fs::create_dir(bad("c-directory.png")).unwrap();
    let sample = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/digits/4-24.png")).unwrap();
    fs::write(bad("d-cut.png"), &sample[..sample.len() / 2]).unwrap();
    let mut names = vec!["a-empty", "b-text", "c-directory", "d-cut"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere.png", bad("e-link.png")).unwrap();
        names.push("e-link");
    }
    let count = names.len();
    let file = qlnet.path("p.csv");
    let args = ["--json", "--predictions", file.to_str().unwrap()];
    let output = qlnet.eval(&folders, &args);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&result["images"], &result["errors"]), (&Value::from(360), &Value::from(count)));
    assert_eq!(result["top1"], 357.0 / 360.0);
    let message = messages(&output);
    assert_eq!(message.lines().count(), count + 1, "{message}");
    for (name, unreadable) in names.iter().zip(result["failed"].as_array().unwrap()) {
        assert!(message.contains(&format!("error: 4/{name}")), "{name}: {message}");
        assert!(
            unreadable["path"].as_str().unwrap().contains(name) && !unreadable["error"].as_str().unwrap().is_empty()
        );
    }
    assert!(message.contains(&format!("{count} of {} images could not be read", 360 + count)), "{message}");
    let (bad, good): (Vec<_>, Vec<_>) = rows(&file).into_iter().partition(|row| !row["error"].is_empty());
    assert_eq!((bad.len(), good.len()), (count, 360));
    assert!(bad.iter().all(|row| row["top1"].is_empty() && row["loss"].is_empty()));

    let accepted = qlnet.eval(&folders, &[&args[..], &["--skip-errors"]].concat());
    assert_eq!(json(&accepted)["errors"], count);
    // They stay errors in what is resumed or merged.
    let resumed = qlnet.eval(&folders, &["--json", "--resume", file.to_str().unwrap()]);
    assert_eq!(resumed.status.code(), Some(1));
    let merged = qlnet.run(&["eval", "--merge", file.to_str().unwrap(), "--skip-errors", "--json"]);
    assert_eq!(json(&merged)["failed"], result["failed"]);

    fs::remove_dir_all(&folders).unwrap();
    fs::create_dir_all(folders.join("1")).unwrap();
    fs::write(folders.join("1/x.png"), b"no image").unwrap();
    let output = qlnet.eval(&folders, &["--skip-errors"]);
    assert_eq!(output.status.code(), Some(1), "nothing was scored");
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let qlnet = Qlnet::new();
    let eval = |args: &[&str]| qlnet.eval(Path::new(HELD_OUT), args);
    assert_error(&eval(&["--predictions", "p.txt"]), &["p.txt", ".csv or .jsonl"]);
    assert_error(&eval(&["--per-class", "p.txt"]), &["p.txt", ".csv"]);
    assert_error(&eval(&["--report", "p.pdf"]), &["p.pdf", ".html"]);
    let one = qlnet.path("one.csv").to_str().unwrap().to_string();
    assert_error(&eval(&["--predictions", &one, "--per-class", &one]), &["would be written over", "another name"]);
    assert_error(&eval(&["--labels", &one, "--predictions", &one]), &["would be written over"]);
    let directory = qlnet.path("directory.csv");
    fs::create_dir(&directory).unwrap();
    fs::create_dir(qlnet.path("directory.html")).unwrap();
    for option in ["--predictions", "--per-class", "--report"] {
        let extension = if option == "--report" { "html" } else { "csv" };
        let directory = directory.with_extension(extension);
        let nowhere = qlnet.path("nowhere").join("p").with_extension(extension);
        let nowhere = nowhere.to_str().unwrap();
        assert_error(&eval(&[option, nowhere]), &[&format!("cannot write {nowhere}"), &not_found(nowhere)]);
        assert_error(&eval(&[option, directory.to_str().unwrap()]), &["directory.", "it is a directory"]);
    }
    assert!(qlnet.files().iter().all(|name| name == "cache" || name.starts_with("directory.")), "{:?}", qlnet.files());
}

#[test]
fn the_report_needs_nothing_else() {
    let qlnet = Qlnet::new();
    // Windows has no such names, but with the ampersand.
    let [more, bad] = if cfg!(windows) { ["more", "b&.png"] } else { ["<more>", "<b>&.png"] };
    let folders = qlnet.unpacked(&format!("folders & {more}"));
    fs::write(folders.join("3").join(bad), b"").unwrap();
    // Mistakes enough to show: half of the sevens are labelled as ones.
    for path in fs::read_dir(folders.join("7")).unwrap().map(|entry| entry.unwrap().path()).step_by(2) {
        fs::rename(&path, folders.join("1").join(path.file_name().unwrap())).unwrap();
    }
    let (report, per_class, file) = (qlnet.path("report.html"), qlnet.path("classes.csv"), qlnet.path("p.csv"));
    let [report_name, per_class_name, file_name] = [&report, &per_class, &file].map(|path| path.to_str().unwrap());
    let outputs = ["--report", report_name, "--per-class", per_class_name, "--predictions", file_name, "--skip-errors"];
    let result = json(&qlnet.eval(&folders, &[&outputs[..], &["--json"]].concat()));
    let html = fs::read_to_string(&report).unwrap();
    for section in [
        "Accuracy per class",
        "Confusion matrix",
        "Calibration",
        "Most confused",
        "Most confident mistakes",
        "Images without scores",
        "How it was measured",
    ] {
        assert!(html.contains(&format!("<h2>{section}</h2>")), "{section}");
    }
    assert!(html.contains("prefers-color-scheme: dark"));
    assert!(html.contains(&format!("{:.2} %", 100.0 * result["top1"].as_f64().unwrap())));
    let escaped = |text: &str| text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;");
    assert!(html.contains(&escaped(&format!("folders & {more}"))) && html.contains(&escaped(&format!("3/{bad}"))));
    assert!(!html.contains(bad) && html.matches("<script").count() == 3 && !html.contains("http"));
    let pictures = html.matches("<img ").count();
    assert_eq!(pictures, html.matches("src=\"data:image/jpeg;base64,").count());
    assert!(pictures > 10, "{pictures}");
    assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
    assert_eq!(html.matches("<section").count(), html.matches("</section>").count());
    for fact in ["qlnet eval --imagenet-val", "UTC", "images per second", "compute", "decode"] {
        assert!(html.contains(fact), "{fact}");
    }

    let classes = rows(&per_class);
    assert_eq!(classes.len(), 10);
    assert_eq!((&*classes[1]["confused_with"], &*classes[1]["confused_with_label"]), ("7", "7"));
    let number = |class: &HashMap<String, String>, column: &str| class[column].parse::<f64>().unwrap();
    let right: f64 = classes.iter().map(|class| number(class, "top1") * number(class, "images")).sum();
    assert!((right / 360.0 - result["top1"].as_f64().unwrap()).abs() < 1e-9);
    // Precision and F1 by their definition, from the predictions.
    let scored: Vec<_> = rows(&file).into_iter().filter(|row| row["error"].is_empty()).collect();
    for (index, class) in classes.iter().enumerate() {
        let count = |of: &dyn Fn(&HashMap<String, String>) -> bool| scored.iter().filter(|row| of(row)).count() as f64;
        let index = index.to_string();
        let [found, shown] = [count(&|row| row["top1"] == index), count(&|row| row["label"] == index)];
        let right = count(&|row| row["top1"] == index && row["label"] == index);
        let (precision, recall) = (right / found, right / shown);
        assert_eq!(number(class, "predicted"), found);
        assert!((number(class, "precision") - precision).abs() < 1e-12, "{class:?}");
        assert!((number(class, "f1") - 2.0 * precision * recall / (precision + recall)).abs() < 1e-12, "{class:?}");
        assert!(number(class, "top1_low") < recall && recall <= number(class, "top1_high"), "{class:?}");
    }

    // From the predictions alone, with the images where they are given. Only how it came about is another.
    let [again, without] = ["again.html", "without.html"].map(|name| qlnet.path(name));
    let merge = ["eval", "--skip-errors", "--merge", file_name, "--report"];
    let images = ["--imagenet-val", folders.to_str().unwrap()];
    let output = qlnet.run(&[&merge[..], &[again.to_str().unwrap()], &images[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let parts = |html: &str| {
        let (before, rest) = html.split_once("<h2>How it was measured</h2>").unwrap();
        let (facts, after) = rest.split_once("</section>").unwrap();
        [before, facts, after].map(str::to_string)
    };
    let [[before, _, after], [before_again, facts, after_again]] =
        [parts(&html), parts(&fs::read_to_string(&again).unwrap())];
    assert!(before == before_again && after == after_again);
    assert!(facts.contains("--merge") && !facts.contains("images per second"), "{facts}");
    qlnet.run(&[&merge[..], &[without.to_str().unwrap()]].concat());
    assert!(fs::read_to_string(&without).unwrap().contains("no picture"));
}

#[test]
fn the_report_is_of_the_users_weights() {
    let qlnet = Qlnet::new();
    let (weights, report, file) = (qlnet.path("my weights.safetensors"), qlnet.path("r.html"), qlnet.path("p.jsonl"));
    fs::copy("models/qlnet-digits.safetensors", &weights).unwrap();
    let [weights, report, file] = [&weights, &report, &file].map(|path| path.to_str().unwrap());
    let result = json(&qlnet.eval(
        Path::new(HELD_OUT),
        &["--json", "--weights", weights, "--report", report, "--predictions", file, "--limit", "40"],
    ));
    assert_eq!(result["weights_file"], weights);
    let of_images = || fs::read_to_string(report).unwrap();
    assert!(of_images().contains("<title>my weights.safetensors on digits-held-out.tar</title>"));
    assert!(of_images().contains(&format!("{weights}, SHA-256")) && !of_images().contains("file:"));
    // What is known of a run that was made before is said too.
    assert_eq!(qlnet.run(&["eval", "--merge", file, "--report", report]).status.code(), Some(0));
    assert!(of_images().contains("<title>my weights.safetensors on p.jsonl</title>"));
    // Another name of the same weights does not make another run.
    let own = ["--resume", file, "--limit", "40"];
    assert_eq!(qlnet.eval(Path::new(HELD_OUT), &own).status.code(), Some(0));
}

/// What a person does with the page, by mouse and by keyboard.
const TOUR: &str = r#"
    const found = {};
    // The event that follows what is done: the page's own listeners have heard it when it is here.
    const after = (target, name, act) => new Promise(resolve => {
        target.addEventListener(name, resolve, { once: true });
        act();
    });
    const table = document.querySelector("table.sortable"), says = document.getElementById("matrix-says");
    const headings = [...table.tHead.rows[0].cells];
    const column = name => headings.findIndex(heading => heading.textContent.startsWith(name));
    const cells = name => [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[column(name)].textContent);
    const click = name => headings[column(name)].querySelector("button").click();
    click("F1"); found.falling = cells("F1");
    click("F1"); found.rising = cells("F1");
    click("index"); click("index"); found.indices = cells("index");
    const form = document.querySelector("form.sieve");
    const type = (place, text) => {
        form.elements[place].value = text;
        form.dispatchEvent(new Event("input"));
        return [cells("index"), form.querySelector("output").textContent];
    };
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true }));
    found.focused = document.activeElement === form.elements[0];
    found.nowhere = type(0, "no such words");
    type(0, "");
    found.searched = type(0, `${cells("F1")[1].split(" ")[0]} %`);
    form.elements[0].value = "";
    form.elements[1].value = column("top-1");
    found.filtered = type(3, "95");
    form.reset(); type(0, "");

    const canvas = document.getElementById("matrix"), box = canvas.getBoundingClientRect();
    const key = (key, shiftKey = false) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey }));
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 3, clientY: box.bottom - 3 }));
    found.corner = says.textContent;
    ["ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft"].forEach(name => key(name));
    found.cell = says.textContent;
    ["+", "+", "-", "0"].forEach(name => key(name));
    const context = canvas.getContext("2d");
    found.colours = new Set(context.getImageData(0, 0, canvas.width, canvas.height).data).size;
    await after(window, "hashchange", () => key("Enter"));
    const dialog = document.getElementById("class");
    found.open = dialog.open && location.hash;
    found.text = dialog.textContent;
    const links = [...dialog.querySelectorAll("a:has(img)")];
    found.links = links.map(link => link.getAttribute("href"));
    const original = new Image();
    original.src = links[0].href;
    await original.decode();
    found.width = original.naturalWidth;
    await after(window, "hashchange", () => dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })));
    found.next = location.hash;
    await after(dialog, "close", () => dialog.close());
    found.closed = !dialog.open && location.hash === "";
    found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    return found;
"#;

#[test]
fn the_report_is_worked_with_in_a_browser() {
    let qlnet = Qlnet::new();
    let folders = qlnet.unpacked("images & more");
    for path in fs::read_dir(folders.join("7")).unwrap().map(|entry| entry.unwrap().path()).step_by(2) {
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::rename(&path, folders.join("1").join(format!("#{name}"))).unwrap();
    }
    let (report, per_class) = (qlnet.path("report.html"), qlnet.path("classes.csv"));
    let files = ["--report", report.to_str().unwrap(), "--per-class", per_class.to_str().unwrap()];
    assert_eq!(qlnet.eval(&folders, &files).status.code(), Some(0));
    let classes = rows(&per_class);
    let Some(found) = in_browser(&report, 400, TOUR) else { return };
    let shown = |name: &str| -> Vec<String> { serde_json::from_value(found[name].clone()).unwrap() };
    let mut f1: Vec<f64> = classes.iter().map(|class| class["f1"].parse().unwrap()).collect();
    f1.sort_by(f64::total_cmp);
    let words: Vec<_> = f1.iter().map(|f1| format!("{:.2} %", 100.0 * f1)).collect();
    assert_eq!(shown("rising"), words);
    assert_eq!(shown("falling"), words.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(shown("indices"), (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
    assert_eq!(found["focused"], true);
    // Its F1 is like no other number on the page.
    assert_eq!(found["nowhere"], serde_json::json!([[], "0 of 10 classes"]));
    assert_eq!(found["searched"], serde_json::json!([["1"], "1 of 10 classes"]));
    let hard = classes.iter().filter(|class| class["top1"].parse::<f64>().unwrap() <= 0.95).count();
    assert_eq!(found["filtered"][1], format!("{hard} of 10 classes"));
    assert!(hard > 0 && hard < 10);
    let nine = &classes[9];
    let right = (nine["top1"].parse::<f64>().unwrap() * nine["images"].parse::<f64>().unwrap()).round();
    assert!(found["corner"].as_str().unwrap().starts_with(&format!("9 found: {right} of {} images", nine["images"])));
    let taken = format!("1 taken for 7: {} of {} images", classes[1]["confused"], classes[1]["images"]);
    assert!(found["cell"].as_str().unwrap().starts_with(&taken), "{}, not {taken}", found["cell"]);
    assert!(found["colours"].as_u64().unwrap() > 20, "{}", found["colours"]);
    assert_eq!(
        (&found["open"], &found["next"], &found["closed"]),
        (&"#class-1".into(), &"#class-2".into(), &true.into())
    );
    let precision = format!("{:.2} %", 100.0 * classes[1]["precision"].parse::<f64>().unwrap());
    assert!(found["text"].as_str().unwrap().contains(&format!("precision{precision}")), "{}", found["text"]);
    assert!(shown("links").iter().any(|link| link.starts_with("./images%20%26%20more/1/%23")), "{}", found["links"]);
    assert_eq!(found["overflow"], 0, "it is as wide as the window");
    assert!(found["width"].as_u64().unwrap() > 0);
}

#[test]
fn the_table_says_what_was_measured() {
    let output = Qlnet::new().eval(Path::new(HELD_OUT), &[]);
    let table = stdout(&output);
    for line in [
        "images             360",
        "top-1              99.17 %   95 % interval 97.58 % to 99.72 %",
        "top-5              100.00 %   95 % interval 98.94 % to 100.00 %",
        "cross-entropy      0.0646",
        "model              qlnet-digits",
        "preprocessing      resize 64 bicubic, crop 64, JPEG by",
        "dtype              f32",
    ] {
        assert!(table.lines().any(|found| found.starts_with(line)), "`{line}` is not in:\n{table}");
    }
    assert!(table.contains("weights            SHA-256 ff1a0a63e48a6530"), "{table}");
}

/// The library, as a program calls it that has errors of its own.
#[test]
fn a_caller_may_stop_or_fail_and_match_errors() {
    #[derive(Debug)]
    enum Mine {
        Library(Error),
        EnoughSeen,
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Self::Library(error)
        }
    }

    let classifier = Classifier::from_model("qlnet-digits").unwrap();
    let classes = Classes::new(classifier.labels());
    let dataset = Dataset::new(Listing::new(&held_out()).unwrap(), &classes, LabelFiles::default()).unwrap();
    let pipeline = Pipeline { batch_size: 8, workers: 2, ..Pipeline::default() };

    let mut seen = 0;
    let stopped = evaluate(&classifier, &dataset, 0..dataset.images(), pipeline, |rows| {
        seen += rows.len();
        Ok::<_, Mine>(if seen < 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    assert!(stopped.is_ok() && seen == 24, "{stopped:?}, {seen} images");
    let failed = evaluate(&classifier, &dataset, 0..dataset.images(), pipeline, |_| Err(Mine::EnoughSeen));
    assert!(matches!(failed, Err(Mine::EnoughSeen)), "{failed:?}");
    let empty = Pipeline { batch_size: 0, ..pipeline };
    let refused = evaluate(&classifier, &dataset, 0..1, empty, |_| Ok::<_, Mine>(ControlFlow::Continue(())));
    assert!(matches!(refused, Err(Mine::Library(Error::Compute(_)))), "{refused:?}");

    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| Listing::new(path).err().unwrap();
    let missing = error(&dir.path().join("missing"));
    assert!(matches!(&missing, Error::Io { cause, .. } if cause.kind() == ErrorKind::NotFound), "{missing:?}");
    let empty = error(dir.path());
    assert!(matches!(empty, Error::Dataset { problem: DatasetProblem::NoImages, .. }), "{empty:?}");
}
