//! The options that a system is given once, at its first start.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{During, Error, Result};
use crate::vps::record::first_boot::{FirstBoot, LARGEST};

// Of `create`, `rebuild` and `rescue`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "First boot")]
pub(super) struct FirstBootArgs {
    /// Public keys that let root in by ssh: a file with one or several, or `-`. May be given again.
    #[arg(long, value_name = "FILE")]
    ssh_key: Vec<PathBuf>,
    /// Root's password: one line on standard input. Without --ssh-key it lets root in by ssh as well.
    #[arg(long)]
    password_stdin: bool,
    /// A script (it begins with `#!`) to run once, or what the image's cloud-init takes; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// The time zone, such as Europe/Berlin.
    #[arg(long, value_name = "AREA/CITY")]
    timezone: Option<String>,
}

impl FirstBootArgs {
    /// Reads what they name.
    pub(super) fn read(self) -> Result<FirstBoot> {
        self.refuse_two_readers()?;
        let mut first = FirstBoot {
            timezone: self.timezone,
            ..FirstBoot::default()
        };
        for path in &self.ssh_key {
            first.add_keys(&path.display().to_string(), &text("--ssh-key", path)?)?;
        }
        if self.password_stdin {
            let line = text("--password-stdin", Path::new(STANDARD_INPUT))?;
            first.set_password(line.strip_suffix('\n').unwrap_or(&line).trim_end_matches('\r'))?;
        }
        if let Some(path) = &self.user_data {
            first.user_data = Some(text("--user-data", path)?);
        }
        first.validate()?;
        Ok(first)
    }

    fn refuse_two_readers(&self) -> Result<()> {
        let files = self.ssh_key.iter().chain(&self.user_data);
        let readers = files.filter(|path| path.as_os_str() == STANDARD_INPUT).count();
        if readers + usize::from(self.password_stdin) > 1 {
            return Err(Error::invalid(
                "standard input",
                STANDARD_INPUT,
                "can be read by one of --ssh-key, --password-stdin and --user-data; put the others into files",
            ));
        }
        Ok(())
    }
}

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

fn text(option: &str, path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(LARGEST + 1).read_to_end(&mut bytes);
    let result = if path.as_os_str() == STANDARD_INPUT {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(path).and_then(|mut file| read(&mut file))
    };
    result.during(|| format!("read `{}` ({option})", path.display()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::invalid(option, path.display(), "is larger than 1M"));
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid(option, path.display(), "is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reads_standard_input() {
        let both = FirstBootArgs {
            ssh_key: vec!["-".into()],
            password_stdin: true,
            ..FirstBootArgs::default()
        };
        let said = both.read().unwrap_err().to_string();
        assert!(said.contains("--user-data"), "{said}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let args = FirstBootArgs {
            user_data: Some("/none/there".into()),
            ..FirstBootArgs::default()
        };
        let said = args.read().unwrap_err().to_string();
        assert!(
            said.contains("/none/there") && said.contains("--user-data"),
            "{said}"
        );
    }
}
