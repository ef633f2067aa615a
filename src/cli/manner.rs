//! How much the program says, and how that looks: colours and bars, as options, environment and terminal have it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::OnceLock;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};

/// Options of every command, before or after its name.
#[derive(Args)]
#[command(next_help_heading = "Messages")]
pub struct Manner {
    /// Say nothing but errors and warnings
    ///
    /// No progress and no notes. What a command prints to standard output stays as it is.
    #[arg(short, long, global = true, overrides_with = "quiet", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is done: files, device, instructions, times
    ///
    /// On standard error, in lines that begin with `info:`.
    #[arg(short, long, global = true, overrides_with = "verbose")]
    pub verbose: bool,
    /// Colours: auto, always or never
    ///
    /// auto: on a terminal, unless NO_COLOR is set, CLICOLOR is 0 or TERM is `dumb`; CLICOLOR_FORCE has them
    /// elsewhere too. JSON and CSV are never coloured.
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    pub color: When,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal that has them
    Auto,
    /// Wherever lines go
    Always,
    /// Nowhere
    Never,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Amount {
    Quiet,
    Usual,
    Verbose,
}

/// Set once, before anything is said.
static AMOUNT: OnceLock<Amount> = OnceLock::new();

impl Manner {
    /// Makes this the way in which the program speaks.
    pub fn set(&self) {
        let amount = match (self.quiet, self.verbose) {
            (true, _) => Amount::Quiet,
            (false, true) => Amount::Verbose,
            (false, false) => Amount::Usual,
        };
        // It is called once.
        let _ = AMOUNT.set(amount);
        set_colour(self.color);
        if is_coloured(&std::io::stdout()) {
            // This is what asks a console of Windows for them.
            let _ = AutoStream::always(std::io::stdout());
        }
    }
}

fn amount() -> Amount {
    AMOUNT.get().copied().unwrap_or(Amount::Usual)
}

/// Whether notes and progress are left out.
pub fn is_quiet() -> bool {
    amount() == Amount::Quiet
}

/// Whether it is said what is done.
pub fn is_verbose() -> bool {
    amount() == Amount::Verbose
}

/// Whether bars may be drawn on standard error: indicatif draws none on a terminal without control sequences.
pub fn bars_are_drawn() -> bool {
    let term = variable("TERM");
    // Unix has a name for every terminal that has such sequences.
    let able = if term.is_none() { cfg!(windows) } else { !is_dumb(term.as_deref()) };
    able && !is_quiet() && std::io::stderr().is_terminal()
}

/// What the arguments say of colours. Errors in the arguments, and help, are printed before those are known.
pub fn colour_in(arguments: &[OsString]) -> When {
    let mut before = None;
    let mut found = When::Auto;
    for argument in arguments.iter().filter_map(|argument| argument.to_str()).take_while(|word| *word != "--") {
        let value = argument.strip_prefix("--color=").or((before == Some("--color")).then_some(argument));
        found = value.and_then(|value| When::from_str(value, false).ok()).unwrap_or(found);
        before = Some(argument);
    }
    found
}

/// Takes `CLICOLOR_FORCE=0` away: by it nothing is forced, and anstream, through which clap prints too, asks only
/// whether the variable is set.
///
/// # Safety
/// There must be no other thread.
pub unsafe fn forget_what_is_not_forced() {
    if variable("CLICOLOR_FORCE").is_some_and(|force| force == "0") {
        // SAFETY: by this function's own condition.
        unsafe { std::env::remove_var("CLICOLOR_FORCE") };
    }
}

/// Sets when there are colours, also those of clap.
pub fn set_colour(when: When) {
    let dumb = is_dumb(variable("TERM").as_deref()) && variable("CLICOLOR_FORCE").is_none();
    match when {
        // CLICOLOR=1, which many have in a profile, does not teach a terminal colours.
        When::Auto if dumb => ColorChoice::Never,
        When::Auto => ColorChoice::Auto,
        When::Always => ColorChoice::Always,
        When::Never => ColorChoice::Never,
    }
    .write_global();
}

/// Whether lines of that stream are coloured.
pub fn is_coloured(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Whether there are block elements (`█▍`) where lines go, as far as it is known. On Windows there are: Rust's
/// library writes UTF-16 to consoles, whatever their code page is.
pub fn has_blocks() -> bool {
    static BLOCKS: OnceLock<bool> = OnceLock::new();
    let locale = || ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    *BLOCKS.get_or_init(|| cfg!(windows) || shows_blocks(locale().as_deref(), variable("TERM").as_deref()))
}

/// Whether a terminal shows block elements in a locale. Without one, programs are in `C`, whose characters are ASCII.
/// The fonts of the Linux console have only some of them.
fn shows_blocks(locale: Option<&str>, term: Option<&str>) -> bool {
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    utf8 && !is_dumb(term) && term != Some("linux")
}

/// Whether a terminal has no control sequences.
fn is_dumb(term: Option<&str>) -> bool {
    term == Some("dumb")
}

/// A variable of the environment, unless it is empty, which is as good as unset.
fn variable(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_for_locales_and_terminals_that_have_them() {
        for locale in ["en_GB.UTF-8", "C.utf8", "de_DE.utf8@euro"] {
            assert!(shows_blocks(Some(locale), Some("xterm-256color")), "{locale}");
            assert!(shows_blocks(Some(locale), None), "{locale}: in a file");
            assert!(!shows_blocks(Some(locale), Some("linux")) && !shows_blocks(Some(locale), Some("dumb")));
        }
        for locale in [None, Some("C"), Some("POSIX"), Some("de_DE.ISO-8859-1"), Some("de_DE")] {
            assert!(!shows_blocks(locale, Some("xterm")), "{locale:?}");
        }
    }

    #[test]
    fn colours_are_found_among_arguments() {
        let found = |words: &str| colour_in(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(found("qlnet --color never classify"), When::Never);
        assert_eq!(found("qlnet classify x.png --color=always"), When::Always);
        assert_eq!(found("qlnet --color=always classify --color never"), When::Never);
        assert_eq!(found("qlnet classify -- --color never"), When::Auto);
        assert_eq!(found("qlnet --color sometimes"), When::Auto);
    }
}
