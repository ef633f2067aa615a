//! The report of `qlnet eval`: what is on the page, and what a browser makes of it.

#[path = "support/eval.rs"]
mod eval_support;
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use eval_support::{HELD_OUT, json, rows};
use support::browser::in_browser;
use support::program::{Qlnet, stderr};

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
