//! The root filesystem that a container engine has mounted, with its owners translated.
//!
//! ```text
//! <engine's storage>/<layer>/      where Docker, containerd and Podman keep what one container has changed
//!   diff/ or fs/                   upper: what has changed, with the owners that the engine knows
//!   work/                          the engine's
//!   condo/                         ours; goes with the layer when the engine removes the container
//!     work/                        overlayfs' own for the second mount
//!     plain/docker/                directories that are no overlay
//! ```
//! An overlay cannot be idmapped (overlayfs has no `FS_ALLOW_IDMAP`), its layers can (Linux 5.19): they are mounted a second time,
//! idmapped, and joined anew. What is on disk stays owned by 0 and up, so that the engine's own view (`docker cp`, `docker commit`)
//! is what it is for every container.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;

use super::disk::attach_at;
pub use super::mount::can_map_owners;
use super::mount::{detached, map_owners};
use crate::error::{During, Error, Result};
use crate::files::overlay::{self, Upper, layers_of};
use crate::files::{self, mountinfo};
use crate::sys::cred::FsIdentity;

/// Our directory beside the layer's own.
const OURS: &str = "condo";

/// What decides how files are found in layers that exist: a second mount must read them as the first does.
const KEPT: [&str; 5] = ["redirect_dir", "metacopy", "xino", "userxattr", "uuid"];

/// A root filesystem with its owners translated, attached nowhere.
#[derive(Debug)]
pub struct Translated {
    /// The tree.
    pub tree: OwnedFd,
    /// Where directories that are no overlay may be made. They go with the container's layer.
    pub plain: Option<PathBuf>,
}

/// Translates the owners of what is mounted at `rootfs` by the user namespace `userns`, in which `root` is root.
///
/// The caller has left the host's mount namespace: layers are attached for a moment over `rootfs`.
///
/// # Errors
/// [`Error::Unsupported`] for storage that cannot be translated.
pub fn translated(rootfs: &Path, userns: BorrowedFd<'_>, root: (u32, u32)) -> Result<Translated> {
    let found = mounted_at(rootfs)?;
    if found.kind != "overlay" {
        let tree = detached(rootfs)?;
        map_owners(&tree, userns, 0, rootfs)?;
        return Ok(Translated { tree, plain: None });
    }
    if found.root != Path::new("/") {
        let why = "it is a part of an overlay; give the container a root filesystem of its own";
        return Err(Error::unsupported(
            format!("the root filesystem `{}`", rootfs.display()),
            why,
        ));
    }
    Overlay::read(rootfs, &found.options)?.translated(userns, root)
}

/// The mount that a directory is in.
fn mounted_at(dir: &Path) -> Result<mountinfo::Mounted> {
    let seen = rustix::fs::statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID)
        .during(|| format!("look at `{}`", dir.display()))?;
    let mut mounts = mountinfo::of("self")?.into_iter();
    mounts
        .find(|mount| mount.id == seen.stx_mnt_id)
        .ok_or_else(|| Error::Corrupt(format!("`{}` is in no mount", dir.display())))
}

/// An overlay, as the mount table has it.
#[derive(Debug, PartialEq, Eq)]
struct Overlay {
    place: PathBuf,
    lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    options: Vec<(String, String)>,
}

impl Overlay {
    fn read(place: &Path, options: &OsStr) -> Result<Self> {
        let text = options
            .to_str()
            .ok_or_else(|| Error::unsupported("this root filesystem", "its layers' names are not UTF-8"))?;
        let mut overlay = Self {
            place: place.to_path_buf(),
            lowers: Vec::new(),
            upper: None,
            options: vec![("index".into(), "off".into())],
        };
        for option in text.split(',') {
            match option.split_once('=').unwrap_or((option, "")) {
                ("lowerdir" | "lowerdir+", list) => {
                    overlay
                        .lowers
                        .extend(layers_of(list).into_iter().map(PathBuf::from));
                }
                ("upperdir", path) => overlay.upper = Some(path.into()),
                (key, value) if KEPT.contains(&key) => overlay.options.push((key.into(), value.into())),
                _ => {}
            }
        }
        overlay.find_layers()?;
        Ok(overlay)
    }

    /// Engines name layers from their storage's folder on when the list would be too long for a page: that is two above the place
    /// (Docker, Podman) or above the upper layer (containerd).
    fn find_layers(&mut self) -> Result<()> {
        let above = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_path_buf);
        let mut bases = vec![above(&self.place)];
        bases.push(self.upper.as_deref().and_then(above));
        let find = |path: &Path| -> Result<PathBuf> {
            let tried = bases.iter().flatten().map(|base| base.join(path));
            let found = tried.into_iter().find_map(|path| path.canonicalize().ok());
            found.ok_or_else(|| {
                Error::unsupported(
                    "this root filesystem",
                    format!("its layer `{}` is not found", path.display()),
                )
            })
        };
        self.lowers = self.lowers.iter().map(|path| find(path)).collect::<Result<_>>()?;
        self.upper = self.upper.as_deref().map(find).transpose()?;
        Ok(())
    }

    fn translated(&self, userns: BorrowedFd<'_>, root: (u32, u32)) -> Result<Translated> {
        let lowers = self
            .lowers
            .iter()
            .map(|dir| idmapped(dir, userns))
            .collect::<Result<Vec<_>>>()?;
        let Some(upper) = &self.upper else {
            let undo = attach_at(&self.place, &lowers)?;
            let tree = self.join(&lowers, None, root)?;
            undo.run().during(|| "detach the layers")?;
            return Ok(Translated { tree, plain: None });
        };
        let (Some(layer), Some(name)) = (upper.parent(), upper.file_name().and_then(OsStr::to_str)) else {
            return Err(Error::Corrupt(format!("`{}` is no layer", upper.display())));
        };
        let ours = layer.join(OURS);
        files::create_dir_all(&ours.join("work"), 0o700)?;
        let written = idmapped(layer, userns)?;
        let undo = attach_at(&self.place, lowers.iter().chain([&written]))?;
        let writable = Upper {
            dir: written.as_fd(),
            upper: name,
            work: "condo/work",
        };
        let tree = self.join(&lowers, Some(writable), root)?;
        undo.run().during(|| "detach the layers")?;
        // Where there is no room for its own directory, overlayfs says nothing and is read-only.
        if rustix::fs::fstatvfs(&tree)?
            .f_flag
            .contains(StatVfsMountFlags::RDONLY)
        {
            return Err(Errno::NOSPC).during(|| format!("write in `{}`", ours.display()));
        }
        Ok(Translated {
            tree,
            plain: Some(ours.join("plain")),
        })
    }

    /// overlayfs works on its layers as whoever mounted it, and real root has no number in an idmapped layer.
    fn join(&self, lowers: &[OwnedFd], upper: Option<Upper<'_>>, root: (u32, u32)) -> Result<OwnedFd> {
        let _identity =
            FsIdentity::assume(root.0, root.1).during(|| "become the container's root for files")?;
        let options: Vec<_> = self
            .options
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        overlay::mount(lowers, upper, &options)
            .during(|| format!("mount the layers of `{}` again", self.place.display()))
    }
}

fn idmapped(dir: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mount = detached(dir)?;
    map_owners(&mount, userns, 0, dir)?;
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn layers_are_found_as_engines_name_them() {
        let scratch = Scratch(std::env::temp_dir().join(format!("condo-layers-{}", std::process::id())));
        let top = &scratch.0;
        for dir in ["l/A", "l/B", "one/diff", "one/merged", "run/rootfs"] {
            std::fs::create_dir_all(top.join(dir)).unwrap();
        }
        let read = |place: &str, options: &str| {
            let options = options.replace('@', &top.display().to_string());
            Overlay::read(&top.join(place), OsStr::new(&options))
        };
        let docker = read(
            "one/merged",
            "rw,lowerdir=l/A:l/B,upperdir=one/diff,workdir=one/work,index=on",
        )
        .unwrap();
        assert_eq!(docker.lowers, [top.join("l/A"), top.join("l/B")]);
        assert_eq!(docker.upper, Some(top.join("one/diff")));
        assert_eq!(docker.options, [("index".to_owned(), "off".to_owned())]);
        let containerd = read(
            "run/rootfs",
            "rw,lowerdir+=l/A,lowerdir+=@/l/B,upperdir=@/one/diff,metacopy=on,userxattr",
        );
        let containerd = containerd.unwrap();
        assert_eq!(containerd.lowers, docker.lowers);
        assert_eq!(
            containerd.options[1..],
            [
                ("metacopy".into(), "on".into()),
                ("userxattr".into(), String::new())
            ]
        );
        let gone = read("one/merged", "lowerdir=l/C").unwrap_err().to_string();
        assert!(gone.contains("l/C"), "{gone}");
    }
}
