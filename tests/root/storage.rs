//! Root disks: idmapped layers below one overlay, seen from the host and from a user namespace.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use condo::error::Error;
use condo::image::{Image, Recipe};
use condo::storage::{Backend, IdRange, Owners, Quota, RootDisk, Volume, whole_disk_of};
use nix::mount::{MsFlags, mount};

use crate::harness;
use crate::image::{NET_RAW, Scratch, Tar, import};

tests![
    owners_are_translated_and_the_image_stays in guest,
    two_disks_of_one_image_do_not_see_each_other,
    directories_of_the_image_can_be_renamed,
    file_capabilities_of_the_image_hold_inside,
    changes_outlive_the_mount_and_the_id_range,
    a_disk_on_tmpfs,
    a_copy_of_the_image_has_the_ids_that_it_is_mounted_with,
    filesystems_that_cannot_be_mapped_are_named,
    disks_are_created_once_and_removed_at_any_depth,
    nothing_of_it_shows_on_the_host,
    the_disk_of_a_path_is_the_whole_one in guest,
];

const BASE: u32 = 700_000;

/// A volume that is a folder.
fn folder(dir: &Path) -> Box<dyn Volume> {
    Backend::Folder.volume(dir)
}

/// A new disk in a folder.
fn made(lowers: Vec<PathBuf>, dir: &Path) -> Result<RootDisk> {
    new_disk(lowers, &|| folder(dir))
}

fn new_disk(lowers: Vec<PathBuf>, volume: &dyn Fn() -> Box<dyn Volume>) -> Result<RootDisk> {
    volume().create(&Quota::default())?;
    let disk = RootDisk::new(lowers, volume());
    disk.create(ids(BASE))?;
    Ok(disk)
}

fn ids(base: u32) -> IdRange {
    IdRange { base, size: 65_536 }
}

/// A user namespace whose root is host user `base`, kept by a process of its own.
struct Userns {
    keeper: Child,
    file: File,
    base: u32,
}

impl Userns {
    fn new(base: u32) -> Result<Self> {
        let ours = fs::read_link("/proc/self/ns/user")?;
        let mut keeper = Command::new("unshare")
            .args(["--user", "--", "sleep", "120"])
            .spawn()?;
        let proc = PathBuf::from(format!("/proc/{}", keeper.id()));
        while fs::read_link(proc.join("ns/user"))? == ours {
            ensure!(keeper.try_wait()?.is_none(), "unshare failed");
            std::thread::yield_now();
        }
        let file = File::open(proc.join("ns/user"))?;
        let userns = Self { keeper, file, base };
        for map in ["uid_map", "gid_map"] {
            fs::write(proc.join(map), format!("0 {base} 65536"))?;
        }
        Ok(userns)
    }

    fn owners(&self) -> Owners<'_> {
        Owners {
            userns: self.file.as_fd(),
            range: ids(self.base),
        }
    }

    /// Runs a shell script of busybox as `uid` of the namespace, with `root` as `/`.
    fn run(&self, root: &Path, uid: u32, script: &str) -> Result<Output> {
        let output = Command::new("nsenter")
            .arg(format!("--user=/proc/{}/ns/user", self.keeper.id()))
            .args(["--setuid", "0", "--setgid", "0", "--", "chroot"])
            .arg(format!("--userspec={uid}:{uid}"))
            .arg(root)
            .args(["/bin/sh", "-ec", script])
            .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
            .stdin(Stdio::null())
            .output()?;
        Ok(output)
    }

    fn sh(&self, root: &Path, script: &str) -> Result<String> {
        let output = self.run(root, 0, script)?;
        ensure!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Drop for Userns {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// A mount namespace of this test's own, a busybox image and a place for disks.
struct Place {
    image: Image,
    // Last: its folder goes when nothing is mounted there any more.
    scratch: Scratch,
}

impl Place {
    fn new() -> Result<Self> {
        harness::private_mounts()?;
        let scratch = Scratch::new();
        let image = scratch.images().build(&Recipe::named("busybox")?, &mut |_| {})?;
        Ok(Self { image, scratch })
    }

    /// A new disk on the image, not mounted.
    fn disk(&self, name: &str) -> Result<RootDisk> {
        let disk = made(self.image.layers.clone(), &self.dir(name))?;
        fs::create_dir(self.root(name))?;
        Ok(disk)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.scratch.0.join(format!("{name}.disk"))
    }

    fn root(&self, name: &str) -> PathBuf {
        self.scratch.0.join(format!("{name}.root"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for target in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(target).starts_with(&self.scratch.0) {
                let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}

fn owners_are_translated_and_the_image_stays() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let (disk, root) = (place.disk("web")?, place.root("web"));
    let userns = Userns::new(BASE)?;
    disk.mount(userns.owners(), &root)?;

    let host = fs::metadata(root.join("etc/passwd"))?;
    ensure!((host.uid(), host.gid()) == (BASE, BASE), "{host:?}");
    ensure!(fs::metadata(&root)?.uid() == BASE && fs::metadata(&root)?.mode() & 0o7777 == 0o755);
    ensure!(userns.sh(&root, "stat -c %u:%g / /etc/passwd | sort -u")? == "0:0");

    let script = "echo new > /etc/new; chown 33:34 /etc/new; chmod 4755 /etc/new; echo changed >> /etc/passwd; \
                  rm /etc/profile; mkdir /srv; mkfifo /srv/p; ln -s x /srv/l; chown -R 1000 /home; ! mknod /srv/d c 1 3";
    userns.sh(&root, script)?;
    ensure!(fs::metadata(root.join("etc/new"))?.uid() == BASE + 33);

    let upper = place.dir("web").join("upper");
    let status = |path: &str| fs::symlink_metadata(upper.join(path)).with_context(|| path.to_owned());
    let new = status("etc/new")?;
    ensure!(
        (new.uid(), new.gid(), new.mode() & 0o7777) == (33, 34, 0o4755),
        "{new:?}"
    );
    ensure!(status("etc/passwd")?.uid() == 0 && status("srv")?.uid() == 0 && status("srv/l")?.uid() == 0);
    ensure!(status("home")?.uid() == 1000);

    let lower = &place.image.layers[0];
    ensure!(fs::read_to_string(root.join("etc/passwd"))?.contains("changed"));
    ensure!(!fs::read_to_string(lower.join("etc/passwd"))?.contains("changed"));
    ensure!(lower.join("etc/profile").exists() && !root.join("etc/profile").exists());
    ensure!(!lower.join("srv").exists() && fs::metadata(lower.join("home"))?.uid() == 0);
    ensure!(folder(&place.dir("web")).usage()?.used > 0);
    Ok(())
}

fn two_disks_of_one_image_do_not_see_each_other() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let (a, b) = (Userns::new(BASE)?, Userns::new(BASE + 65536)?);
    place.disk("a")?.mount(a.owners(), &place.root("a"))?;
    place.disk("b")?.mount(b.owners(), &place.root("b"))?;
    a.sh(&place.root("a"), "echo a > /mine; rm /etc/group")?;
    b.sh(&place.root("b"), "echo b > /mine; test -e /etc/group")?;
    ensure!(a.sh(&place.root("a"), "cat /mine")? == "a" && b.sh(&place.root("b"), "cat /mine")? == "b");
    let owner = |name| fs::metadata(place.root(name).join("mine")).map(|s| s.uid());
    ensure!((owner("a")?, owner("b")?) == (BASE, BASE + 65536));
    // The root of one is nobody on the disk of the other.
    ensure!(a.sh(&place.root("b"), "stat -c %u /mine")? == "65534");
    ensure!(!a.run(&place.root("b"), 0, "echo x > /mine")?.status.success());
    Ok(())
}

fn directories_of_the_image_can_be_renamed() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let (disk, root) = (place.disk("web")?, place.root("web"));
    let userns = Userns::new(BASE)?;
    disk.mount(userns.owners(), &root)?;
    let before = fs::metadata(root.join("etc/init.d/rcS"))?.ino();
    // rename(2), not a copy by mv: the file behind it stays where it is.
    userns.sh(&root, "mv /etc /etc.old; mkdir /etc; test -x /etc.old/init.d/rcS")?;
    ensure!(fs::metadata(root.join("etc.old/init.d/rcS"))?.ino() == before);
    ensure!(fs::read_dir(root.join("etc"))?.next().is_none());
    Ok(())
}

fn file_capabilities_of_the_image_hold_inside() -> Result<()> {
    needs!(root, busybox, nsenter);
    harness::private_mounts()?;
    let scratch = Scratch::new();
    let busybox = fs::read("/bin/busybox")?;
    let archive = Tar::system()
        .file("bin/busybox", 0o755, &busybox)
        .symlink("bin/sh", "busybox")
        .pax(&[("SCHILY.xattr.security.capability", &NET_RAW)])
        .file("bin/with/grep", 0o755, &busybox)
        .dir("proc", 0o755)
        .end();
    let image = import(&scratch.images(), "caps", &archive)?;
    let place = Place { image, scratch };
    let (disk, root) = (place.disk("web")?, place.root("web"));
    let userns = Userns::new(BASE)?;
    disk.mount(userns.owners(), &root)?;
    mount(
        Some("/proc"),
        &root.join("proc"),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let status = "CapEff /proc/self/status";
    let with = userns.run(&root, 1000, &format!("/bin/with/grep {status}"))?;
    let without = userns.run(&root, 1000, &format!("/bin/busybox grep {status}"))?;
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(text(&with).ends_with("0000000000002000"), "{with:?}");
    ensure!(text(&without).ends_with("0000000000000000"), "{without:?}");
    Ok(())
}

fn changes_outlive_the_mount_and_the_id_range() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let (disk, root) = (place.disk("web")?, place.root("web"));
    for (base, script) in [
        (BASE, "echo x > /etc/kept"),
        (BASE + 131_072, "test -O /etc/kept; cat /etc/kept"),
    ] {
        let userns = Userns::new(base)?;
        disk.mount(userns.owners(), &root)?;
        userns.sh(&root, script)?;
        ensure!(fs::metadata(root.join("etc/kept"))?.uid() == base);
        nix::mount::umount(&root)?;
    }
    Ok(())
}

/// Major and minor version of the running kernel.
fn kernel() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let mut next = || numbers.next().context("a number")?.context("a version");
    Ok((next()?, next()?))
}

fn a_disk_on_tmpfs() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let memory = place.scratch.0.join("memory");
    fs::create_dir(&memory)?;
    fs::create_dir(place.root("web"))?;
    mount(
        Some("tmpfs"),
        &memory,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    let disk = made(place.image.layers.clone(), &memory.join("disk"))?;
    let userns = Userns::new(BASE)?;
    let mounted = disk.mount(userns.owners(), &place.root("web"));
    if kernel()? < (6, 3) {
        let error = mounted
            .expect_err("tmpfs is mapped from Linux 6.3 on")
            .to_string();
        ensure!(error.contains("tmpfs (Linux 6.3)"), "{error}");
        return Ok(());
    }
    mounted?;
    userns.sh(&place.root("web"), "echo x > /etc/new; rm -r /var; mv /etc /e")?;
    ensure!(fs::metadata(memory.join("disk/upper/e/new"))?.uid() == 0);
    ensure!(matches!(
        whole_disk_of(&memory).unwrap_err().root(),
        Error::Unsupported { .. }
    ));
    let overlay = whole_disk_of(&place.root("web")).unwrap_err();
    ensure!(overlay.to_string().contains("overlayfs"), "{overlay}");
    Ok(())
}

/// Attributes that a change of owner takes away, or might: the capability to send raw packets, and the users' own.
const GIVEN: [(&str, &[u8]); 2] = [("security.capability", &NET_RAW), ("user.kept", b"yes")];

/// Where nothing is mapped: files have other owners when the ids are others, and all else of them stays.
fn a_copy_of_the_image_has_the_ids_that_it_is_mounted_with() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let (dir, root) = (place.dir("web"), place.root("web"));
    let image = place.scratch.0.join("image");
    let busybox = place.image.layers.first().context("a layer")?;
    harness::run(Command::new("cp").arg("-a").arg(busybox).arg(&image))?;
    let script = "cd $1; echo x > a; ln a b; chown 5:7 a; chmod 4751 a; ln -sfn a c; chown -h 9:9 c; touch -d @1000000000 a";
    harness::run(Command::new("sh").args(["-ec", script, "sh"]).arg(&image))?;
    for (name, value) in GIVEN {
        rustix::fs::setxattr(image.join("a"), name, value, rustix::fs::XattrFlags::empty())?;
    }
    let volume = || Backend::Copy.volume(dir.clone());
    let disk = new_disk(vec![image.clone()], &volume)?;
    fs::create_dir(&root)?;
    // As a package's program has it that was installed inside.
    let program = dir.join("upper/bin/busybox");
    let of_namespace = |base: u32| [&[1, 0, 0, 3], &NET_RAW[4..], &base.to_le_bytes()].concat();
    rustix::fs::setxattr(
        &program,
        GIVEN[0].0,
        &of_namespace(BASE),
        rustix::fs::XattrFlags::empty(),
    )?;
    let look = "cd /; stat -c '%u:%g %a %h %Y' a; stat -c '%u:%g' b c / bin/busybox; cat c";
    let wanted = "5:7 4751 2 1000000000\n5:7\n9:9\n0:0\n0:0\nx";
    let mut told = Vec::new();
    for base in [BASE, BASE, BASE + 131_072] {
        let userns = Userns::new(base)?;
        disk.mount(userns.owners(), &root)?;
        told.push(userns.sh(&root, look)?);
        let a = fs::metadata(root.join("a"))?;
        ensure!(
            (a.uid(), a.gid()) == (base + 5, base + 7),
            "{} {}",
            a.uid(),
            a.gid()
        );
        for (name, value) in GIVEN {
            let mut found = [0; 64];
            let length = rustix::fs::getxattr(root.join("a"), name, &mut found)?;
            ensure!(found[..length] == *value, "{name}: {found:?}");
        }
        disk.mount_plain(&["docker"], userns.owners(), &place.scratch.0.join("image"))?;
        let docker = fs::metadata(image.join("docker"))?;
        ensure!(docker.uid() == base, "{}", docker.uid());
        nix::mount::umount(&image)?;
        nix::mount::umount(&root)?;
    }
    ensure!(told == [wanted; 3], "{told:?}");
    let mut found = [0; 64];
    let length = rustix::fs::getxattr(&program, GIVEN[0].0, &mut found)?;
    ensure!(found[..length] == of_namespace(BASE + 131_072), "{found:?}");
    // As a start finds it that was killed in the middle.
    let half = dir.join("upper/a");
    std::os::unix::fs::chown(&half, Some(BASE + 5), Some(BASE + 7))?;
    let userns = Userns::new(BASE)?;
    disk.mount(userns.owners(), &root)?;
    ensure!(userns.sh(&root, "stat -c %u:%g /a /c /bin/busybox")? == "5:7\n9:9\n0:0");
    nix::mount::umount(&root)?;
    ensure!(fs::metadata(image.join("a"))?.uid() == 5, "the image was changed");
    Ok(())
}

fn filesystems_that_cannot_be_mapped_are_named() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let userns = Userns::new(BASE)?;
    let disk = made(vec!["/proc".into()], &place.dir("x"))?;
    let error = disk.mount(userns.owners(), Path::new("/mnt")).unwrap_err();
    ensure!(
        matches!(error.root(), Error::Unsupported { .. }) && error.to_string().contains("/proc"),
        "{error}"
    );
    Ok(())
}

fn disks_are_created_once_and_removed_at_any_depth() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let (lower, dir) = (scratch.0.join("lower"), scratch.0.join("vps/web/disk"));
    fs::create_dir(&lower)?;
    let disk = made(vec![lower], &dir)?;
    let volume = folder(&dir);
    ensure!(matches!(disk.create(ids(BASE)), Err(Error::Exists { .. })));
    ensure!(fs::metadata(&dir)?.mode() & 0o7777 == 0o700);
    let mut here = condo::files::open_dir(&dir.join("upper"))?;
    for _ in 0..5000 {
        rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU)?;
        here = rustix::fs::openat(&here, "d", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    }
    ensure!(volume.usage()?.used >= 5000 * 4096 / 8);
    volume.remove()?;
    ensure!(!dir.exists());
    volume.remove()?;
    Ok(())
}

fn nothing_of_it_shows_on_the_host() -> Result<()> {
    needs!(root, busybox, nsenter);
    let place = Place::new()?;
    let userns = Userns::new(BASE)?;
    place.disk("web")?.mount(userns.owners(), &place.root("web"))?;
    let mark = place.scratch.0.to_str().context("a plain path")?;
    let host = fs::read_to_string(format!("/proc/{}/mountinfo", std::os::unix::process::parent_id()))?;
    ensure!(!host.contains(mark), "{host}");
    // Here the overlay alone is left of what it took to mount it, and it tells nothing of the host's folders.
    let own = fs::read_to_string("/proc/self/mountinfo")?;
    let ours: Vec<&str> = own.lines().filter(|line| line.contains(mark)).collect();
    ensure!(
        ours.len() == 1 && ours[0].contains("- overlay condo "),
        "{ours:?}"
    );
    let (_, options) = ours[0].split_once(" - ").context("a separator")?;
    ensure!(!options.contains(mark), "{options}");
    Ok(())
}

fn the_disk_of_a_path_is_the_whole_one() -> Result<()> {
    needs!(root);
    let (major, minor) = whole_disk_of(Path::new("/"))?;
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    ensure!(
        device.join("queue").exists() && !device.join("partition").exists(),
        "{device:?}"
    );
    // The mount table names the device; the disk has the same name, or one that it begins with.
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let source = mounts
        .lines()
        .filter_map(|l| l.split_once(" / "))
        .map(|(s, _)| s)
        .next_back()
        .context("a root")?;
    let source = fs::canonicalize(source)?;
    let name = fs::canonicalize(&device)?;
    let (source, name) = (
        source.file_name().context("a name")?,
        name.file_name().context("a name")?,
    );
    ensure!(
        source.to_string_lossy().starts_with(&*name.to_string_lossy()),
        "{source:?} is not on {name:?}"
    );
    ensure!(whole_disk_of(Path::new("/proc")).is_err() && whole_disk_of(Path::new("/nonexistent")).is_err());
    Ok(())
}
