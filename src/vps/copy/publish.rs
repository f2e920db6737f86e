//! An image made of a VPS that is stopped, or of one of its snapshots, with all that is on its disk.

use std::io::BufWriter;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::image::{Archive, ImportOptions, write_tree};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::snapshots::SnapshotName;
use crate::vps::record::view::{ImageView, VpsStatus};

impl Condo {
    /// Makes an image of a VPS's disk as it is, or as it was at a snapshot. What makes it one machine of its own (machine id, ssh host
    /// keys) is on it, and a VPS of the image gets others at its first start.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that runs, if it is not about a snapshot.
    pub fn image_publish(
        &self,
        vps: &Name,
        snapshot: Option<&SnapshotName>,
        image: &str,
    ) -> Result<ImageView> {
        let Some(snapshot) = snapshot else {
            return self.publish_stopped(vps, vps, image);
        };
        // As a VPS for as long as it takes: its layer is where those of VPSs are.
        let passing: Name = format!("publish-{}", std::process::id()).parse()?;
        self.clone_vps(vps, &passing, Some(snapshot))?;
        let made = self.publish_stopped(&passing, vps, image);
        let gone = self.delete(&passing, true);
        made.and_then(|image| gone.map(|()| image))
    }

    fn publish_stopped(&self, vps: &Name, of: &Name, image: &str) -> Result<ImageView> {
        if self.status(vps)? != VpsStatus::Stopped {
            return Err(Error::Status(format!("`{vps}` is running; stop it first")));
        }
        let init = self.image_show(&self.store.get(vps)?.config.image)?;
        let guest = self.guest(vps)?;
        let (reader, writer) = std::io::pipe()?;
        let top = PathBuf::from(format!("/proc/self/fd/{}/.", guest.root().as_fd().as_raw_fd()));
        let base = guest.base();
        let options = ImportOptions {
            init: Some(init.init),
            stop_signal: Some(init.stop_signal),
            ..ImportOptions::default()
        };
        let (written, made) = std::thread::scope(|scope| {
            let work = move || write_tree(&top, base, &mut BufWriter::with_capacity(1 << 20, writer));
            let writing = scope.spawn(work);
            let archive = Archive::from_reader(format!("VPS {of}"), reader);
            let made = self.image_of(image, archive, &options);
            (writing.join(), made)
        });
        let gone = |_| Error::Corrupt("the thread that reads the disk is gone".into());
        match (written.map_err(gone).and_then(|written| written), made) {
            (Ok(()), made) => made,
            // What there is of the image may end in the middle, which a tar archive does not tell.
            (Err(e), Ok(_)) => self.image_remove(image).and(Err(e)),
            // A reader that gave up has the better reason.
            (Err(_), Err(e)) => Err(e),
        }
    }
}
