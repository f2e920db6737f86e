//! Names of images in registries, and what registries ask for. A name that is accepted is read again as the same, and gives no
//! path, no port and no option to what is made of it.
#![no_main]

use condo::image::registry::{Challenge, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(reference) = Reference::parse(text) {
        let whole = reference.to_string();
        // It names the tag that is meant where none is said.
        let again = Reference::parse(&whole).map(|again| again.to_string());
        assert_eq!(again.ok().as_ref(), Some(&whole));
        assert!(
            !whole.split(['/', ':']).any(|part| part == ".." || part == "."),
            "{whole}"
        );
        assert!(
            whole
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"?#%\\".contains(&b))
        );
        let name = reference.image_name();
        assert!(!name.contains('/') && !name.starts_with(['.', '-']));
    }
    if let Some(Challenge::Bearer { realm, .. }) = Challenge::read(text) {
        assert!(realm.len() <= text.len());
    }
});
