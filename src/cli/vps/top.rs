//! `condo top`: what VPSs use, as a table that fills the terminal and is drawn again every few seconds.
//!
//! [`rows`] makes a table of two looks at the figures, [`screen`] draws it; here are the keys and the clock.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGTERM};

use crate::cli::exit::Exit;
use crate::error::Error;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::report::stats::VpsStats;
use rows::Column;
use screen::View;

mod rows;
mod screen;

pub(super) const EXAMPLES: &str = "\
Keys: an underlined letter of a heading sorts by it, again turns the order round; arrows and page keys move, q leaves.

Examples:
  condo top
  condo top --sort memory --interval 5 web db";

/// How soon a signal that ends us is seen.
const GLANCE: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Those it is about; all without.
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// What the table is sorted by at first.
    #[arg(short, long, value_name = "COLUMN", default_value = "cpu")]
    sort: Column,
    /// Seconds between two looks.
    #[arg(short, long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

pub(super) fn run(condo: &Condo, args: &TopArgs) -> Result<Exit> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        let why = "standard input and output are no terminal; for scripts there is `condo stats --json`";
        return Err(Error::unsupported("condo top", why).into());
    }
    // Named VPSs that are not there are an error of their own, before the screen is taken.
    let first = Look::at(condo, &args.names)?;
    let ended = ended()?;
    let mut terminal = ratatui::try_init().context("take the terminal")?;
    let done = follow(condo, args, first, &ended, &mut terminal);
    ratatui::restore();
    done.map(|()| Exit::Success)
}

/// Set by the signals that end a program, so that the terminal is given back as it was.
fn ended() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("watch for signals")?;
    }
    Ok(flag)
}

/// The figures at one moment.
struct Look {
    at: Instant,
    all: Vec<VpsStats>,
}

impl Look {
    fn at(condo: &Condo, names: &[Name]) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            all: condo.stats(names)?,
        })
    }

    /// The next one. Named VPSs may be deleted meanwhile, which ends nothing.
    fn next(&self, condo: &Condo, names: &[Name]) -> Result<Self> {
        let mut next = Self::at(condo, &[])?;
        if !names.is_empty() {
            next.all.retain(|vps| names.contains(&vps.name));
        }
        Ok(next)
    }
}

fn follow(
    condo: &Condo,
    args: &TopArgs,
    first: Look,
    ended: &AtomicBool,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<()> {
    let mut view = View::new(args.sort);
    let mut last = first;
    // Rates need two looks; the first two are close together so that there is something to see.
    let mut pause = GLANCE;
    view.take(rows::of(&last.all, &last.all, 1.0));
    loop {
        terminal.draw(|frame| view.draw(frame)).context("draw")?;
        let due = last.at + pause;
        match wait(due, ended)? {
            Woken::Ended => return Ok(()),
            Woken::By(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                if !view.press(key) {
                    return Ok(());
                }
            }
            Woken::By(_) => {}
            Woken::Due => {
                let next = last.next(condo, &args.names)?;
                let seconds = next.at.duration_since(last.at).as_secs_f64();
                view.take(rows::of(&last.all, &next.all, seconds));
                (last, pause) = (next, Duration::from_secs(args.interval));
            }
        }
    }
}

/// What ends a pause.
enum Woken {
    By(Event),
    Due,
    Ended,
}

fn wait(due: Instant, ended: &AtomicBool) -> Result<Woken> {
    loop {
        if ended.load(Ordering::Relaxed) {
            return Ok(Woken::Ended);
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Woken::Due);
        }
        if event::poll(left.min(GLANCE)).context("wait for keys")? {
            return Ok(Woken::By(event::read().context("read keys")?));
        }
    }
}

impl View {
    /// Does what a key asks for; false to leave.
    fn press(&mut self, key: KeyEvent) -> bool {
        let page = 10;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            // The terminal is raw: it makes no signal of it.
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-page),
            KeyCode::PageDown => self.step(page),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Char(letter) => {
                if let Some(column) = Column::by(letter) {
                    self.sort_by(column);
                }
            }
            _ => {}
        }
        true
    }
}
