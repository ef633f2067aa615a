//! `qlnet man`: the manual pages, from the same texts as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::builder::StyledStr;
use clap::{Arg, Args, Command};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::print::say;
use crate::error::Error;
use crate::output::Output;
use crate::page::date;

/// Write the manual pages into a folder
///
/// One page for the program and one for each command: qlnet.1, qlnet-classify.1, and so on. The folder is made if it
/// is missing. `man` finds them in ~/.local/share/man/man1, or in any `man1` of a folder in MANPATH.
///
/// Their date is that of today, or of SOURCE_DATE_EPOCH, in seconds since 1970.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ManPages {
    /// The folder
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  qlnet man ~/.local/share/man/man1 && man qlnet-classify
  qlnet man . && man -l qlnet.1";

/// What ends every page, but for its examples.
const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "Everything was done."),
    ("1", "Something could not be done, or a check did not pass; what, is on standard error."),
    ("2", "The arguments are wrong."),
    ("130", "The run was interrupted."),
];

const ENVIRONMENT: [(&str, &str); 12] = [
    ("QLNET_CACHE", "The folder for folded and packed weights; by default qlnet in the user's folder for caches."),
    ("QLNET_SIMD", "The highest instruction set to use, by a name that qlnet devices shows."),
    ("RAYON_NUM_THREADS", "The number of threads, unless --threads says it."),
    ("HF_HOME, HF_HUB_CACHE", "Where downloads are, as for Python's huggingface_hub."),
    ("HF_TOKEN", "The access token for the hub."),
    ("HF_ENDPOINT", "The address of the hub, or of a mirror."),
    ("HF_HUB_OFFLINE", "If it is 1, nothing is downloaded."),
    ("HTTPS_PROXY, ALL_PROXY, NO_PROXY", "Proxies, and what is reached without them."),
    ("NO_COLOR", "If it is set, there are no colours, unless --color asks for them."),
    ("CLICOLOR, CLICOLOR_FORCE", "If CLICOLOR is 0, there are none either; CLICOLOR_FORCE has them in files too."),
    ("LC_ALL, LC_CTYPE, LANG", "Whether there are characters to draw bars with; without UTF-8, ASCII is used."),
    ("TERM", "On a terminal called dumb there are no colours and no bars, and on linux bars are ASCII."),
];

/// Writes the pages of a program with these arguments.
pub fn run(args: &ManPages, mut program: Command) -> Result<ExitCode> {
    // Every command as a page of its own: `qlnet help classify` would be one more.
    program = program.disable_help_subcommand(true);
    program.build();
    std::fs::create_dir_all(&args.dir).map_err(Error::io("create", &args.dir))?;
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let pages: Vec<_> = std::iter::once(&program).chain(commands).collect();
    let names: Vec<_> = pages.iter().map(|page| name(page)).collect();
    let date = date(seconds());
    let date = date.split(' ').next().unwrap_or_default();
    for (page, name) in pages.iter().zip(&names) {
        let others = names.iter().filter(|other| *other != name).map(String::as_str).collect::<Vec<_>>();
        let text = render(page, date, &others);
        Output::create(&args.dir.join(format!("{name}.1")))?.write(text.as_bytes())?;
    }
    say("note", &format!("{} pages are in {}", pages.len(), args.dir.display()));
    Ok(ExitCode::SUCCESS)
}

/// `qlnet-classify`
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_string()
}

/// A page.
fn render(command: &Command, date: &str, others: &[&str]) -> String {
    let (name, mut page) = (name(command), Roff::new());
    let source = concat!("qlnet ", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name.to_uppercase().as_str(), "1", date, source, "QLNet"]);
    page.control("SH", ["NAME"]);
    let about = command.get_about().map(plain).unwrap_or_default();
    paragraphs(&mut page, &format!("{name} - {}", about.trim_end_matches('.')), "PP");
    page.control("SH", ["SYNOPSIS"]);
    let usage = plain(&command.clone().render_usage());
    for (place, line) in usage.trim_start_matches("Usage:").lines().enumerate() {
        if place > 0 {
            page.control("br", []);
        }
        page.text([bold(line.trim())]);
    }
    page.control("SH", ["DESCRIPTION"]);
    // The first paragraph is in NAME.
    let long = command.get_long_about().map(plain).unwrap_or_default();
    paragraphs(&mut page, long.split_once("\n\n").map_or(about.as_str(), |(_, rest)| rest), "PP");
    options(&mut page, command);
    if command.has_subcommands() {
        page.control("SH", ["COMMANDS"]);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            page.control("TP", []);
            page.text([bold(self::name(sub)), roman("(1)")]);
            paragraphs(&mut page, &sub.get_about().map(plain).unwrap_or_default(), "IP");
        }
    }
    for (heading, entries) in [("EXIT STATUS", &EXIT_STATUS[..]), ("ENVIRONMENT", &ENVIRONMENT)] {
        page.control("SH", [heading]);
        for (name, text) in entries {
            page.control("TP", []);
            page.text([bold(*name)]);
            paragraphs(&mut page, text, "IP");
        }
    }
    examples(&mut page, command);
    page.control("SH", ["SEE ALSO"]);
    let others: Vec<_> = others.iter().flat_map(|other| [roman(", "), bold(*other), roman("(1)")]).skip(1).collect();
    page.text(others);
    page.render()
}

/// The options, below their headings.
fn options(page: &mut Roff, command: &Command) {
    let shown: Vec<_> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    // Those without a heading first; the others as they come.
    let mut headings = vec![None];
    for arg in &shown {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        let args: Vec<_> = shown.iter().filter(|arg| arg.get_help_heading() == heading).collect();
        if !args.is_empty() {
            page.control("SH", [heading.map_or("OPTIONS".into(), str::to_uppercase).as_str()]);
            args.into_iter().for_each(|arg| option(page, arg));
        }
    }
}

/// One option, or one argument without a name.
fn option(page: &mut Roff, arg: &Arg) {
    page.control("TP", []);
    let values = arg.get_value_names().unwrap_or_default().join(" ");
    let takes = arg.get_num_args().is_some_and(|number| number.takes_values());
    let several = arg.get_num_args().is_some_and(|number| number.max_values() == usize::MAX);
    let mut head: Vec<Inline> = Vec::new();
    let names = arg.get_short().map(|short| format!("-{short}")).into_iter();
    for name in names.chain(arg.get_long().map(|long| format!("--{long}"))) {
        if !head.is_empty() {
            head.push(roman(", "));
        }
        head.push(bold(name));
    }
    if takes {
        if !head.is_empty() {
            head.push(roman(" "));
        }
        head.push(italic(if several { format!("{values}...") } else { values }));
    }
    page.text(head);
    let help = arg.get_long_help().or(arg.get_help()).map(plain).unwrap_or_default();
    paragraphs(page, &help, "IP");
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let possible: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_string()).collect();
    if takes && !arg.is_hide_possible_values_set() && !possible.is_empty() {
        page.control("IP", []);
        paragraphs(page, &format!("Values: {}", possible.join(", ")), "IP");
    }
    if takes && !arg.is_hide_default_value_set() && !defaults.is_empty() {
        page.control("IP", []);
        page.text([roman(format!("Default: {}", defaults.join(", ")))]);
    }
}

/// Text with empty lines between its paragraphs; `macro_name` begins each but the first. Lines that are indented stay
/// as they are.
fn paragraphs(page: &mut Roff, text: &str, macro_name: &str) {
    for (place, paragraph) in text.split("\n\n").map(str::trim_end).filter(|text| !text.is_empty()).enumerate() {
        if place > 0 {
            page.control(macro_name, []);
        }
        if paragraph.lines().any(|line| line.starts_with("  ")) {
            verbatim(page, paragraph);
            continue;
        }
        let words = paragraph.split_whitespace().collect::<Vec<_>>();
        for line in wrapped(&words) {
            page.text([roman(line)]);
        }
    }
}

/// Words in lines of at most 76 characters, as far as these have blanks, with what escaping makes of hyphens.
fn wrapped(words: &[&str]) -> Vec<String> {
    let mut lines = vec![String::new()];
    let length = |text: &str| text.chars().map(|c| if matches!(c, '-' | '\'' | '\\') { 4 } else { 1 }).sum::<usize>();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if length(line) + 1 + length(word) <= 76 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// Lines as they are.
fn verbatim(page: &mut Roff, text: &str) {
    page.control("nf", []);
    for line in text.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
}

/// What stands at the end of the help.
fn examples(page: &mut Roff, command: &Command) {
    let Some(text) = command.get_after_long_help().or(command.get_after_help()).map(plain) else { return };
    page.control("SH", ["EXAMPLES"]);
    for (place, part) in text.split("\n\n").enumerate() {
        if place > 0 {
            page.control("PP", []);
        }
        verbatim(page, part.strip_prefix("Examples:\n").unwrap_or(part));
    }
}

/// A text without its styles.
fn plain(text: &StyledStr) -> String {
    text.to_string()
}

/// Today, or the day that SOURCE_DATE_EPOCH names (reproducible-builds.org), in seconds since 1970.
fn seconds() -> u64 {
    let named = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    named.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()))
}
