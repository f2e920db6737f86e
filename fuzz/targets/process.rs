//! `exec --process FILE`: a process that is accepted can be started as it is.
#![no_main]

use condo::process::Process;
use condo::runtime::bundle;
use condo_fuzz::{check_process, is_a_user_s_error};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match bundle::parse_process(data).and_then(|process| Process::from_spec(&process)) {
        Ok(process) => check_process(&process),
        Err(e) => assert!(is_a_user_s_error(&e), "{e:?}"),
    }
});
