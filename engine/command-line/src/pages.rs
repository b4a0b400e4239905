//! `completions` and `man`: what shells and manuals know of a program, made from the definition of its command line.
//!
//! Not here: that definition. Invariant: nothing is said twice, so that a new option is in help, completions and manual
//! alike.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, Command, Subcommand, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// What every program can tell of its own command line.
#[derive(Debug, Subcommand)]
pub enum Pages {
    /// Print a script that lets a shell complete command lines
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a manual page for the program and each command into a folder
    #[command(hide = true)]
    Man {
        /// The folder, which is made if there is none
        dir: PathBuf,
    },
}

impl Pages {
    /// Prints or writes what is asked for of this command line.
    ///
    /// # Errors
    /// In words, why it cannot be written; a reader of standard output that has had enough is none.
    pub fn write(&self, mut command: Command) -> Result<(), String> {
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                let name = command.get_name().to_owned();
                clap_complete::generate(*shell, &mut command, &name, &mut script);
                if *shell == Shell::Bash {
                    script =
                        files_for_bash(&String::from_utf8_lossy(&script), &command).into_bytes();
                }
                if *shell == Shell::Fish {
                    command.build();
                    script.extend(words_for_fish(&name, &[], &command).into_bytes());
                }
                let mut out = io::stdout().lock();
                match out.write_all(&script).and_then(|()| out.flush()) {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                        Err(format!("cannot write to standard output: {error}"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Man { dir } => {
                let mut command = command.disable_help_subcommand(true);
                command.build();
                let source = command.render_version();
                let written = fs::create_dir_all(dir)
                    .and_then(|()| write_manual(&command, source.trim_end(), dir));
                written.map_err(|error| {
                    format!("cannot write manual pages to {}: {error}", dir.display())
                })
            }
        }
    }
}

/// What clap_complete leaves out for bash: of a command that takes a file and behind it a command, such as `ctl SOCK show`,
/// the file, in whose place it offers what comes behind.
fn files_for_bash(script: &str, command: &Command) -> String {
    let is_path = |arg: &Arg| arg.get_value_hint() == ValueHint::AnyPath;
    let mut script = script.to_owned();
    for below in command.get_subcommands().filter(|below| below.has_subcommands()) {
        if !below.get_positionals().any(is_path) {
            continue;
        }
        let case = format!("        {}__subcmd__{})\n", command.get_name(), below.get_name());
        let files = "            if [[ ${cur} != -* && ${COMP_CWORD} -eq 2 ]] ; then\n                \
                     compopt -o filenames 2>/dev/null\n                \
                     COMPREPLY=( $(compgen -f -- \"${cur}\") )\n                \
                     return 0\n            fi\n";
        script = script.replace(&case, &format!("{case}{files}"));
    }
    script
}

/// What clap_complete leaves out for fish: the words that a command takes in one place, such as those of `ctl SOCK show`.
fn words_for_fish(program: &str, path: &[&str], command: &Command) -> String {
    let mut lines = String::new();
    let seen: Vec<String> =
        path.iter().map(|word| format!("__fish_seen_subcommand_from {word}")).collect();
    let values = command.get_positionals().flat_map(Arg::get_possible_values);
    for value in values.filter(|value| !value.is_hide_set() && !path.is_empty()) {
        let (seen, word) = (seen.join("; and "), value.get_name());
        lines += &format!("complete -c {program} -n \"{seen}\" -f -a \"{word}\"\n");
    }
    for below in command.get_subcommands() {
        lines += &words_for_fish(program, &[path, &[below.get_name()]].concat(), below);
    }
    lines
}

/// One of a program's commands; if it is of [`Pages`], with examples of this program.
pub(crate) fn with_examples(program: &str, command: Command) -> Command {
    let examples = match command.get_name() {
        "completions" => format!(
            "Examples:\n  \
             {program} completions bash >/etc/bash_completion.d/{program}\n  \
             {program} completions zsh >/usr/local/share/zsh/site-functions/_{program}\n  \
             {program} completions fish >~/.config/fish/completions/{program}.fish"
        ),
        "man" => format!("Examples:\n  {program} man /usr/local/share/man/man1"),
        _ => return command,
    };
    command.before_help(examples)
}

/// A page for this command, and one for each below it; `source` is the program and its version.
fn write_manual(command: &Command, source: &str, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_manual(below, source, dir)?;
    }
    let man = Man::new(command.clone()).source(source);
    fs::write(dir.join(man.get_filename()), manual_page(command, &man)?)
}

/// What clap_mangen makes of a command, and beside it what stands before and behind the options in its help.
fn manual_page(command: &Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let usage = command.clone().render_usage().to_string();
    section("SYNOPSIS", usage.strip_prefix("Usage: ").unwrap_or(&usage)).to_writer(&mut page)?;
    if let Some(examples) = command.get_before_help() {
        let examples = examples.to_string();
        let (_, lines) = examples.split_once('\n').unwrap_or_default();
        section("EXAMPLES", lines).to_writer(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_help() {
        section("NOTES", &notes.to_string()).to_writer(&mut page)?;
    }
    Ok(page)
}

/// Lines that stay as they are.
fn section(title: &str, lines: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]).control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}
