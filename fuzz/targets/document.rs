//! Documents of images: an index, a manifest, a configuration. What is accepted has digests and few layers, and can be run.
#![no_main]

use condo::image::oci::{self, Blob, Document};
use libfuzzer_sys::fuzz_target;

fn check_blob(blob: &Blob) {
    let text = blob.digest.to_string();
    assert_eq!(text.len(), "sha256:".len() + 64);
    assert!(!text.contains('/') && !text.contains('.'));
}

fuzz_target!(|data: &[u8]| {
    match oci::document(data) {
        Ok(Document::Index(blob)) => check_blob(&blob),
        Ok(Document::Manifest(manifest)) => {
            check_blob(&manifest.config);
            manifest.layers.iter().for_each(check_blob);
            assert!((1..=256).contains(&manifest.layers.len()));
        }
        Err(_) => {}
    }
    if let Ok(config) = oci::config(data) {
        assert!((1..=256).contains(&config.diff_ids.len()));
        let process = &config.process;
        let texts = config.program.iter().chain(&process.env);
        for text in texts.chain([&process.user, &process.working_dir]) {
            assert!(!text.contains('\0'));
        }
    }
});
