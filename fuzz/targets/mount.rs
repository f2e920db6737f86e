//! Options of a mount: sorting them loses nothing and invents nothing, and the kernel's attributes fit together.
#![no_main]

use condo::rootfs::options::{Options, names};
use condo_fuzz::check_change;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let given: Vec<&str> = text.split(',').collect();
    let parsed = Options::parse(&given);
    check_change(parsed.top);
    check_change(parsed.tree);
    // What condo does not know is for the filesystem: all of it, in order, unchanged.
    let unknown: Vec<&str> = given
        .iter()
        .copied()
        .filter(|o| !o.is_empty() && !names().any(|n| n == *o))
        .collect();
    assert_eq!(parsed.data, unknown);
    // Only what was asked for.
    let asked = |option: &str| given.contains(&option);
    assert_eq!(
        parsed.bind,
        (asked("bind") || asked("rbind")).then_some(asked("rbind"))
    );
    assert_eq!(
        parsed.idmap,
        (asked("idmap") || asked("ridmap")).then_some(asked("ridmap"))
    );
    assert_eq!(
        (parsed.remount, parsed.copy_up),
        (asked("remount"), asked("tmpcopyup"))
    );
    // Said twice is said once, but for what is handed on as a list.
    let twice = Options::parse(&[given.as_slice(), given.as_slice()].concat());
    assert_eq!((twice.top, twice.tree), (parsed.top, parsed.tree));
    // The last word on a switch holds.
    for (yes, no) in [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("nosymfollow", "symfollow"),
    ] {
        let last = given
            .iter()
            .rev()
            .find(|option| **option == yes || **option == no);
        let alone = last.map(|option| Options::parse(&[option]).top);
        let bit = Options::parse(&[yes]).top.set;
        let says = |change: condo::rootfs::options::Change| (change.set & bit, change.clear & bit);
        assert_eq!(says(parsed.top), alone.map_or((0, 0), says));
    }
});
