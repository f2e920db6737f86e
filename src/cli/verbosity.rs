//! Log messages on standard error: warnings always, the rest by `-v`.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

static STDERR: Stderr = Stderr;

impl Log for Stderr {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_ascii_lowercase();
        let text = super::output::one_line(&record.args().to_string());
        let _ = writeln!(std::io::stderr().lock(), "condo: {level}: {text}");
    }

    fn flush(&self) {}
}

/// Starts logging: `-v` tells what is done, `-vv` how, `-vvv` everything.
pub fn start(verbose: u8) {
    // A logger that is there already (in tests) is as good.
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(level(verbose));
    }
}

fn level(verbose: u8) -> LevelFilter {
    match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}
