//! File systems: room, whether disks can be held to a size, and images that have not been made anew for long.

use std::path::Path;

use super::{Finding, Weight};
use crate::error::Result;
use crate::vps::record::disk::Disk;
use crate::vps::record::instance::Condo;
use crate::vps::record::size;
use crate::vps::record::store;
use crate::vps::record::view::ImageView;

/// Days after which a system lacks corrections of its distribution's.
const OLD: i64 = 90;

impl Condo {
    pub(super) fn examine_disks(&self) -> Result<Vec<Finding>> {
        let mut found = vec![self.room_of(self.folders.lib()), self.room_of(self.folders.run())];
        found.extend(self.host.caller.privileged.then(|| self.sizes()));
        found.push(ages(&self.image_list()?, store::now()));
        Ok(found)
    }

    fn room_of(&self, dir: &Path) -> Finding {
        let subject = format!("room in {}", dir.display());
        match rustix::fs::statvfs(dir) {
            Ok(disk) => room(
                &subject,
                disk.f_bavail * disk.f_frsize,
                disk.f_blocks * disk.f_frsize,
            ),
            Err(e) => Finding::new(&subject, Weight::Warning, format!("cannot be measured: {e}")),
        }
    }

    /// What a disk of a size would be kept in.
    fn sizes(&self) -> Finding {
        let wanted = Disk {
            size: Some(1 << 20),
            ..Disk::default()
        };
        match self.new_disk(&wanted) {
            Ok(disk) => {
                let found = format!("`--disk` is kept by {}", disk.backend);
                Finding::new("disk sizes", Weight::Good, found)
            }
            Err(e) => Finding::new("disk sizes", Weight::Warning, e.to_string()),
        }
    }
}

fn room(subject: &str, free: u64, all: u64) -> Finding {
    let found = format!("{} of {} free", size::display(free), size::display(all));
    // A twentieth, or 1 GiB on a large disk: less is gone soon.
    if free < (all / 20).min(1 << 30) {
        return Finding::new(subject, Weight::Warning, found).mended_by("condo image prune");
    }
    Finding::new(subject, Weight::Good, found)
}

fn ages(images: &[ImageView], now: i64) -> Finding {
    let old: Vec<&ImageView> = images
        .iter()
        .filter(|image| now - image.created > OLD * 86_400)
        .collect();
    let Some(first) = old.first() else {
        return Finding::new(
            "images",
            Weight::Good,
            format!("{} of them, none is old", images.len()),
        );
    };
    let names: Vec<&str> = old.iter().map(|image| image.name.as_str()).collect();
    let text = format!("older than {OLD} days: {}", names.join(", "));
    Finding::new("images", Weight::Warning, text).mended_by(remade(first))
}

/// The command that makes a fresh image beside an old one.
fn remade(image: &ImageView) -> String {
    let (name, source) = (&image.name, &image.source);
    if image.digest.is_some() {
        return format!("condo image pull {source} --name {name}-new");
    }
    format!("condo image build {source} --name {name}-new")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, created: i64) -> ImageView {
        ImageView {
            ids: 65_536,
            name: name.into(),
            architecture: "x86_64".into(),
            init: Vec::new(),
            stop_signal: "TERM".into(),
            size: 1,
            created,
            used_by: Vec::new(),
            source: "debian-12".into(),
            digest: None,
            layers: 0,
        }
    }

    #[test]
    fn a_disk_is_nearly_full_at_a_twentieth() {
        assert_eq!(room("x", 4, 100).weight, Weight::Warning);
        assert_eq!(room("x", 5, 100).weight, Weight::Good);
        assert_eq!(room("x", 2 << 30, 1 << 40).weight, Weight::Good);
    }

    #[test]
    fn images_grow_old_in_three_months() {
        let (day, now) = (86_400, 200 * 86_400);
        assert_eq!(ages(&[image("new", now - 90 * day)], now).weight, Weight::Good);
        let found = ages(&[image("base", now - 91 * day), image("new", now)], now);
        assert_eq!(found.found, "older than 90 days: base");
        assert_eq!(
            found.remedy.as_deref(),
            Some("condo image build debian-12 --name base-new")
        );
    }
}
