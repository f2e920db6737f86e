//! `state.json`: what is read is written again as it was, and read again as the same.
#![no_main]

use condo::runtime::state::State;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(state) = serde_json::from_slice::<State>(data) else {
        return;
    };
    let Ok(written) = serde_json::to_vec(&state) else {
        panic!("what was read cannot be written: {state:?}");
    };
    let Ok(again) = serde_json::from_slice::<State>(&written) else {
        panic!(
            "what was written cannot be read: {}",
            String::from_utf8_lossy(&written)
        );
    };
    assert_eq!(format!("{state:?}"), format!("{again:?}"));
});
