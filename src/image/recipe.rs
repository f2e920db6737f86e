//! Recipes: how an image is made on this host, as data. A recipe is a folder with `recipe.json` and the small files it puts
//! into the image; the ones of `images/` are part of the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags};
use serde::Deserialize;

use super::entry::{Entry, Kind};
use super::tree::Tree;
use crate::error::{During, Error, Result};
use crate::files::{self, Root, inside};

/// Files of a built-in recipe by name.
type Files = &'static [(&'static str, &'static [u8])];

/// The files of a folder below `images/`.
macro_rules! embed {
    ($recipe:literal: $($file:literal),* $(,)?) => {
        ($recipe, &[$(($file, include_bytes!(concat!("../../images/", $recipe, "/", $file)) as &[u8])),*])
    };
}

/// The recipes inside the program, so that it needs no files beside it.
const BUILT_IN: &[(&str, Files)] = &[
    embed!("busybox": "recipe.json", "console", "group", "inittab", "os-release", "passwd", "profile", "rcK", "rcS", "shadow"),
    embed!("debian-12": "recipe.json", "condo-ssh-keys.service", "condo-ssh-rsa-key.service", "hosts", "journald.conf", "locale", "resolv.conf"),
    embed!("debian-13": "recipe.json", "condo-ssh-keys.service", "condo-ssh-rsa-key.service", "hosts", "journald.conf", "locale", "resolv.conf"),
    embed!("debian-openrc": "recipe.json", "hosts", "inittab", "locale", "rc.conf", "resolv.conf", "ssh-keys"),
];

/// Largest file of a recipe; they are configuration.
const LARGEST: u64 = 1 << 20;

/// How to make an image.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub(super) text: Text,
    files: BTreeMap<String, Vec<u8>>,
}

/// `recipe.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) base: Base,
    pub(super) init: Option<Vec<String>>,
    pub(super) stop_signal: Option<String>,
    /// Taken out of the base; the last part may end in `*`.
    #[serde(default)]
    remove: Vec<PathBuf>,
    #[serde(default)]
    directories: Vec<Directory>,
    #[serde(default)]
    files: Vec<Copied>,
    /// Symbolic links and where they point.
    #[serde(default)]
    links: BTreeMap<PathBuf, PathBuf>,
}

/// What a recipe starts from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Base {
    /// The static busybox of this host, with a link for each of its applets.
    Busybox,
    /// A Debian system, installed from the archive that this host uses.
    Debian {
        /// Its code name: `bookworm`.
        suite: String,
        /// Packages beside the essential ones.
        packages: Vec<String>,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    path: PathBuf,
    /// Octal, as text.
    mode: String,
}

/// A file of the recipe's folder and its place in the image. Its owner is root.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copied {
    path: PathBuf,
    /// The name in the recipe's folder; absent for an empty file.
    from: Option<String>,
    mode: String,
    #[serde(default)]
    gid: u32,
}

impl Recipe {
    /// The names of the built-in recipes.
    pub fn names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    /// A built-in recipe.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let (_, files) = BUILT_IN.iter().find(|(n, _)| *n == name).ok_or_else(|| {
            Error::invalid(
                "recipe",
                name,
                format!("is not one of {}", Self::names().join(", ")),
            )
        })?;
        Self::from_files(
            files
                .iter()
                .map(|(name, data)| ((*name).to_owned(), data.to_vec()))
                .collect(),
        )
    }

    /// A recipe in a folder: `recipe.json` and the files it names.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        let root = Root::open(dir)?;
        for entry in std::fs::read_dir(dir).during(|| format!("read `{}`", dir.display()))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !entry.metadata()?.is_file() {
                continue;
            }
            let data = root.read(Path::new(&name), LARGEST + 1)?;
            if data.len() as u64 > LARGEST {
                return Err(Error::invalid(
                    "recipe file",
                    name,
                    format!("has more than {LARGEST} bytes"),
                ));
            }
            found.insert(name, data);
        }
        Self::from_files(found).during(|| format!("read recipe `{}`", dir.display()))
    }

    /// Its name, which is also the usual name of the image.
    pub fn name(&self) -> &str {
        &self.text.name
    }

    /// The same recipe for an image of another name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no image name.
    pub fn called(mut self, name: &str) -> Result<Self> {
        super::validate_name(name)?;
        self.text.name = name.to_owned();
        Ok(self)
    }

    /// What it makes, in one line.
    pub fn description(&self) -> &str {
        &self.text.description
    }

    fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let text = files
            .get("recipe.json")
            .ok_or_else(|| Error::invalid("recipe", "recipe.json", "is missing"))?;
        let text: Text = serde_json::from_slice(text).during(|| "read `recipe.json`")?;
        super::validate_name(&text.name)?;
        let recipe = Self { text, files };
        // Everything that can be wrong is found before anything is built.
        recipe.entries()?;
        recipe
            .text
            .remove
            .iter()
            .try_for_each(|path| inside(path).map(drop))?;
        Ok(recipe)
    }

    /// Applies the recipe to its finished base.
    pub(super) fn apply(&self, root: &Root, tree: &mut Tree<'_>) -> Result<()> {
        for pattern in &self.text.remove {
            remove(root, &inside(pattern)?)
                .during(|| format!("remove `{}` from the image", pattern.display()))?;
        }
        for (entry, content) in self.entries()? {
            tree.put(&entry, &mut { content })?;
        }
        Ok(())
    }

    /// What the recipe puts into the image, in order.
    fn entries(&self) -> Result<Vec<(Entry, &[u8])>> {
        let mut all = Vec::new();
        for dir in &self.text.directories {
            all.push((
                Entry::new(inside(&dir.path)?, Kind::Dir, octal(&dir.mode)?),
                &[][..],
            ));
        }
        for file in &self.text.files {
            let content = match &file.from {
                None => &[][..],
                Some(name) => self
                    .files
                    .get(name)
                    .ok_or_else(|| Error::invalid("recipe file", name, "is not in the recipe's folder"))?,
            };
            let mut entry = Entry::new(inside(&file.path)?, Kind::File(None), octal(&file.mode)?);
            entry.gid = file.gid;
            all.push((entry, content));
        }
        for (path, target) in &self.text.links {
            all.push((
                Entry::new(inside(path)?, Kind::Symlink(target.clone()), 0o777),
                &[][..],
            ));
        }
        Ok(all)
    }
}

fn octal(mode: &str) -> Result<u32> {
    u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| Error::invalid("mode", mode, "is not an octal number up to 7777"))
}

/// Removes what a pattern names. The directory is held open while its content goes, so that no link leads elsewhere.
fn remove(root: &Root, pattern: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let parent = Path::new(".").join(pattern.parent().unwrap_or(Path::new("")));
    let dir = match root.get(&parent, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(e) if e.is_gone() => return Ok(()),
        other => other?,
    };
    let last = pattern.file_name().unwrap_or_default().to_string_lossy();
    let here = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let Some(prefix) = last.strip_suffix('*') else {
        return files::remove_tree(&here.join(&*last));
    };
    for entry in std::fs::read_dir(&here)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with(prefix) {
            continue;
        }
        match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => files::remove_tree(&here.join(&name))?,
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_recipes_are_sound() {
        for name in Recipe::names() {
            let recipe = Recipe::named(name).unwrap();
            assert_eq!(recipe.name(), name);
            let used: Vec<_> = recipe
                .text
                .files
                .iter()
                .filter_map(|f| f.from.as_deref())
                .collect();
            for file in recipe.files.keys().filter(|f| *f != "recipe.json") {
                assert!(used.contains(&file.as_str()), "{name}: {file} is not used");
            }
        }
        assert!(
            Recipe::named("fedora")
                .unwrap_err()
                .to_string()
                .contains("busybox, debian-12, debian-13, debian-openrc")
        );
    }

    #[test]
    fn recipes_that_leave_the_root_or_name_no_file_are_refused() {
        let read = |extra: &str| {
            let text = format!("{{\"name\":\"x\",\"description\":\"\",\"base\":\"busybox\",{extra}}}");
            Recipe::from_files([("recipe.json".to_owned(), text.into_bytes())].into())
        };
        read(r#""links":{"a":"/etc/../b"}"#).unwrap();
        for bad in [
            r#""links":{"../a":"b"}"#,
            r#""remove":["a/../../b"]"#,
            r#""files":[{"path":"a","from":"nothing","mode":"644"}]"#,
            r#""files":[{"path":"a","mode":"9"}]"#,
            r#""unknown":1"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
