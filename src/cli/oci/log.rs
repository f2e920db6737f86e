//! The log as engines read it: text like logrus, or one JSON object a line.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::SystemTime;

use log::{Level, LevelFilter, Metadata, Record};
use serde_json::json;

use super::args::{Global, LogFormat};
use crate::error::{During, Error, Result};
use crate::sys;

/// Where the log goes.
pub(super) struct Log {
    to_file: bool,
}

struct Sink {
    file: Mutex<Option<File>>,
    format: LogFormat,
}

impl Log {
    /// Starts logging as the flags say.
    ///
    /// Without `--debug` only errors and warnings are written: engines take standard output and error of a successful call
    /// together, so what is no trouble must stay silent.
    pub(super) fn start(global: &Global) -> Result<Self> {
        let open = |path| File::options().append(true).create(true).open(path);
        let file = global
            .log
            .as_ref()
            .map(|path| open(path).during(|| format!("--log: open `{}`", path.display())))
            .transpose()?;
        // Init has it still when its parent is gone and cannot be told.
        file.iter().for_each(|file| sys::fd::outlast(file.as_fd()));
        let to_file = file.is_some();
        let sink = Sink {
            file: Mutex::new(file),
            format: global.log_format,
        };
        log::set_max_level(if global.debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Warn
        });
        // Fails only when a logger is set already, and there is none.
        let _ = log::set_boxed_logger(Box::new(sink));
        Ok(Self { to_file })
    }

    /// Reports an error that ends the program: to the log, and in plain words when the log is a file.
    pub(super) fn fatal(&self, error: &Error) {
        log::error!("{error}");
        if self.to_file {
            let _ = writeln!(std::io::stderr(), "{error}");
        }
    }

    /// Reports that there can be no log.
    pub(super) fn refuse(error: &Error) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "{error}");
        ExitCode::FAILURE
    }
}

impl log::Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(self.format, record.level(), &record.args().to_string());
        let Ok(mut file) = self.file.lock() else { return };
        // A log that cannot be written has nobody to tell.
        let _ = match file.as_mut() {
            Some(file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

fn line(format: LogFormat, level: Level, message: &str) -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    match format {
        LogFormat::Json => format!(
            "{}\n",
            json!({ "level": level, "msg": message, "time": time.to_string() })
        ),
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_one_object_with_a_parseable_time() {
        let line = line(LogFormat::Json, Level::Error, "a \"b\"\nc");
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (value["level"].as_str(), value["msg"].as_str()),
            (Some("error"), Some("a \"b\"\nc"))
        );
        humantime::parse_rfc3339(value["time"].as_str().unwrap()).unwrap();
    }
}
