//! The page of `qlnet symmetry --report`: what is on it, and what a browser makes of it.

mod support;

use std::fs;

use serde_json::Value;
use support::browser::in_browser;
use support::program::{DIGITS, Qlnet, assert_error, records, stderr, stdout};
use support::reference_dir;

/// The most bytes of a page.
const MOST: usize = 3_000_000;

fn json(output: &std::process::Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Looks at every place of every path, for every picture, and reports what a person sees.
const LOOK: &str = r##"
    const get = id => document.getElementById(id);
    const until = async done => { for (let i = 0; i < 400 && !done(); i++) await new Promise(go => setTimeout(go, 20)); };
    const answers = section => [...get(section).querySelectorAll("tbody tr")].map(row =>
        [0, 2, 3].map(cell => row.cells[cell].textContent));
    const pixels = () => [...document.querySelectorAll("#plates canvas")].map(canvas => canvas.toDataURL());
    const move = (name, value) => { get(name).value = value; get(name).dispatchEvent(new Event("input")); };
    const seen = [];
    const blank = document.createElement("canvas").toDataURL();
    for (let walk = 0; walk < get("walk").options.length; walk++) {
        move("place", 0);
        get("walk").value = walk;
        get("walk").dispatchEvent(new Event("change"));
        const places = [];
        for (let place = 0; place <= Number(get("place").max); place++) {
            move("place", place);
            const pictures = [...document.querySelectorAll("#pictures input")].map(input => {
                input.click();
                return { whole: answers("whole"), half: answers("half"), verdict: get("whole").querySelector(".verdict").className };
            });
            places.push({ t: get("t").textContent, moved: get("weight-change").textContent, pictures });
        }
        // Of the part that is shown: all choose one that changes.
        await until(() => pixels().length && !pixels().includes(blank) && (move("place", 0), true));
        const start = pixels();
        move("place", get("place").max);
        await until(() => pixels().some((picture, index) => picture !== start[index]));
        const changed = pixels().filter((picture, index) => picture !== start[index]).length;
        seen.push({ family: get("walk").selectedOptions[0].text, places, plates: start.length, changed });
    }
    move("place", 1);
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    const right = get("t").textContent;
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
    const home = get("t").textContent;
    get("play").click();
    await until(() => get("t").textContent !== home);
    const playing = [get("play").textContent, get("t").textContent !== home];
    get("play").click();
    const wide = document.documentElement.scrollWidth - innerWidth;
    get("parts").querySelector("input").click();
    return {
        seen, decimals: JSON.parse(get("data").textContent).decimals, right, home, playing, stopped: get("play").textContent,
        part: get("parts").querySelector("input:checked").value, stem: document.querySelectorAll("#plates canvas").length,
        marks: document.querySelectorAll("#chart polyline").length, wide,
    };
"##;

/// What the page shows of answers of one image, in JSON.
fn as_shown(answers: &Value, decimals: usize) -> Value {
    let rows = list(answers).iter().map(|answer| {
        let (probability, logit) = (number(&answer["probability"]), number(&answer["logit"]));
        let label = answer["label"].as_str().unwrap();
        serde_json::json!([label, format!("{:.decimals$}", 100.0 * probability), format!("{logit:.decimals$}")])
    });
    rows.collect()
}

#[test]
fn the_page_shows_what_was_computed() {
    let qlnet = Qlnet::new();
    let page = qlnet.home.path().join("symmetry.html");
    let path = ["symmetry", "--path", "4", "--json", "--seed", "3", DIGITS[0], DIGITS[1]];
    let result = json(&qlnet.run(&[&path[..], &["--report", page.to_str().unwrap()]].concat()));
    let walks = list(&result["walks"]);
    let names: Vec<_> = walks.iter().map(|walk| walk["family"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "all together",
            "stage-rotation",
            "stem-scaling",
            "product-balance",
            "product-scale",
            "filter-mixing",
            "conv2-bias-shift",
            "stream-shift",
            "skip-bias-shift",
            "general-linear"
        ]
    );
    assert_eq!(
        (&result["passed"], &walks[0]["dimensions"], walks[0]["path"].as_array().unwrap().len()),
        (&true.into(), &5676.into(), 5)
    );
    assert!(walks.iter().all(|walk| walk["passed"] == true));
    // The answers at the start are those of the classifier.
    let images = ["samples/digits/3-45.png", "samples/digits/8-28.png"];
    let classified = records(&qlnet.run(&[&["classify", "--json", "-k", "5"], &images[..], &DIGITS].concat()));
    for (image, classified) in classified.iter().enumerate() {
        let found = list(&walks[0]["path"][0]["top"][image]);
        for (found, expected) in found.iter().zip(list(&classified["predictions"])) {
            assert_eq!(found["index"], expected["index"]);
            assert!(
                (number(&found["probability"]) - number(&expected["probability"])).abs() < 1e-6,
                "{found} {expected}"
            );
        }
    }
    // The paths are those without a page.
    for (walk, more) in [(0, &[][..]), (5, &["--family", "filter-mixing"])] {
        let alone = json(&qlnet.run(&[&path[..], more, &["--image"], &images].concat()));
        for (place, step) in list(&walks[walk]["path"]).iter().zip(list(&alone["path"])) {
            for field in ["t", "weight_change", "logit_change", "control_logit_change"] {
                assert_eq!(place[field], step[field], "{field} of {}", names[walk]);
            }
        }
    }
    for width in [1200, 400] {
        let Some(found) = in_browser(&page, width, LOOK) else { return };
        let decimals = found["decimals"].as_u64().unwrap() as usize;
        assert!((2..=4).contains(&decimals));
        for (walk, seen) in walks.iter().zip(list(&found["seen"])) {
            compare(walk, seen, decimals);
        }
        assert_eq!((&found["right"], &found["home"]), (&"t = 0.500".into(), &"t = 0.000".into()));
        assert_eq!((&found["playing"], &found["stopped"]), (&serde_json::json!(["Pause", true]), &"Play".into()));
        assert_eq!((&found["part"], &found["stem"], &found["marks"]), (&"stem".into(), &2.into(), &3.into()));
        assert!(number(&found["wide"]) <= 0.0, "it is wider than {width} pixels");
    }
}

/// A path on the page beside what was computed: the answers stand still, those of half of the move do not, and the
/// weights are seen to change.
fn compare(walk: &Value, seen: &Value, decimals: usize) {
    assert_eq!(seen["family"], walk["family"]);
    let family = walk["family"].as_str().unwrap();
    let places = list(&walk["path"]);
    assert_eq!(places.len(), list(&seen["places"]).len());
    let first = &seen["places"][0];
    for (place, seen) in places.iter().zip(list(&seen["places"])) {
        assert_eq!(seen["t"], format!("t = {:.3}", number(&place["t"])).as_str());
        assert_eq!(seen["moved"] == "0 %", number(&place["weight_change"]) == 0.0, "{seen}");
        for image in 0..2 {
            let shown = &seen["pictures"][image];
            assert_eq!(shown["whole"], as_shown(&place["top"][image], decimals), "{family}");
            assert_eq!(shown["half"], as_shown(&place["control_top"][image], decimals), "{family}");
            assert_eq!(shown["whole"], first["pictures"][image]["whole"], "{family}");
            assert_eq!(shown["verdict"], "verdict same");
            assert_eq!(list(&shown["whole"]).len(), 5);
            assert_eq!(shown["half"] == shown["whole"], number(&place["t"]) == 0.0, "{family}");
        }
    }
    assert!(number(&seen["changed"]) > 0.0, "no picture of weights changes on the path of {family}");
}

#[test]
fn a_page_has_the_families_and_images_that_are_named() {
    let qlnet = Qlnet::new();
    let page = qlnet.home.path().join("some.html");
    // Windows has no such names, but with the ampersand.
    let (name, escaped) = if cfg!(windows) { ("b&.png", "b&.png") } else { ("<b>&.png", r"\u003cb>&.png") };
    let image = qlnet.home.path().join(name);
    fs::copy("samples/digits/0-78.png", &image).unwrap();
    let (page_name, image_name) = (page.to_str().unwrap(), image.to_str().unwrap());
    let args =
        ["symmetry", "--path", "2", "--json", "--report", page_name, "--image", image_name, DIGITS[0], DIGITS[1]];
    let families = |more: &[&str]| -> Vec<String> {
        let result = json(&qlnet.run(&[&args[..], more].concat()));
        let text = |walk: &Value| walk["family"].as_str().unwrap().to_string();
        assert_eq!(result["images"], 1);
        list(&result["walks"]).iter().map(text).collect()
    };
    assert_eq!(
        families(&["--family", "stage-rotation,product-scale"]),
        ["all together", "stage-rotation", "product-scale"]
    );
    assert_eq!(families(&["--family", "general-linear"]), ["general-linear"]);
    // Discrete families have no path, and in layer 1 nothing turns.
    let first = families(&["--layer", "1"]);
    assert!(!first.contains(&"stage-rotation".to_string()) && first.contains(&"stem-scaling".to_string()), "{first:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(!html.contains("<b>&") && html.contains(escaped));
    let links: Vec<_> =
        html.match_indices("=\"http").map(|(at, _)| html[at + 2..].split('"').next().unwrap()).collect();
    assert_eq!(links, ["https://arxiv.org/abs/2308.01621"], "a link to the paper, and nothing that is loaded");

    // A check that shows nothing fails, and is seen.
    let short = qlnet.run(&[&args[..], &["--scale", "1e-9", "--family", "product-scale"]].concat());
    assert_eq!(short.status.code(), Some(1));
    assert!(stdout(&short).contains(r#""passed":false"#));
    let refused = |args: &[&str], parts: &[&str]| assert_error(&qlnet.run(&[args, &DIGITS].concat()), parts);
    refused(&["symmetry", "--path", "2", "--report", "page.txt"], &["page.txt", ".html"]);
    refused(&["symmetry", "--path", "2", "--report", page_name, "--csv", page_name], &["written over"]);
    let many = [image_name; 13];
    refused(&[&["symmetry", "--path", "2", "--report", page_name, "--image"], &many[..]].concat(), &["at most 12"]);
}

#[test]
fn pages_are_small() {
    let qlnet = Qlnet::new();
    let page = qlnet.home.path().join("page.html");
    let name = page.to_str().unwrap();
    json(&qlnet.run(&["symmetry", "--path", "40", "--json", "--report", name, DIGITS[0], DIGITS[1]]));
    let size = fs::metadata(&page).unwrap().len() as usize;
    assert!(size < MOST, "{size}");
    let Some(reference) = reference_dir() else { return };
    let (weights, image) = (reference.join("qlnet-50-v0.digits.pth.tar"), reference.join("images/rocket.jpg"));
    let files = ["--weights", weights.to_str().unwrap(), "--image", image.to_str().unwrap()];
    let result = json(&qlnet.run(&[&["symmetry", "--path", "4", "--json", "--report", name], &files[..]].concat()));
    assert!(list(&result["walks"]).len() == 10 && result["passed"] == true);
    let html = fs::read_to_string(&page).unwrap();
    // Forty steps are at most ten times what four are: shorter ones change the weights less.
    let films: usize = html.split("id=\"film-").skip(1).map(|film| film.find("</script>").unwrap()).sum();
    let size = html.len() + 9 * films;
    assert!(films > 100_000 && size < MOST, "{films} {size}");
}
