//! Help in the form that callers of runc know: `NAME`, `USAGE`, `COMMANDS`, `OPTIONS`.

use std::ffi::OsString;
use std::path::Path;

use clap::{Command, CommandFactory};

use super::args::Cli;

/// What runc calls itself, which scripts look for to see what they have before them.
const KIND: &str = "Open Container Initiative runtime";

/// The name that the program was called by: scripts that call it `runc` look for that.
pub(super) fn name(called: Option<&OsString>) -> String {
    called.and_then(|path| Path::new(path).file_name()).map_or_else(
        || "condo-runtime".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// The command tree with that form of help.
pub(super) fn with_help(called: Option<&OsString>) -> Command {
    // clap has names in braces.
    let name = name(called).replace(['{', '}'], "");
    let mut all = Cli::command().bin_name(&name);
    // Their arguments are built when asked for.
    all.build();
    all.mut_subcommands(|command| {
        let form = of_a_command(&name, &command);
        command.help_template(form)
    })
    .help_template(format!(
        "NAME:\n   {name} - {KIND}\n\n{{about}}\n\nUSAGE:\n   {{usage}}\n\nCOMMANDS:\n{{subcommands}}\n\n\
         GLOBAL OPTIONS:\n{{options}}"
    ))
}

fn of_a_command(name: &str, command: &Command) -> String {
    let arguments = match command.get_positionals().next() {
        Some(_) => "ARGUMENTS:\n{positionals}\n\n",
        None => "",
    };
    format!(
        "NAME:\n   {name} {} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{arguments}OPTIONS:\n{{options}}",
        command.get_name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help_of(words: &[&str]) -> String {
        let called = OsString::from(words[0]);
        let e = with_help(Some(&called)).try_get_matches_from(words).unwrap_err();
        assert!(!e.use_stderr(), "{e}");
        e.to_string()
    }

    #[test]
    fn it_begins_with_the_name_that_was_called() {
        let of_all = help_of(&["/usr/bin/runc", "-h"]);
        assert!(
            of_all.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"),
            "{of_all}"
        );
        for heading in [
            "\nUSAGE:\n   runc ",
            "\nCOMMANDS:\n",
            "\nGLOBAL OPTIONS:\n",
            "  exec  ",
        ] {
            assert!(of_all.contains(heading), "{heading}: {of_all}");
        }
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().filter(|c| c.get_name() != "help") {
            for words in [
                ["runc", command.get_name(), "-h"],
                ["runc", "help", command.get_name()],
            ] {
                let text = help_of(&words);
                let begin = format!(
                    "NAME:\n   runc {} - {}",
                    command.get_name(),
                    command.get_about().unwrap()
                );
                assert!(text.starts_with(&begin), "{words:?}: {text}");
                assert!(text.contains("\nUSAGE:\n   runc "), "{words:?}: {text}");
            }
        }
    }
}
