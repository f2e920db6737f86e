//! What is logged, as lines on standard error: the journal of whoever runs the service.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Lines;

static LINES: Lines = Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries say about each packet is of no use here.
        metadata.target().starts_with("condo") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            // One line each, whatever a request held.
            let text = record.args().to_string().replace(|c: char| c.is_control(), " ");
            let _ = writeln!(std::io::stderr().lock(), "condo-server: {level}: {text}");
        }
    }

    fn flush(&self) {}
}

/// Starts logging: warnings, and by `-v` more.
pub(crate) fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    if log::set_logger(&LINES).is_ok() {
        log::set_max_level(level);
    }
}
