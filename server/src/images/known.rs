//! Images as clients know them: by fingerprints, with properties, under aliases.
//!
//! condo knows an image by its name. That is its first alias, unless it was made up because whoever sent the image gave none.

use std::collections::BTreeMap;

use condo::error::Error;
use condo::vps::record::instance::Condo;
use condo::vps::record::view::ImageView;
use serde::{Deserialize, Serialize};

use crate::keys::Keys;
use crate::operations::random_id;
use crate::reply::Problem;

/// What notes and aliases are kept as.
const NOTES: &str = "image";
const ALIAS: &str = "alias";
/// The shortest beginning of a fingerprint that stands for it.
const SHORTEST: usize = 6;
/// Names that were made up: this and so many digits.
const MADE_UP: &str = "image-";
const DIGITS: usize = 12;
/// The longest alias.
const LONGEST: usize = 255;

/// What was found out about an image, and what clients have said of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Notes {
    /// When the image was made that this is about: another may have got its name.
    created: i64,
    fingerprint: String,
    pub(crate) properties: Option<Keys>,
    pub(crate) public: bool,
    /// Words about the alias that its name is.
    pub(crate) description: String,
}

/// One more name of an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// The image's own name.
    image: String,
    description: String,
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// An image.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) view: ImageView,
    pub(crate) notes: Notes,
    pub(crate) aliases: Vec<Alias>,
}

/// A name for an image that got none.
pub(crate) fn made_up() -> Result<String, Problem> {
    let digits: String = random_id()?
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(DIGITS)
        .collect();
    Ok(format!("{MADE_UP}{digits}"))
}

fn is_made_up(name: &str) -> bool {
    let digits = name.strip_prefix(MADE_UP).unwrap_or_default();
    digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Refuses what cannot be an alias.
pub(crate) fn check_alias(name: &str) -> Result<(), Problem> {
    let fine = !name.is_empty() && name.len() <= LONGEST && !name.starts_with('-');
    if fine && name.chars().all(|c| !c.is_control() && c != ':') {
        return Ok(());
    }
    Err(Problem::value(
        "name",
        name,
        "is not an alias: at most 255 characters, none of them `:`",
    ))
}

/// All images, by name.
pub(crate) fn all(condo: &Condo) -> condo::error::Result<Vec<Known>> {
    let notes = condo.store.kept(NOTES)?;
    let aliases = aliases(condo)?;
    let views = condo.image_list()?.into_iter();
    views.map(|view| known(condo, view, &notes, &aliases)).collect()
}

fn aliases(condo: &Condo) -> condo::error::Result<BTreeMap<String, Kept>> {
    let all = condo.store.kept(ALIAS)?.into_iter();
    all.map(|(name, text)| Ok((name, read(&text)?))).collect()
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> condo::error::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::Corrupt(format!("the database holds unusable notes of an image: {e}")))
}

fn known(
    condo: &Condo,
    view: ImageView,
    notes: &BTreeMap<String, String>,
    aliases: &BTreeMap<String, Kept>,
) -> condo::error::Result<Known> {
    let mut found: Notes = notes
        .get(&view.name)
        .map_or(Ok(Notes::default()), |text| read(text))?;
    if found.created != view.created || found.fingerprint.is_empty() {
        found = Notes {
            created: view.created,
            fingerprint: condo.image_fingerprint(&view.name)?,
            ..Notes::default()
        };
        keep(condo, &view.name, &found)?;
    }
    let own = (!is_made_up(&view.name)).then(|| Alias {
        name: view.name.clone(),
        description: found.description.clone(),
    });
    let more = aliases.iter().filter(|(_, kept)| kept.image == view.name);
    let more = more.map(|(name, kept)| Alias {
        name: name.clone(),
        description: kept.description.clone(),
    });
    Ok(Known {
        aliases: own.into_iter().chain(more).collect(),
        view,
        notes: found,
    })
}

fn keep(condo: &Condo, name: &str, notes: &Notes) -> condo::error::Result<()> {
    condo.store.keep(NOTES, name, &serde_json::to_string(notes)?)
}

/// The image with this fingerprint, or the only one whose fingerprint begins like that.
pub(crate) fn find(condo: &Condo, wanted: &str) -> Result<Known, Problem> {
    let hex = wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let mut found = Vec::new();
    if hex && wanted.len() >= SHORTEST {
        found = all(condo)?;
        found.retain(|image| image.notes.fingerprint.starts_with(&wanted.to_lowercase()));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Problem::missing("Image", wanted)),
        n => Err(Problem::bad(format!(
            "fingerprint: `{wanted}` begins those of {n} images"
        ))),
    }
}

/// The image of this alias. Others' names have slashes (`debian/12`), condo's have hyphens.
pub(crate) fn named(condo: &Condo, alias: &str) -> Result<(Known, Alias), Problem> {
    let all = all(condo)?;
    let known_as = |wanted: &str| {
        all.iter().find_map(|image| {
            let alias = image.aliases.iter().find(|alias| alias.name == wanted)?;
            Some((image.clone(), alias.clone()))
        })
    };
    let found = known_as(alias).or_else(|| known_as(&alias.replace('/', "-")));
    found.ok_or_else(|| Problem::missing("Image alias", alias))
}

impl Known {
    pub(crate) fn fingerprint(&self) -> &str {
        &self.notes.fingerprint
    }

    /// What is said about it, and becomes `image.*` keys of what is made of it.
    pub(crate) fn properties(&self) -> Keys {
        let usual = [
            ("architecture", &self.view.architecture),
            ("description", &self.view.name),
            ("name", &self.view.name),
        ];
        let usual = || usual.map(|(key, value)| (key.to_owned(), value.clone())).into();
        self.notes.properties.clone().unwrap_or_else(usual)
    }

    /// Keeps other notes.
    pub(crate) fn note(&self, condo: &Condo, change: impl FnOnce(&mut Notes)) -> condo::error::Result<()> {
        let mut notes = self.notes.clone();
        change(&mut notes);
        keep(condo, &self.view.name, &notes)
    }

    /// Whether it has no name yet but one that was made up, and can still get another.
    pub(crate) fn is_nameless(&self) -> bool {
        is_made_up(&self.view.name) && self.view.used_by.is_empty()
    }

    /// Moves what is known of it to another name, which it has got.
    pub(crate) fn renamed(&self, condo: &Condo, new: &str) -> condo::error::Result<()> {
        keep(condo, new, &self.notes)?;
        for alias in self.kept_aliases() {
            self.add_alias(condo, new, alias)?;
        }
        forget(condo, &self.view.name)
    }

    fn kept_aliases(&self) -> impl Iterator<Item = &Alias> {
        self.aliases.iter().filter(|alias| alias.name != self.view.name)
    }

    fn add_alias(&self, condo: &Condo, image: &str, alias: &Alias) -> condo::error::Result<()> {
        let kept = Kept {
            image: image.to_owned(),
            description: alias.description.clone(),
        };
        condo
            .store
            .keep(ALIAS, &alias.name, &serde_json::to_string(&kept)?)
    }

    /// Gives it one more alias, or other words to one it has.
    pub(crate) fn call(&self, condo: &Condo, alias: &Alias) -> condo::error::Result<()> {
        if alias.name == self.view.name {
            return self.note(condo, |notes| notes.description.clone_from(&alias.description));
        }
        self.add_alias(condo, &self.view.name, alias)
    }

    /// Takes an alias away that is not its own name.
    pub(crate) fn uncall(&self, condo: &Condo, alias: &str) -> condo::error::Result<()> {
        condo.store.let_go(ALIAS, alias)
    }

    /// Forgets what is known of it: it is gone.
    pub(crate) fn forget(&self, condo: &Condo) -> condo::error::Result<()> {
        for alias in self.kept_aliases() {
            gone(condo.store.let_go(ALIAS, &alias.name))?;
        }
        forget(condo, &self.view.name)
    }
}

fn forget(condo: &Condo, name: &str) -> condo::error::Result<()> {
    gone(condo.store.let_go(NOTES, name))
}

fn gone(result: condo::error::Result<()>) -> condo::error::Result<()> {
    match result {
        Err(e) if e.is_gone() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_made_up_are_no_aliases() {
        let name = made_up().unwrap();
        assert!(is_made_up(&name), "{name}");
        assert!(!is_made_up("image-of-mine") && !is_made_up("busybox"));
        check_alias("debian/12/cloud").unwrap();
        for bad in ["", "-x", "a\nb", "remote:x", &"x".repeat(256)] {
            assert!(check_alias(bad).is_err(), "{bad:?}");
        }
    }
}
