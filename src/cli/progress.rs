//! A spinner with elapsed time, for what takes longer than a second, on a terminal only.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is faster than this needs no spinner.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A spinner until it is dropped. It is drawn by a thread: drop it before anything clones an init process, because a lock
/// held by a thread at that moment is held in the child for ever.
#[derive(Debug)]
pub struct Spinner {
    bar: ProgressBar,
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Spinner {
    /// Begins to count; nothing is seen before a second has passed, nor when standard error is no terminal.
    pub fn start(doing: impl Into<String>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(doing.into());
        let drawing = std::io::stderr().is_terminal().then(|| draw(bar.clone()));
        Self { bar, drawing }
    }

    /// Tells what is going on now.
    pub fn say(&self, doing: &str) {
        self.bar.set_message(super::output::one_line(doing));
    }
}

fn draw(bar: ProgressBar) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel();
    let thread = std::thread::spawn(move || {
        let mut wait = PATIENCE;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            if wait == PATIENCE {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                wait = TICK;
            }
            bar.tick();
        }
        bar.finish_and_clear();
    });
    (stop, thread)
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.drawing.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}
