//! How far something is, on a terminal only: a spinner with elapsed time for what takes longer than a second, and bars.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::image::Progress;

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

/// A bar for each layer of an image. Nothing is seen when standard error is no terminal.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    /// By the number of the layer.
    of: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Bars {
    /// None yet: they come with the layers.
    pub fn none() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            of: Mutex::new(BTreeMap::new()),
        }
    }

    /// Moves the bar of a layer. May be called by several threads.
    pub fn show(&self, progress: Progress<'_>) {
        let Some(layer) = progress.layer else { return };
        let mut bars = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let place = bars.range(..layer).count();
        let bar = bars
            .entry(layer)
            .or_insert_with(|| self.all.insert(place, bar(layer)));
        bar.set_length(progress.total.unwrap_or(progress.done));
        bar.set_position(progress.done);
        bar.set_message(progress.stage.to_owned());
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let bars = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        bars.values().for_each(ProgressBar::finish_and_clear);
    }
}

fn bar(layer: usize) -> ProgressBar {
    let bar = ProgressBar::no_length().with_prefix(format!("layer {}", layer + 1));
    match ProgressStyle::with_template("{prefix:9} {bar:30} {bytes}/{total_bytes} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
