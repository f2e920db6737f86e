//! The host that gets the VPS.

use std::io::{BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::storage::tree::Direction;
use crate::undo::Undo;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::Pending;
use crate::vps::record::store::Record;

use super::super::archive::Reader;
use super::super::capture::at;
use super::super::import::Arrived;
use super::super::snapshot::LAYER;
use super::wire::{self, Answer, Said, VERSION, Whole};

/// What one conversation has brought so far.
struct Coming<'c> {
    condo: &'c Condo,
    name: Name,
    token: String,
    /// How the VPS came here, for whoever finds it unfinished.
    by: String,
    dir: PathBuf,
    rounds: usize,
    last: Option<Arrived>,
    record: Option<Record>,
}

impl Condo {
    /// Takes a VPS that another host sends: messages and archives on `input`, answers on `output`.
    pub fn receive_vps(&self, input: impl Read, mut output: impl Write) -> Result<()> {
        let mut input = BufReader::new(input);
        let Some(Said::Hello {
            version,
            name,
            token,
            to,
        }) = wire::receive(&mut input)?
        else {
            return Err(Error::Corrupt(
                "this is the other end of a move, which a host runs for itself".into(),
            ));
        };
        let mut refuse = |e: &Error| wire::send(&mut output, &Answer::Refused { why: e.to_string() });
        if version != VERSION {
            let e = Error::invalid(
                "version of the move",
                version,
                "is not the one that this condo knows",
            );
            return refuse(&e);
        }
        files::create_dir_all(&self.folders.arriving(), 0o700)?;
        let dir = self.folders.arriving().join(&name);
        let lock_path = dir.with_extension("lock");
        // Whoever received it before has to be over: only then what is here is final.
        let lock = match Lock::now(&lock_path) {
            Err(e) => return refuse(&e),
            Ok(lock) => lock,
        };
        let undo = Undo::of(|| {
            files::remove_tree(&dir)?;
            files::remove_file(&lock_path)?;
            let _ = std::fs::remove_dir(self.folders.arriving());
            Ok(())
        });
        files::remove_tree(&dir)?;
        let mut coming = Coming {
            condo: self,
            by: format!("condo migrate {name} {to}"),
            name,
            token,
            dir: dir.clone(),
            rounds: 0,
            last: None,
            record: None,
        };
        let result = coming.converse(&mut input, &mut output);
        let undone = coming.give_up();
        undo.run()?;
        drop(lock);
        result.and(undone)
    }
}

impl Coming<'_> {
    fn converse(&mut self, input: &mut impl Read, output: &mut impl Write) -> Result<()> {
        let first = self.what_is_here();
        wire::send(output, &answer(first))?;
        loop {
            let done = match wire::receive(input)? {
                None => return Ok(()),
                Some(Said::Image { name, digest }) => self.has_image(&name, &digest),
                Some(Said::State) => self.state(input).map(|()| Answer::Done),
                Some(Said::Commit { start }) => self.arrive(start).map(|address| Answer::Arrived { address }),
                Some(Said::Hello { .. }) => Err(Error::Corrupt("a second hello".into())),
            };
            let failed = done.is_err();
            if failed {
                // Before it is said: then it is true.
                self.give_up()?;
            }
            wire::send(output, &answer(done))?;
            if failed {
                return Ok(());
            }
        }
    }

    /// Whether it has arrived before, by this token; then it is started if it was to be.
    fn what_is_here(&mut self) -> Result<Answer> {
        let record = match self.condo.store.get(&self.name) {
            Err(e) if e.is_gone() => return Ok(Answer::None),
            other => other?,
        };
        if record.config.arrived.as_ref() == Some(&self.token) {
            if record.config.pending == Some(Pending::Starting) {
                self.condo.see_start(&self.name)?;
            }
            return Ok(Answer::Arrived {
                address: record.address,
            });
        }
        match &record.config.pending {
            // A conversation that was cut.
            Some(Pending::Arriving { by }) if *by == self.by => {
                self.condo.delete(&self.name, true)?;
                Ok(Answer::None)
            }
            _ => Err(Error::Exists {
                kind: "VPS",
                name: self.name.to_string(),
            }),
        }
    }

    fn has_image(&self, name: &str, digest: &str) -> Result<Answer> {
        let image = self.condo.image_here(name, digest)?;
        Ok(image.map_or(Answer::None, |_| Answer::Done))
    }

    /// Reads one state and makes the VPS's disk, which nobody uses yet, equal to it.
    fn state(&mut self, input: &mut impl Read) -> Result<()> {
        let place = self.dir.join(self.rounds.to_string());
        let mut whole = Whole::new(input);
        let arrived = Reader::open(&mut whole)
            .and_then(|reader| self.condo.receive(reader, &place, self.last.as_ref()));
        // What is behind a mistake has to be read as well, to be able to say so.
        std::io::copy(&mut whole, &mut std::io::sink())?;
        let arrived = arrived?;
        let record = match self.record.take() {
            Some(record) => record,
            None => self
                .condo
                .make_room(&arrived, &place, &self.name, self.by.clone())?,
        };
        let _copies = self.condo.lock_copies(&self.name)?;
        self.condo
            .bring(&record, &at(&place.join(LAYER))?, Direction::Bring)?;
        self.record = Some(record);
        if let Some(before) = self.last.replace(arrived) {
            files::remove_tree(&before.dir)?;
        }
        self.rounds += 1;
        Ok(())
    }

    /// It is this host's from here on.
    fn arrive(&mut self, start: bool) -> Result<Ipv4Addr> {
        let (Some(last), Some(record)) = (&self.last, &self.record) else {
            return Err(Error::Corrupt("a commit without a state".into()));
        };
        if last.header.started {
            files::write_atomic(&self.condo.folders.seat(&self.name).provisioned(), b"", 0o600)?;
        }
        let address = record.address;
        let token = self.token.clone();
        self.condo.store.reconfigure(&self.name, &|config| {
            config.arrived = Some(token.clone());
            config.pending = start.then_some(Pending::Starting);
            Ok(())
        })?;
        // Does it not start, the other host keeps it: that has all of it, and is told once this one has nothing.
        if start {
            self.condo.see_start(&self.name)?;
        }
        self.record = None;
        Ok(address)
    }

    /// Leaves nothing of what was not handed over.
    fn give_up(&mut self) -> Result<()> {
        if self.record.take().is_some() {
            self.condo.delete(&self.name, true)?;
        }
        Ok(())
    }
}

fn answer(result: Result<Answer>) -> Answer {
    result.unwrap_or_else(|e| Answer::Refused { why: e.to_string() })
}
