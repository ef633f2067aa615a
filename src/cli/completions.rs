//! `qlnet completions`: what a shell needs to complete commands, options and values.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::print::print;

/// Write completions for a shell to standard output
///
/// Where a shell looks for them:
///
///   bash:        qlnet completions bash > ~/.local/share/bash-completion/completions/qlnet
///   zsh:         qlnet completions zsh > ~/.zfunc/_qlnet
///                with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
///   fish:        qlnet completions fish > ~/.config/fish/completions/qlnet.fish
///   PowerShell:  qlnet completions powershell >> $PROFILE
///   elvish:      qlnet completions elvish >> ~/.config/elvish/rc.elv
#[derive(Args)]
#[command(verbatim_doc_comment, after_long_help = EXAMPLES)]
pub struct Completions {
    /// bash, zsh, fish, powershell or elvish
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(qlnet completions bash)       for this session of bash
  qlnet completions fish | source        and of fish";

/// Writes the completions of a program with these arguments.
pub fn run(args: &Completions, mut program: Command) -> Result<ExitCode> {
    let mut text = Vec::new();
    generate(args.shell, &mut program, "qlnet", &mut text);
    print(String::from_utf8_lossy(&text).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
