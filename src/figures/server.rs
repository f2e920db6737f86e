//! The side that answers.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::wire::{self, Answer, Ask, FIRST, ROOT};
use super::{Figure, install};
use crate::error::{During, Error, Result};
use crate::pace::Pace;
use crate::sys::shared::SharedMemory;

/// How long a text is good for whoever reads next: who reads in pieces gets those of one text, and a thousand readers do not cost
/// a thousand texts.
const FRESH: Duration = Duration::from_millis(20);

/// Where the texts come from.
pub trait Source {
    /// The text of a figure now.
    ///
    /// # Errors
    /// What the reader sees as `EIO`.
    fn text(&mut self, figure: &Figure) -> Result<String>;
}

/// A file system of figures, with the connection by which the kernel asks for them.
#[derive(Debug)]
pub struct Server {
    device: OwnedFd,
    figures: &'static [Figure],
    texts: Vec<Option<(Instant, String)>>,
    owner: u32,
    /// Where questions are taken, if they are to outlive this process.
    underway: Option<SharedMemory>,
}

impl Server {
    /// Makes the file system, all files of which belong to the host's user `owner`, and a mount of it for [`Server::install`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] on a kernel without FUSE.
    pub fn mount(figures: &'static [Figure], owner: u32) -> Result<(Self, OwnedFd)> {
        let device = match open_device() {
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
                let why = "this kernel has no FUSE, or its module is not loaded; try: modprobe fuse";
                return Err(Error::unsupported("figures of its own", why));
            }
            other => other.during(|| "open `/dev/fuse`")?,
        };
        let make = || -> Result<OwnedFd> {
            let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
            let number = device.as_raw_fd().to_string();
            for (key, value) in [
                ("source", "condo"),
                ("subtype", "condo"),
                ("fd", &number),
                ("rootmode", "40555"),
                ("user_id", "0"),
                ("group_id", "0"),
            ] {
                fsconfig_set_string(context.as_fd(), key, value)?;
            }
            // Else nobody but the host's root would get an answer.
            fsconfig_set_flag(context.as_fd(), "allow_other")?;
            fsconfig_set_flag(context.as_fd(), "default_permissions")?;
            fsconfig_create(context.as_fd())?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            Ok(fsmount(
                context.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                attributes,
            )?)
        };
        let mount = make().during(|| "make a file system of figures")?;
        Ok((Self::adopt(device, figures, owner), mount))
    }

    /// Takes questions where processes that are cloned from this one find them: a killed one's may be without an answer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn note_questions(&mut self) -> Result<()> {
        let (memory, _) = SharedMemory::new("underway", wire::LARGEST)?;
        self.underway = Some(memory);
        Ok(())
    }

    /// Answers what another process was asked, from whom this one was cloned and that was killed. The kernel gives a question out once,
    /// and who asked waits until a signal comes; since Linux 6.9 it asks again as well.
    ///
    /// # Errors
    /// The kernel's.
    pub fn answer_left(&mut self, source: &mut dyn Source) -> Result<()> {
        if let Some(mut memory) = self.underway.take() {
            self.answer_one(memory.bytes(), source);
            self.underway = Some(memory);
        }
        match rustix::io::write(&self.device, &wire::ask_again()) {
            Err(Errno::INVAL) => Ok(()),
            other => other.map(drop).during(|| "have the kernel ask again"),
        }
    }

    /// Goes on with a connection that another process had before.
    pub fn adopt(device: OwnedFd, figures: &'static [Figure], owner: u32) -> Self {
        Self {
            device,
            figures,
            texts: figures.iter().map(|_| None).collect(),
            owner,
            underway: None,
        }
    }

    /// Puts the figures in their places in a mount namespace, answering for them meanwhile. Places that are not there are left out;
    /// an earlier server's files are taken away.
    ///
    /// # Errors
    /// The kernel's.
    pub fn install(
        &mut self,
        mount: BorrowedFd<'_>,
        namespace: BorrowedFd<'_>,
        source: &mut dyn Source,
    ) -> Result<()> {
        install::install(self, mount, namespace, source)
    }

    /// The files.
    pub fn figures(&self) -> &'static [Figure] {
        self.figures
    }

    /// The connection, readable when the kernel asks for something.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Answers what is asked by now, as far as that is allowed; false when nobody can ask any more.
    pub fn answer(&mut self, source: &mut dyn Source, pace: &mut Pace) -> bool {
        let mut own = [0; wire::LARGEST];
        let mut memory = self.underway.take();
        let place = memory.as_mut().map_or(&mut own[..], SharedMemory::bytes);
        let can_be_asked = self.answer_from(place, source, pace);
        self.underway = memory;
        can_be_asked
    }

    fn answer_from(&mut self, place: &mut [u8], source: &mut dyn Source, pace: &mut Pace) -> bool {
        while !pace.is_used_up() {
            match rustix::io::read(&self.device, &mut *place) {
                Ok(length) => {
                    pace.spend(1);
                    self.answer_one(&place[..length], source);
                }
                // A question that was taken back.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn answer_one(&mut self, message: &[u8], source: &mut dyn Source) {
        if let Some(answer) = self.reply(message, source) {
            // Whoever asked may have gone, or have an answer (ENOENT).
            let _ = rustix::io::write(&self.device, &answer);
        }
    }

    fn reply(&mut self, message: &[u8], source: &mut dyn Source) -> Option<Vec<u8>> {
        let (unique, ask) = wire::parse(message)?;
        let fine = || Answer::to(unique, 0);
        let refused = |errno: Errno| Answer::to(unique, errno.raw_os_error());
        let answer = match ask {
            Ask::Silent => return None,
            Ask::Init => fine().version(),
            Ask::Lookup(ROOT, name) => match self
                .figures
                .iter()
                .position(|f| f.name.as_bytes() == name.to_bytes())
            {
                Some(at) => fine().entry(FIRST + at as u64, self.owner),
                None => refused(Errno::NOENT),
            },
            Ask::Lookup(..) => refused(Errno::NOTDIR),
            Ask::Attributes(ROOT) => fine().attributes(ROOT, self.owner, 0),
            Ask::Attributes(node) => match self.text(node, true, source).map(|text| text.len() as u64) {
                Ok(size) => fine().attributes(node, self.owner, size),
                Err(e) => refused(untold(&e)),
            },
            Ask::Open => fine().handle(),
            Ask::Read(node, offset, size) => match self.read(node, offset, size, source) {
                Ok(bytes) => fine().bytes(bytes),
                Err(e) => refused(untold(&e)),
            },
            Ask::List | Ask::Close => fine(),
            Ask::Size => fine().size(),
            Ask::Other => refused(Errno::NOSYS),
        };
        Some(answer.finish())
    }

    /// A piece of a text. Who begins at its beginning gets one of now.
    fn read(&mut self, node: u64, offset: u64, size: u32, source: &mut dyn Source) -> Result<&[u8]> {
        let text = self.text(node, offset == 0, source)?.as_bytes();
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = begin.saturating_add(size as usize).min(text.len());
        Ok(&text[begin..end])
    }

    /// A text: one of now, or the one that was made last.
    fn text(&mut self, node: u64, now: bool, source: &mut dyn Source) -> Result<&str> {
        let at = usize::try_from(node.wrapping_sub(FIRST)).unwrap_or(usize::MAX);
        let (Some(figure), Some(kept)) = (self.figures.get(at), self.texts.get_mut(at)) else {
            return Err(Error::Corrupt(format!("there is no figure {node}")));
        };
        let stale = kept
            .as_ref()
            .is_none_or(|(made, _)| now && made.elapsed() > FRESH);
        if stale {
            *kept = Some((Instant::now(), source.text(figure)?));
        }
        Ok(kept.as_ref().map_or("", |(_, text)| text))
    }
}

/// Whether this machine has what figures are told by.
pub fn can_be_told() -> bool {
    open_device().is_ok()
}

fn open_device() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/fuse", flags, Mode::empty())
}

fn untold(e: &Error) -> Errno {
    log::debug!("a figure cannot be told: {e}");
    Errno::IO
}
