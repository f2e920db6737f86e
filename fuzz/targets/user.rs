//! `exec --user`: what is understood is exactly what was written (CVE-2026-30892).
#![no_main]

use condo::process::credentials::user_and_group;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((uid, gid)) = user_and_group(text) else {
        return;
    };
    // The highest number is the kernel's "no change": the runtime would stay root.
    assert_ne!(uid, u32::MAX);
    assert_ne!(gid, Some(u32::MAX));
    let written = gid.map_or_else(|| uid.to_string(), |gid| format!("{uid}:{gid}"));
    assert_eq!(user_and_group(&written), Some((uid, gid)));
    // Nothing but zeros in front is lost.
    let bare = |number: &str| match number.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    let parts: Vec<String> = text.split(':').map(bare).collect();
    assert_eq!(parts.join(":"), written);
});
