//! Images in layers: what each hides, replaces and shares, from every form they are kept in.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use condo::error::Error;
use condo::files::overlay;
use condo::image::{Archive, Digest, Image, Images, ImportOptions};
use serde_json::json;

use super::saved::{self, Packed, Saved};
use super::{NET_RAW, Scratch, Tar, import};

tests![
    layers_hide_replace_and_share in guest: 120,
    layers_that_are_not_what_they_say_are_refused,
    layers_reach_nothing_outside,
    what_a_killed_pull_left_is_pruned,
];

/// An image's layers as one tree, and its place.
pub(super) struct View {
    _mount: Vec<std::os::fd::OwnedFd>,
    pub(super) path: PathBuf,
}

pub(super) fn view(image: &Image) -> Result<View> {
    let layers = image
        .layers
        .iter()
        .map(|dir| condo::files::open_dir(dir))
        .collect::<Result<Vec<_>, _>>()?;
    let mount = match layers.len() {
        1 => layers,
        _ => vec![overlay::mount(&layers, None, &[])?],
    };
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount[0].as_raw_fd()));
    Ok(View { _mount: mount, path })
}

fn layers_hide_replace_and_share() -> Result<()> {
    needs!(root);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let scratch = Scratch::new();
    let images = scratch.images();
    let three = saved::three_layers()?;
    let layout = scratch.0.join("layout");
    saved::directory(&layout, &three.layout()?)?;
    let all = [
        import(&images, "docker", &saved::archive(&three.docker()?))?,
        import(
            &images,
            "layout",
            &zstd::stream::encode_all(&saved::archive(&three.layout()?)[..], 1)?,
        )?,
        images.import_dir("dir", &layout, &ImportOptions::default(), &mut |_| {})?,
    ];
    for image in &all {
        ensure!(image.layers == all[0].layers, "the layers are shared");
        ensure!(image.manifest.init == ["/sbin/init"] && image.manifest.process.env == ["A=b"]);
    }
    ensure!(all[0].layers.len() == 3 && all[1].manifest.digest.is_some());
    let chains = |images: &Images| -> Result<usize> {
        let dir = images.get("dir").map(|_| scratch.0.join("images/.layers"))?;
        Ok(fs::read_dir(dir)?
            .flatten()
            .filter(|e| e.file_name() != "lock")
            .count())
    };
    ensure!(chains(&images)? == 3);
    check_tree(&view(&all[0])?.path)?;

    // One of another image over the same base, and what goes with it.
    let other = Saved::new(
        &json!({}),
        &[
            (fs_layer(&three)?, Packed::Gzip),
            (Tar::new().file("mine", 0o644, b"x").end(), Packed::Plain),
        ],
    )?;
    let other = import(&images, "other", &saved::archive(&other.docker()?))?;
    ensure!(other.layers[1] == all[0].layers[2] && chains(&images)? == 4);
    images.remove("other")?;
    let removed = images.prune()?;
    ensure!(
        removed.len() == 1 && removed[0].what.starts_with("layer "),
        "{removed:?}"
    );
    ensure!(chains(&images)? == 3);
    for image in &all {
        images.remove(&image.name)?;
    }
    ensure!(images.prune()?.len() == 3 && images.prune()?.is_empty());
    Ok(())
}

/// The lowest layer, which is not packed.
fn fs_layer(saved: &Saved) -> Result<Vec<u8>> {
    Ok(saved.layers.first().context("no layer")?.clone())
}

pub(super) fn check_tree(root: &Path) -> Result<()> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let is_gone = |path: &str| fs::symlink_metadata(root.join(path)).is_err();
    let status = |path: &str| fs::symlink_metadata(root.join(path)).with_context(|| path.to_owned());
    ensure!(status("")?.mode() & 0o7777 == 0o755);
    ensure!(
        fs::read_link(root.join("lib"))? == Path::new("usr/lib"),
        "a link of the layer below is followed, not replaced"
    );
    ensure!(read("usr/lib/a") == "1" && read("usr/lib/b") == "2");
    let joe = status("home/joe")?;
    ensure!(
        (joe.mode() & 0o7777, joe.uid(), joe.mtime()) == (0o2750, 1000, 1_000_000_000),
        "of the layer below: {joe:?}"
    );
    ensure!(read("home/joe/more") == "2" && status("home/joe/more")?.uid() == 1000);
    ensure!(read("etc/keep") == "1" && is_gone("etc/passwd"));
    ensure!(read("opaque/z") == "2" && is_gone("opaque/x") && is_gone("opaque/deep"));
    ensure!(read("old/new") == "3" && is_gone("old/deep"));
    ensure!(read("again/new") == "2" && is_gone("again/x"));
    ensure!(read("swap") == "2" && read("file/inner") == "2" && status("file")?.mode() & 0o7777 == 0o700);
    ensure!(is_gone("bin/ping") && read("bin/ping6") == "ping");
    let attribute = |name: &str| {
        let mut buffer = [0; 64];
        rustix::fs::getxattr(root.join("bin/ping6"), name, &mut buffer).map(|n| buffer[..n].to_vec())
    };
    ensure!(attribute("security.capability")? == NET_RAW && attribute("user.note")? == b"n");
    ensure!(
        fs::read_dir(root.join("steered"))?.next().is_none(),
        "a layer must not steer the overlay mount"
    );
    ensure!(
        !fs::read_dir(root)?
            .flatten()
            .any(|e| e.file_name().to_string_lossy().starts_with(".wh."))
    );
    Ok(())
}

fn layers_that_are_not_what_they_say_are_refused() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let images = scratch.images();
    let secret = scratch.0.join("secret");
    fs::write(&secret, "secret")?;
    for (name, archive, expected) in misleading(&secret)? {
        let refused = import(&images, name, &archive).map(drop).unwrap_err();
        ensure!(refused.to_string().contains(expected), "{name}: {refused}");
        ensure!(!images.exists(name));
    }
    let left = super::names(&scratch)?;
    ensure!(left.iter().all(|name| name == ".layers"), "{left:?}");
    images.prune()?;
    let left = fs::read_dir(scratch.0.join("images/.layers"))?.flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    ensure!(left == ["lock"], "{left:?}");
    Ok(())
}

/// Archives of images that are not what they say, and what is said about each. `secret` is a file outside.
fn misleading(secret: &Path) -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    let one = |tar: Vec<u8>| Saved::new(&json!({}), &[(tar, Packed::Gzip)]);
    let good = one(Tar::system().end())?;
    let mut cases = described(&good, secret)?;

    let mut exchanged = one(Tar::system().end())?;
    exchanged.layers = one(Tar::system().file("x", 0o644, b"").end())?.layers;
    cases.push((
        "exchanged",
        saved::archive(&exchanged.docker()?),
        "exchanged on its way",
    ));
    for name in [".wh.", "etc/.wh..", "etc/.wh..."] {
        let hides = one(Tar::system().file(name, 0o644, b"").end())?;
        cases.push(("hides", saved::archive(&hides.docker()?), "hides no file"));
    }
    let mut foreign: serde_json::Value = serde_json::from_slice(&good.config)?;
    foreign["architecture"] = "s390x".into();
    let mut other = one(Tar::system().end())?;
    other.config = serde_json::to_vec(&foreign)?;
    cases.push(("foreign", saved::archive(&other.docker()?), "linux/s390x"));
    let empty = Tar::new().dir("./", 0o755).end();
    let program = Saved::new(&json!({"Cmd": ["nginx"]}), &[(empty, Packed::Plain)])?;
    let archive = saved::archive(&program.docker()?);
    cases.push(("program", archive, "`nginx` is not in the image"));
    Ok(cases)
}

/// Those that are wrong in what describes the image.
fn described(good: &Saved, secret: &Path) -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    let mut damaged = good.layout()?;
    let config = Digest::of(&good.config).to_string();
    for (name, data) in &mut damaged {
        if *name == config.replace("sha256:", "blobs/sha256/") {
            data.push(b' ');
        }
    }
    let list = |list: serde_json::Value| -> Result<Tar> {
        Ok(Tar::new().file("config.json", 0o644, &good.config).file(
            "manifest.json",
            0o644,
            &serde_json::to_vec(&list)?,
        ))
    };
    let few = list(json!([{"Config": "config.json", "Layers": []}]))?;
    let both =
        list(json!([{"Config": "a", "Layers": []}, {"Config": "b", "Layers": [], "RepoTags": ["b:1"]}]))?;
    let escape = list(json!([{"Config": "config.json", "Layers": ["layer"]}]))?;
    let escape = escape.symlink("layer", &secret.display().to_string());
    Ok(vec![
        ("config", saved::archive(&damaged), "exchanged on its way"),
        ("few", few.end(), "diff_ids"),
        ("both", both.end(), "2 images (b:1)"),
        ("escape", escape.end(), "no such file"),
    ])
}

/// A link that a layer below has planted leads to another place of the image, whatever the next layer does through it.
fn layers_reach_nothing_outside() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let images = scratch.images();
    let out = scratch.0.join("out");
    fs::create_dir(&out)?;
    fs::write(out.join("secret"), "secret")?;
    let place = out.display().to_string();
    let up = format!("../../../../../../../../../../..{place}");
    let planted = Tar::system().symlink("a", &place).symlink("b", &up).end();
    for (name, entry) in [
        (
            "file",
            Tar::new().file("a/new", 0o644, b"x").file("b/new", 0o644, b"x"),
        ),
        ("over", Tar::new().file("a/secret", 0o4777, b"x")),
        ("hide", Tar::new().file("a/.wh.secret", 0o644, b"")),
        ("empty", Tar::new().file("a/.wh..wh..opq", 0o644, b"")),
        ("link", Tar::new().hardlink("mine", "a/secret")),
        (
            "dir",
            Tar::new().dir("a/", 0o777).file("b/.wh.secret", 0o644, b""),
        ),
    ] {
        let layers = [(planted.clone(), Packed::Plain), (entry.end(), Packed::Plain)];
        let saved = Saved::new(&json!({}), &layers)?;
        // Whether it is taken or refused: nothing of it is outside.
        let _ = import(&images, name, &saved::archive(&saved.docker()?));
        let there: Vec<_> = fs::read_dir(&out)?.flatten().map(|e| e.file_name()).collect();
        ensure!(there == ["secret"], "{name}: {there:?}");
        let status = fs::metadata(out.join("secret"))?;
        ensure!(status.nlink() == 1 && status.mode() & 0o7000 == 0, "{name}");
        ensure!(fs::read(out.join("secret"))? == b"secret", "{name}");
        ensure!(rustix::fs::getxattr(&out, "trusted.overlay.opaque", &mut [0; 8][..]).is_err());
    }
    Ok(())
}

fn what_a_killed_pull_left_is_pruned() -> Result<()> {
    needs!(root);
    let scratch = Scratch::new();
    let images = scratch.images();
    let dir = scratch.0.join("images");
    let hex = "a".repeat(64);
    let half = dir.join(format!(".layers/.tmp-{hex}/upper"));
    fs::create_dir_all(&half)?;
    fs::write(half.join("file"), vec![1; 10_000])?;
    fs::create_dir_all(dir.join(".blobs"))?;
    for name in [hex.clone(), format!(".part-{hex}"), format!(".lock-{hex}")] {
        fs::write(dir.join(".blobs").join(name), vec![1; 5000])?;
    }
    let removed = images.prune()?;
    let bytes: u64 = removed.iter().map(|one| one.bytes).sum();
    ensure!(removed.len() == 3 && bytes >= 20_000, "{removed:?}");
    ensure!(fs::read_dir(dir.join(".blobs"))?.next().is_none() && !half.exists());

    // An image whose manifest cannot be read may need any layer.
    let three = saved::three_layers()?;
    let image = images.import(
        "x",
        Archive::from_reader("x", &saved::archive(&three.docker()?)[..]),
        &ImportOptions::default(),
        &mut |_| {},
    )?;
    let manifest = dir.join("x/manifest.json");
    let text = fs::read(&manifest)?;
    fs::write(&manifest, "{")?;
    ensure!(matches!(images.prune().unwrap_err().root(), Error::Json(_)));
    fs::write(&manifest, text)?;
    ensure!(images.prune()?.is_empty() && image.layers.iter().all(|layer| layer.exists()));
    Ok(())
}
