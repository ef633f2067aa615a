//! Opens pages in a browser, as a person does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Where Chromium is. `QLNET_CHROMIUM` names it; without one, tests that need it say so and pass.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("QLNET_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()));
    if found.is_none() {
        // Written past the test harness, which shows what `eprintln!` prints only of tests that fail.
        let text = b"skipped: no chromium here; set QLNET_CHROMIUM to look at pages\n";
        std::io::stderr().write_all(text).unwrap();
    }
    found
}

/// Opens a page in a window of that width and runs `script`, the body of an asynchronous function, when all of the
/// page's own scripts have run. What it returns comes back; `None` if there is no browser. The page stays as it is: a
/// copy beside it is opened, so that its links lead where they did.
///
/// # Panics
/// If the page's scripts or this one fail.
pub fn in_browser(page: &Path, width: u32, script: &str) -> Option<Value> {
    let chromium = chromium()?;
    let first = "<head><script>const failures = []; \
                 addEventListener('error', event => failures.push(event.message));</script>";
    let last = format!(
        "<script>(async () => {{ {script} }})().catch(error => {{ failures.push(String(error.stack)); }}).then(value => {{
            const text = encodeURIComponent(JSON.stringify({{ failures, value: value ?? null }}));
            document.documentElement.replaceChildren(`\\n${{text}}\\n`);
        }});</script></body>"
    );
    let html = fs::read_to_string(page).unwrap();
    let html = html.replacen("<head>", first, 1).replacen("</body>", &last, 1);
    let copy = page.with_extension("driven.html");
    fs::write(&copy, html).unwrap();
    let address = format!("file://{}", copy.canonicalize().unwrap().display());
    // The browser's time, which passes at once where it waits for nothing, may be over before a file is read that is
    // waited for: then it is opened again.
    let result = (0..5).find_map(|_| result(&chromium, &address, width));
    fs::remove_file(copy).unwrap();
    let text = result.expect("the script did not end");
    let result: Value = serde_json::from_str(&percent_decode_str(&text).decode_utf8().unwrap()).unwrap();
    assert_eq!(result["failures"], Value::Array(Vec::new()), "{}", page.display());
    Some(result["value"].clone())
}

/// What the last script leaves of the page, if it came to its end.
fn result(chromium: &Path, address: &str, width: u32) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(address)
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    dom.lines().find(|line| line.starts_with("%7B")).map(str::to_string)
}
