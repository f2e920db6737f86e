//! What was found in the kernel's description of itself, kept until the next boot: to look for it again takes milliseconds, which
//! every start of a VPS would pay.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Places;
use crate::error::Result;
use crate::files;

/// One for all condos of the machine, which have one kernel.
pub(super) const FILE: &str = "/run/condo-kernel.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    boot: String,
    functions: Vec<(String, Option<u32>)>,
    fields: Vec<(String, String, Option<i16>)>,
}

impl Kept {
    fn new<const F: usize, const S: usize>(
        boot: &str,
        (functions, fields): ([&str; F], [(&str, &str); S]),
        (ids, places): Places<F, S>,
    ) -> Self {
        let named = |(name, id): (&str, Option<u32>)| (name.to_owned(), id);
        let placed =
            |((of, field), place): ((&str, &str), Option<i16>)| (of.to_owned(), field.to_owned(), place);
        Self {
            boot: boot.to_owned(),
            functions: functions.into_iter().zip(ids).map(named).collect(),
            fields: fields.into_iter().zip(places).map(placed).collect(),
        }
    }

    /// What was found, if it was looked for in the kernel of this boot, and this in this order.
    fn answer<const F: usize, const S: usize>(
        &self,
        boot: &str,
        asked: ([&str; F], [(&str, &str); S]),
    ) -> Option<Places<F, S>> {
        let ids: Vec<_> = self.functions.iter().map(|(_, id)| *id).collect();
        let places: Vec<_> = self.fields.iter().map(|(_, _, place)| *place).collect();
        let found = (ids.try_into().ok()?, places.try_into().ok()?);
        (*self == Self::new(boot, asked, found)).then_some(found)
    }
}

/// What `file` keeps, or what a look finds, which it keeps from then on. A file that cannot be written costs time alone.
pub(super) fn or_look<const F: usize, const S: usize>(
    file: &Path,
    boot: &str,
    asked: ([&str; F], [(&str, &str); S]),
    look: impl FnOnce() -> Result<Places<F, S>>,
) -> Result<Places<F, S>> {
    let kept = files::read(file)
        .ok()
        .and_then(|raw| serde_json::from_slice::<Kept>(&raw).ok());
    if let Some(found) = kept.and_then(|kept| kept.answer(boot, asked)) {
        return Ok(found);
    }
    let found = look()?;
    let raw = serde_json::to_vec(&Kept::new(boot, asked, found))?;
    if let Err(e) = files::write_atomic(file, &raw, 0o600) {
        log::debug!("what the kernel says of its types is read at the next start again: {e}");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: ([&str; 2], [(&str, &str); 1]) = (["here", "nowhere"], [("sock", "protocol")]);
    const FOUND: Places<2, 1> = ([Some(7), None], [Some(24)]);

    #[test]
    fn it_is_looked_for_once_in_each_boot_and_for_each_question() {
        let file = std::env::temp_dir().join(format!("condo-kernel-{}", std::process::id()));
        let never = || -> Result<Places<2, 1>> { panic!("it was kept") };
        assert_eq!(or_look(&file, "one", ASKED, || Ok(FOUND)).unwrap(), FOUND);
        assert_eq!(or_look(&file, "one", ASKED, never).unwrap(), FOUND);

        let other = ([Some(9), None], [None]);
        assert_eq!(or_look(&file, "two", ASKED, || Ok(other)).unwrap(), other);
        let asked = (["nowhere", "here"], ASKED.1);
        assert_eq!(or_look(&file, "two", asked, || Ok(FOUND)).unwrap(), FOUND);
        let longer = or_look(&file, "two", (["here"], ASKED.1), || Ok(([None], [None])));
        assert_eq!(longer.unwrap(), ([None], [None]));

        std::fs::write(&file, "half of it").unwrap();
        assert_eq!(or_look(&file, "two", ASKED, || Ok(FOUND)).unwrap(), FOUND);
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn where_nothing_can_be_kept_it_is_found_all_the_same() {
        let nowhere = Path::new("/nonexistent/kept.json");
        assert_eq!(or_look(nowhere, "one", ASKED, || Ok(FOUND)).unwrap(), FOUND);
    }
}
