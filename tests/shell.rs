//! What makes the program feel at home in a shell: completions, manual pages, colours, how much it says, and the
//! commands about models, devices and the cache.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::fixture;
use support::program::{DIGITS, Qlnet, records, stderr, stdout};

const DIGIT: &str = "samples/digits/1-21.png";
const ESCAPE: char = '\u{1b}';

/// Every command that has help.
fn commands() -> Vec<String> {
    let help = stdout(&Qlnet::new().run(&["--help"]));
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let names = names.into_iter().filter(|name| !name.is_empty() && *name != "help");
    names.map(String::from).collect()
}

/// What a program says that checks a text on its standard input, or nothing where it is not installed.
fn checked(program: &str, args: &[&str], text: &[u8]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: no {program}");
        return None;
    };
    // Whoever does not read it says so by how it ends.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), text);
    let output = child.wait_with_output().unwrap();
    // Under qemu a program that is not there is started all the same, and ends like this.
    if output.status.code() == Some(127) {
        eprintln!("skipped: no {program}");
        return None;
    }
    Some(format!("{}{}", if output.status.success() { "" } else { "failed: " }, stderr(&output)))
}

#[test]
fn every_shell_gets_completions() {
    let qlnet = Qlnet::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = qlnet.run(&["completions", shell]);
        let text = stdout(&output);
        assert!(output.status.success() && stderr(&output).is_empty(), "{shell}");
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        // PowerShell and elvish have no values of options in what clap writes.
        if !matches!(shell, "powershell" | "elvish") {
            for value in ["qlnet-digits", "int8", "stage-rotation", "metal"] {
                assert!(text.contains(value), "{shell}: {value}");
            }
        }
        let file = qlnet.file(shell, text.as_bytes());
        if matches!(shell, "bash" | "zsh" | "fish")
            && let Some(said) = checked(shell, &["-n", file.to_str().unwrap()], b"")
        {
            assert_eq!(said, "", "{shell}");
        }
    }
}

#[cfg(unix)]
#[test]
fn bash_completes_names_of_models() {
    let text = stdout(&Qlnet::new().run(&["completions", "bash"]));
    let script =
        format!("{text}\nCOMP_WORDS=(qlnet classify --model qlnet-d); COMP_CWORD=3\n_qlnet qlnet qlnet-d --model\n");
    let output = Command::new("bash").args(["-c", &format!("{script}echo \"${{COMPREPLY[@]}}\"")]).output();
    let Ok(output) = output else { return eprintln!("skipped: no bash") };
    assert_eq!(stdout(&output).trim(), "qlnet-digits", "{}", stderr(&output));
}

#[test]
fn every_command_has_a_manual_page() {
    let qlnet = Qlnet::new();
    let dir = qlnet.home.path().join("share/man/man1");
    let output = qlnet.command().args(["man", dir.to_str().unwrap()]).env("SOURCE_DATE_EPOCH", "951782400").output();
    assert!(output.unwrap().status.success());
    let mut names = vec!["qlnet".to_string()];
    names.extend(commands().iter().map(|command| format!("qlnet-{command}")));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len());
    for name in names {
        let page = fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        assert!(page.contains("2000\\-02\\-29") || page.contains("2000-02-29"), "{name}: {page}");
        for part in
            [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH EXAMPLES"]
        {
            assert!(page.contains(part), "{name}: {part}");
        }
        for (program, args) in [("groff", &["-man", "-ww", "-z", "-Tutf8"][..]), ("mandoc", &["-Tlint", "-Wwarning"])] {
            if let Some(said) = checked(program, args, page.as_bytes()) {
                assert_eq!(said, "", "{name}");
            }
        }
    }
}

#[test]
fn a_manual_page_that_cannot_be_written_is_an_error() {
    let qlnet = Qlnet::new();
    let file = qlnet.file("file", b"");
    let output = qlnet.run(&["man", file.join("man1").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: cannot create "), "{}", stderr(&output));
}

#[test]
fn colours_are_where_they_are_asked_for() {
    let qlnet = Qlnet::new();
    // What is refused by clap, what fails later, and a result.
    let cases: [&[&str]; 3] =
        [&["classify", "--what"], &["classify", "nowhere.png"], &["classify", DIGIT, DIGITS[0], DIGITS[1]]];
    let coloured = |args: &[&str], variables: &[(&str, &str)]| {
        let output = qlnet.command().args(args).envs(variables.iter().copied()).output().unwrap();
        let text = stdout(&output) + &stderr(&output);
        assert!(!text.is_empty());
        text.contains(ESCAPE)
    };
    for args in cases {
        let with = |more: &[&'static str]| [args, more].concat();
        assert!(!coloured(args, &[]), "{args:?}: not on a terminal");
        assert!(coloured(&with(&["--color", "always"]), &[]), "{args:?}");
        assert!(coloured(&with(&["--color=always"]), &[("NO_COLOR", "1")]), "{args:?}: an option is nearer");
        assert!(coloured(args, &[("CLICOLOR_FORCE", "1")]), "{args:?}");
        assert!(!coloured(args, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "{args:?}");
        assert!(!coloured(args, &[("CLICOLOR_FORCE", "0")]), "{args:?}: nothing is forced");
        assert!(coloured(args, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "")]), "{args:?}: empty is unset");
        assert!(!coloured(&with(&["--color", "never"]), &[("CLICOLOR_FORCE", "1")]), "{args:?}");
    }
    assert!(!coloured(&["classify", DIGIT, "--json", "--color", "always", DIGITS[0], DIGITS[1]], &[]));
    assert!(coloured(&["--color", "always", "classify", "nowhere.png"], &[]), "before the command too");
}

/// On a terminal; `script` makes one.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_colours_unless_it_or_its_user_has_none() {
    let qlnet = Qlnet::new();
    let program = format!("{} classify nowhere.png", env!("CARGO_BIN_EXE_qlnet"));
    let run = |variables: &[(&str, &str)]| {
        let mut command = qlnet.with_caches(Command::new("script"));
        command.args(["-qec", &program, "/dev/null"]).envs(variables.iter().copied()).stdin(Stdio::null()).output()
    };
    let probe = Command::new("script").args(["-qec", "true", "/dev/null"]).stdin(Stdio::null()).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no script that gets a terminal");
    }
    let output = run(&[]).unwrap();
    assert!(stdout(&output).contains(ESCAPE), "{}", stdout(&output));
    for variable in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        let text = stdout(&run(&[variable]).unwrap());
        assert!(text.contains("nowhere.png") && !text.contains(ESCAPE), "{variable:?}: {text}");
    }
}

#[test]
fn less_is_said_quietly_and_more_verbosely() {
    let qlnet = Qlnet::new();
    let run = |more: &[&str], images: &[&str]| {
        let args = [&["classify"], images, more, &DIGITS].concat();
        qlnet.command().args(args).env("QLNET_SIMD", "none").output().unwrap()
    };
    let usual = run(&[], &[DIGIT]);
    assert!(stderr(&usual).starts_with("note: ") && stderr(&usual).lines().count() == 1, "{}", stderr(&usual));
    for quiet in ["-q", "--quiet"] {
        let output = run(&[quiet], &[DIGIT]);
        assert_eq!((stderr(&output).as_str(), stdout(&output)), ("", stdout(&usual)));
        let output = run(&[quiet], &[DIGIT, "nowhere.png"]);
        assert!(stderr(&output).starts_with("error: nowhere.png") && output.status.code() == Some(1));
    }
    for verbose in ["-v", "--verbose"] {
        let output = run(&[verbose], &[DIGIT]);
        let lines: Vec<_> =
            stderr(&output).lines().filter_map(|line| Some(line.strip_prefix("info: ")?.to_string())).collect();
        for part in ["qlnet 0.", "built in", "f32 on cpu", "SHA-256 ", " in all"] {
            assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:?}");
        }
        assert_eq!(stdout(&output), stdout(&usual));
    }
    assert_eq!(run(&["-q", "-v"], &[DIGIT]).status.code(), Some(2));
    assert_eq!(run(&["-q", "-q"], &[DIGIT]).status.code(), Some(0), "an alias may have it already");
}

#[test]
fn it_is_said_where_weights_are_from() {
    let qlnet = Qlnet::new();
    let path = fixture("two-filters.pth.tar");
    let args = ["classify", DIGIT, "-v", "--weights", path.to_str().unwrap()];
    for from in ["the checkpoint, ", "packed and kept, "] {
        let said = stderr(&qlnet.run(&args));
        assert!(said.contains(from), "{from}: {said}");
    }
}

#[cfg(unix)]
#[test]
fn bars_are_ascii_where_there_are_no_blocks() {
    let qlnet = Qlnet::new();
    let args = ["classify", DIGIT, "-k", "1", DIGITS[0], DIGITS[1]];
    for (variables, blocks) in [
        (&[("LC_ALL", "C.UTF-8")][..], true),
        (&[("LC_ALL", "C")], false),
        (&[("LC_ALL", ""), ("LC_CTYPE", ""), ("LANG", "en_GB.UTF-8")], true),
        (&[("LC_ALL", ""), ("LC_CTYPE", "POSIX"), ("LANG", "en_GB.UTF-8")], false),
        (&[("LC_ALL", ""), ("LC_CTYPE", ""), ("LANG", "")], false),
        (&[("TERM", "linux")], false),
        (&[("TERM", "dumb")], false),
    ] {
        let text = stdout(&qlnet.command().args(args).envs(variables.iter().copied()).output().unwrap());
        assert_eq!((text.contains('█'), text.contains("####")), (blocks, !blocks), "{variables:?}: {text}");
        assert!(blocks || text.is_ascii());
    }
}

#[test]
fn models_tell_what_they_are_and_whether_they_are_here() {
    let qlnet = Qlnet::new();
    let models = records(&qlnet.run(&["models", "--json"]));
    let of = |models: &[Value], name: &str| models.iter().find(|model| model["name"] == name).unwrap().clone();
    let default = of(&models, "qlnet-50-v0");
    assert_eq!((&default["here"], &default["top1"]), (&Value::Bool(false), &Value::from(0.784)));
    assert_eq!((&default["parameters"], &default["download_bytes"]), (&9_993_640.into(), &80_405_585.into()));
    assert_eq!(of(&models, "qlnet-digits")["here"], true);
    let table = stdout(&qlnet.run(&["models"]));
    assert!(table.contains("78.40 %") && table.contains("9,993,640") && table.contains("built in"), "{table}");
    // A file of the right size where the hub's cache has it.
    let url = default["url"].as_str().unwrap();
    let [revision, file] = [url.rsplit('/').nth(1).unwrap(), url.rsplit('/').next().unwrap()];
    let dir = qlnet.home.path().join(".cache/huggingface/hub/models--liuyao--QLNet/snapshots").join(revision);
    fs::create_dir_all(&dir).unwrap();
    File::create(dir.join(file)).unwrap().set_len(80_405_585).unwrap();
    let default = of(&records(&qlnet.run(&["models", "--json"])), "qlnet-50-v0");
    assert_eq!(default["here"], true);
    assert_eq!(Path::new(default["downloaded"].as_str().unwrap()), dir.join(file));
    let cache: Value = serde_json::from_str(&stdout(&qlnet.run(&["cache", "--json"]))).unwrap();
    assert_eq!(cache["hub"]["files"][0]["model"], "qlnet-50-v0");
}

#[test]
fn devices_tell_what_computes() {
    let qlnet = Qlnet::new();
    let report = |simd: &str| -> Value {
        let output = qlnet.command().args(["devices", "--json"]).env("QLNET_SIMD", simd).output().unwrap();
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let usual = report("");
    let sets: Vec<_> =
        usual["cpu"]["instruction_sets"].as_array().unwrap().iter().map(|set| set.as_str().unwrap()).collect();
    assert!(sets.contains(&"portable") && sets.contains(&usual["cpu"]["chosen"].as_str().unwrap()), "{sets:?}");
    assert_eq!(usual["devices"][0]["device"], "cpu");
    assert_eq!(usual["devices"][0]["usable"], true);
    let cuda = usual["devices"].as_array().unwrap().iter().find(|device| device["device"] == "cuda:0").unwrap();
    if !cfg!(feature = "cuda") {
        assert!(cuda["reason"].as_str().unwrap().contains("no CUDA support"), "{cuda}");
    }
    let portable = report("portable");
    assert_eq!(portable["cpu"]["chosen"], "portable");
    assert_eq!(portable["cpu"]["used"]["f32"], "portable");
    assert_eq!(portable["cpu"]["instruction_sets"], usual["cpu"]["instruction_sets"]);
    assert!(stdout(&qlnet.run(&["devices"])).contains("instructions"));
}

/// Sets the times of all files of a folder back.
fn age(dir: &Path) {
    let old = SystemTime::now() - Duration::from_secs(7200);
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        }
    }
}

#[test]
fn pruning_removes_what_is_of_no_use_and_nothing_else() {
    let qlnet = Qlnet::new();
    let weights = qlnet.file("my weights.pth", &fs::read(fixture("two-filters.pth.tar")).unwrap());
    let cache = qlnet.home.path().join("cache");
    let classify = || qlnet.run(&["classify", DIGIT, "--weights", weights.to_str().unwrap()]);
    classify();
    // The hash of a file that was just changed is not remembered.
    std::thread::sleep(Duration::from_millis(3500));
    let before = stdout(&classify());
    let sha256 = "0123456789abcdef".repeat(4);
    let foreign =
        ["notes.txt".to_string(), format!("{sha256}.hash"), format!("{sha256}.v1-x.packed"), "a.safetensors".into()];
    let old = [format!("{sha256}.v0.safetensors"), format!(".{sha256}.v1.safetensors.AbC123.tmp")];
    for name in foreign.iter().chain(&old) {
        fs::write(cache.join(name), "content").unwrap();
    }
    let names = || -> Vec<String> {
        fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let here = |all: &[String]| all.iter().filter(|name| names().contains(name)).count();
    age(&cache);
    let report = stdout(&qlnet.run(&["cache"]));
    assert!(report.contains("my weights.pth") && report.contains("packed for f32"), "{report}");

    let number = names().len();
    let dry = stdout(&qlnet.run(&["cache", "--prune", "--dry-run"]));
    assert!(old.iter().all(|name| dry.contains(name)), "{dry}");
    // The hash of the packed network is of no use since its times were changed.
    assert!(!dry.contains(".packed") && dry.contains("would remove 3 files"), "{dry}");
    assert_eq!(names().len(), number);

    let pruned = stdout(&qlnet.run(&["cache", "--prune"]));
    assert!(pruned.contains("removed 3 files"), "{pruned}");
    assert_eq!((here(&old), here(&foreign)), (0, 4));
    let said = stderr(&qlnet.run(&["classify", DIGIT, "-v", "--weights", weights.to_str().unwrap()]));
    assert!(said.contains("packed and kept"), "what is used stays: {said}");
    assert_eq!(stdout(&classify()), before);

    fs::remove_file(&weights).unwrap();
    age(&cache);
    let output = qlnet.run(&["cache", "--prune", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let removed = |kind: &str| {
        let of_kind = |file: &&Value| file["kind"] == kind && file["removed"] == true;
        report["files"].as_array().unwrap().iter().filter(of_kind).count()
    };
    assert_eq!((removed("folded"), removed("packed")), (1, 1), "{report}");
    assert!(removed("hash") >= 1 && report["bytes"] == 0, "{report}");
    assert_eq!((here(&foreign), names().len()), (4, 4));
}

#[test]
fn help_and_version_are_where_they_are_looked_for() {
    let qlnet = Qlnet::new();
    let out = |args: &[&str]| stdout(&qlnet.run(args));
    for command in commands() {
        assert_eq!(out(&["help", &command]), out(&[&command, "--help"]), "{command}");
    }
    assert_eq!(out(&["-V"]).trim(), concat!("qlnet ", env!("CARGO_PKG_VERSION")));
    let long = out(&["--version"]);
    assert!(long.contains("features: ") && long.contains(std::env::consts::ARCH), "{long}");
    let error = |args: &[&str]| stderr(&qlnet.run(args));
    assert!(error(&["clasify"]).contains("a similar subcommand exists: 'classify'"));
    assert!(error(&[DIGIT]).contains(&format!("tip: what is in pictures, says `qlnet classify {DIGIT}`")));
    assert!(!error(&["nowhere.png"]).contains("tip: "));
}

/// What `-h` says fits a screen, a line for each option; what `--help` says ends in examples.
#[test]
fn short_help_is_a_screen_and_long_help_has_everything() {
    let qlnet = Qlnet::new();
    for command in commands() {
        let [short, long] = ["-h", "--help"].map(|help| stdout(&qlnet.run(&[&command, help])));
        let most = if command == "eval" { 50 } else { 44 };
        assert!(short.lines().count() <= most, "{command}: {} lines\n{short}", short.lines().count());
        for line in short.lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
            // A line that only goes on is indented further than options are.
            assert!(!line.starts_with("          ") || line.trim_start().starts_with("--"), "{command}: {line}");
        }
        let examples = long.split("\nExamples:\n").nth(1).unwrap_or_else(|| panic!("{command}: {long}"));
        assert!(examples.lines().all(|line| line.starts_with("  ") && line.len() <= 100), "{command}: {examples}");
        assert!(examples.contains(&format!("qlnet {command}")), "{command}: {examples}");
        let options = |help: &str| -> Vec<String> {
            let names = help.lines().filter(|line| line.trim_start().starts_with('-'));
            let name = |line: &str| Some(line.split("--").nth(1)?.split([' ', ',']).next()?.to_string());
            names.filter_map(name).collect()
        };
        let (few, all) = (options(&short), options(&long));
        assert!(few.iter().all(|option| all.contains(option)), "{command}");
    }
    let families = stdout(&qlnet.run(&["symmetry", "--help"]));
    let wrong = stderr(&qlnet.run(&["symmetry", "--family", "x"]));
    let list = wrong.split("[possible values: ").nth(1).unwrap().split(']').next().unwrap();
    assert!(list.split(", ").all(|family| families.contains(family)), "{list}");
}
