//! The host that has the VPS.

use std::io::{BufReader, BufWriter};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{During, Error, Result};
use crate::undo::Undo;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::{self, Pending};
use crate::vps::record::snapshots::{Snapshot, remove_copies};
use crate::vps::record::store::{Record, random_uuid};

use super::super::archive::tree_digest;
use super::super::capture::at;
use super::super::export::State;
use super::super::whole;
use super::target::Target;
use super::wire::{self, Answer, Pieces, Said, VERSION};

/// Rounds while it runs, at most.
const ROUNDS: usize = 6;
/// A round that sends no more than this is followed by the stop.
const LITTLE: u64 = 4 << 20;

/// How the other host is reached.
#[derive(Debug, Clone)]
pub struct MigrateOptions {
    /// The program that connects, and its options: `ssh`.
    pub ssh: Vec<String>,
    /// What is run there: `condo`, with its options.
    pub remote: String,
    /// How long it may take to shut down.
    pub patience: Duration,
    /// Whether its snapshots, which do not move with it, may go.
    pub without_snapshots: bool,
}

/// A VPS that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Its address there.
    pub address: Ipv4Addr,
    /// Rounds of copying, with the one while it was stopped.
    pub rounds: usize,
    /// Bytes that were sent.
    pub sent: u64,
    /// How long it did not run.
    pub stopped: Duration,
    /// How long all of it took.
    pub took: Duration,
}

/// The line to the other host.
struct Line {
    ssh: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Line {
    fn open(to: &Target, options: &MigrateOptions) -> Result<Self> {
        let (program, first) = options
            .ssh
            .split_first()
            .ok_or_else(|| Error::invalid("--ssh", "", "is empty"))?;
        let mut command = Command::new(program);
        command.args(first);
        if let Some(port) = to.port {
            command.args(["-p", &port.to_string()]);
        }
        let mut ssh = command
            .args(["--", &to.login])
            .arg(format!("{} receive", options.remote))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .during(|| format!("start `{program}`"))?;
        let (Some(input), Some(output)) = (ssh.stdin.take(), ssh.stdout.take()) else {
            return Err(Error::Corrupt("ssh has no streams".into()));
        };
        Ok(Self {
            ssh,
            input: BufWriter::new(input),
            output: BufReader::new(output),
        })
    }

    fn say(&mut self, message: &Said) -> Result<()> {
        wire::send(&mut self.input, message)
    }

    fn answer(&mut self) -> Result<Answer> {
        match wire::receive(&mut self.output)? {
            Some(Answer::Refused { why }) => Err(Error::Init(format!("the other host: {why}"))),
            Some(answer) => Ok(answer),
            None => Err(Error::Init(
                "the other host does not answer: ssh has ended, or there is no `condo` there".into(),
            )),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// A round that was sent.
struct Round {
    snapshot: Snapshot,
    dir: PathBuf,
    bytes: u64,
}

/// What is recorded of a move before it counts.
struct Hand<'h> {
    to: &'h Target,
    token: &'h str,
    /// Whether it ran.
    ran: bool,
}

/// A move that is going on.
struct Move<'m> {
    condo: &'m Condo,
    vps: &'m Name,
    line: Line,
    dir: PathBuf,
    /// What the image's files are.
    digest: String,
    /// Whether the other host has to be sent them.
    with_image: bool,
    rounds: usize,
    sent: u64,
    last: Option<Round>,
}

impl Condo {
    /// Moves a VPS to another host. Killed at any point, on either side, the same run again finishes it.
    pub fn migrate(&self, vps: &Name, to: &Target, options: &MigrateOptions) -> Result<Migrated> {
        // One that has moved may be half deleted here, with nothing left to copy.
        let lock = match self.store.get(vps)?.config.deleting {
            true => None,
            false => Some(self.lock_copies(vps)?),
        };
        self.sweep_copies(vps)?;
        let (record, held) = self.hold_settled(vps)?;
        drop(held);
        let (token, ran) = match &record.config.pending {
            Some(Pending::Leaving {
                to: other,
                token,
                ran,
            }) if *other == to.text => (token.clone(), *ran),
            _ => {
                pending::refuse(&record)?;
                (random_uuid()?, self.is_to_run(&record)?)
            }
        };
        self.must_be_movable(&record, options)?;
        let mut line = Line::open(to, options)?;
        line.say(&Said::Hello {
            version: VERSION,
            name: vps.clone(),
            token: token.clone(),
            to: to.text.clone(),
        })?;
        let begin = Instant::now();
        let mut moved = match line.answer()? {
            Answer::None => {
                pending::refuse_half_deleted(&record)?;
                self.move_over(
                    vps,
                    line,
                    &Hand {
                        to,
                        token: &token,
                        ran,
                    },
                    options,
                )?
            }
            // An earlier run came as far as that.
            Answer::Arrived { address } => Migrated {
                address,
                rounds: 0,
                sent: 0,
                stopped: Duration::ZERO,
                took: Duration::ZERO,
            },
            other => return Err(unexpected(&other)),
        };
        drop(lock);
        self.delete(vps, true).during(|| {
            format!("remove `{vps}` here: the other host has it now; run the same command again")
        })?;
        moved.took = begin.elapsed();
        Ok(moved)
    }

    /// The other host has nothing of it, and nobody there will take it for theirs before they are told so.
    fn move_over(
        &self,
        vps: &Name,
        line: Line,
        hand: &Hand<'_>,
        options: &MigrateOptions,
    ) -> Result<Migrated> {
        let ran = hand.ran;
        let dir = self.passing(vps);
        let undo = Undo::of(|| remove_copies(&dir));
        let mut going = Move {
            condo: self,
            vps,
            line,
            dir: dir.clone(),
            digest: String::new(),
            with_image: true,
            rounds: 0,
            sent: 0,
            last: None,
        };
        // What an earlier run has recorded stays until then: that is all that knows whether it ran.
        let (begin, address) = match going.hand_over(hand, options.patience) {
            Ok(handed) => handed,
            Err(Doubt { e, certain: true }) => {
                self.stay(vps, ran)?;
                return Err(e);
            }
            Err(Doubt { e, .. }) => {
                return Err(e).during(|| {
                    format!(
                        "it is not known whether `{to}` has it: run the same command again, or, if that host cannot be asked any \
                         more, say where it is: condo migrate {vps} --here, or --there",
                        to = hand.to
                    )
                });
            }
        };
        let stopped = begin.elapsed();
        undo.run()?;
        Ok(Migrated {
            address,
            rounds: going.rounds,
            sent: going.sent,
            stopped,
            took: Duration::ZERO,
        })
    }

    /// From here on it starts nowhere until the other host has it, or has said that it has not.
    fn set_leaving(&self, vps: &Name, hand: &Hand<'_>) -> Result<()> {
        let leaving = Pending::Leaving {
            to: hand.to.text.clone(),
            token: hand.token.to_owned(),
            ran: hand.ran,
        };
        self.set_pending(vps, Some(&leaving)).map(drop)
    }

    /// It stays here, and runs again if it did.
    pub(super) fn stay(&self, vps: &Name, ran: bool) -> Result<()> {
        self.set_starting(vps, ran)?;
        match ran {
            true => self.see_start(vps),
            false => Ok(()),
        }
    }

    fn must_be_movable(&self, record: &Record, options: &MigrateOptions) -> Result<()> {
        whole::refuse(record.config.disk.backend, "a move of this VPS")?;
        if !options.without_snapshots && !self.snapshots(&record.name)?.is_empty() {
            let text = "the VPS has snapshots, which do not move with it: delete them first, or use --without-snapshots";
            return Err(Error::Status(text.into()));
        }
        Ok(())
    }
}

/// A hand-over that failed.
struct Doubt {
    e: Error,
    /// Whether the other host has surely not got it.
    certain: bool,
}

impl Move<'_> {
    /// Sends all of it and says that it is the other host's: since when it is stopped here, and its address there.
    fn hand_over(&mut self, hand: &Hand<'_>, patience: Duration) -> Result<(Instant, Ipv4Addr), Doubt> {
        let certain = |e| Doubt { e, certain: true };
        let begin = self.send_all(hand, patience).map_err(certain)?;
        Ok((begin, self.commit(hand.ran)?))
    }

    /// All of it, the last while it is stopped: since when.
    fn send_all(&mut self, hand: &Hand<'_>, patience: Duration) -> Result<Instant> {
        self.ask_for_image()?;
        while hand.ran && self.rounds < ROUNDS && self.last.as_ref().is_none_or(|round| round.bytes > LITTLE)
        {
            self.round(true)?;
        }
        let begin = Instant::now();
        self.condo.set_leaving(self.vps, hand)?;
        let stopped = self.condo.stop(std::slice::from_ref(self.vps), patience);
        stopped.into_iter().try_for_each(|(_, result)| result)?;
        self.round(false)?;
        Ok(begin)
    }

    fn ask_for_image(&mut self) -> Result<()> {
        let image = self
            .condo
            .images()
            .get(&self.condo.store.get(self.vps)?.config.image)?;
        self.digest = tree_digest(&image.tree()?)?;
        self.line.say(&Said::Image {
            name: image.name,
            digest: self.digest.clone(),
        })?;
        self.with_image = match self.line.answer()? {
            Answer::None => true,
            Answer::Done => false,
            other => return Err(unexpected(&other)),
        };
        Ok(())
    }

    /// Copies the VPS and sends what is new since the round before.
    fn round(&mut self, lives: bool) -> Result<()> {
        let dir = self.dir.join(self.rounds.to_string());
        let older = self.last.as_ref().map(|round| round.dir.as_path());
        let captured = if lives {
            self.condo.capture_roughly(self.vps, &dir, older)?
        } else {
            self.condo.capture(self.vps, &dir, older)?
        };
        let snapshot = Snapshot::passing(self.vps, &captured)?;
        let before = match &self.last {
            Some(round) => Some((&round.snapshot, at(&round.dir)?)),
            None => None,
        };
        let state = State {
            record: &captured.record,
            snapshot: &snapshot,
            layer: &at(&dir)?,
            since: before.as_ref().map(|(snapshot, layer)| (*snapshot, layer)),
            with_image: before.is_none() && self.with_image,
            digest: &self.digest,
        };
        self.line.say(&Said::State)?;
        let (pieces, done) = self.condo.pack(&state, Pieces::new(&mut self.line.input))?;
        pieces.end().during(|| "speak to the other host")?;
        match self.line.answer()? {
            Answer::Done => {}
            other => return Err(unexpected(&other)),
        }
        self.rounds += 1;
        self.sent += done.bytes;
        let bytes = done.bytes;
        self.last = Some(Round { snapshot, dir, bytes });
        Ok(())
    }

    /// Says that it is the other host's.
    fn commit(&mut self, start: bool) -> Result<Ipv4Addr, Doubt> {
        let doubt = |e| Doubt { e, certain: false };
        self.line.say(&Said::Commit { start }).map_err(doubt)?;
        match wire::receive(&mut self.line.output).map_err(doubt)? {
            Some(Answer::Arrived { address }) => Ok(address),
            Some(Answer::Refused { why }) => Err(Doubt {
                e: Error::Init(format!("the other host: {why}")),
                certain: true,
            }),
            Some(other) => Err(doubt(unexpected(&other))),
            None => Err(doubt(Error::Init("the other host has gone away".into()))),
        }
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::Corrupt(format!(
        "the other host answers `{answer:?}`, which makes no sense here"
    ))
}
