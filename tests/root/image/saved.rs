//! Images in layers, written as registries and archives have them.

use std::path::Path;

use anyhow::Result;
use condo::image::Digest;
use serde_json::{Value, json};

use super::{NET_RAW, Tar};

/// An image: its layers' archives as they are packed, and what describes them.
pub(crate) struct Saved {
    pub(crate) config: Vec<u8>,
    /// Packed, the lowest first.
    pub(crate) layers: Vec<Vec<u8>>,
}

/// How Go calls this machine.
pub(crate) fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Saved {
    /// An image of these archives, each with the way it is packed.
    pub(crate) fn new(config: &Value, layers: &[(Vec<u8>, Packed)]) -> Result<Self> {
        let diff_ids: Vec<_> = layers
            .iter()
            .map(|(tar, _)| Digest::of(tar).to_string())
            .collect();
        let config = json!({
            "os": "linux",
            "architecture": machine(),
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Ok(Self {
            config: serde_json::to_vec(&config)?,
            layers: layers
                .iter()
                .map(|(tar, packed)| packed.pack(tar))
                .collect::<Result<_>>()?,
        })
    }

    /// The manifest, in OCI's words or Docker's.
    pub(crate) fn manifest(&self, docker: bool) -> Result<Vec<u8>> {
        let (manifest, config, layer) = if docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        } else {
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+zstd",
            )
        };
        let described = |kind: &str, data: &[u8]| json!({"mediaType": kind, "digest": Digest::of(data).to_string(), "size": data.len()});
        Ok(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": manifest,
            "config": described(config, &self.config),
            "layers": self.layers.iter().map(|data| described(layer, data)).collect::<Vec<_>>(),
        }))?)
    }

    /// An index that has another machine's image beside this manifest.
    pub(crate) fn index(manifest: &[u8]) -> Result<Vec<u8>> {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let entry = |digest: String, size: usize, machine: &str| {
            json!({"mediaType": kind, "digest": digest, "size": size,
                   "platform": {"os": "linux", "architecture": machine}})
        };
        Ok(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                entry(format!("sha256:{}", "0".repeat(64)), 7, "s390x"),
                entry(Digest::of(manifest).to_string(), manifest.len(), machine()),
            ],
        }))?)
    }

    /// Files of an OCI layout.
    pub(crate) fn layout(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let manifest = self.manifest(false)?;
        let inner = Self::index(&manifest)?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": Digest::of(&inner).to_string(), "size": inner.len(),
        }]});
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
        ];
        for data in [&self.config, &manifest, &inner].into_iter().chain(&self.layers) {
            let name = Digest::of(data).to_string().replace("sha256:", "blobs/sha256/");
            files.push((name, data.clone()));
        }
        Ok(files)
    }

    /// Files of what `docker save` writes, the layers unpacked or not.
    pub(crate) fn docker(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let names: Vec<_> = (0..self.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
        let list = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": names}]);
        let mut files: Vec<_> = names.into_iter().zip(self.layers.iter().cloned()).collect();
        files.push(("config.json".to_owned(), self.config.clone()));
        files.push(("manifest.json".to_owned(), serde_json::to_vec(&list)?));
        Ok(files)
    }
}

/// An archive of these files.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let tar = files
        .iter()
        .fold(Tar::new(), |tar, (path, data)| tar.file(path, 0o644, data));
    tar.end()
}

/// The same in a directory.
pub(crate) fn directory(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    for (path, data) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        std::fs::write(path, data)?;
    }
    Ok(())
}

/// How a layer is packed.
#[derive(Clone, Copy)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Packed {
    fn pack(self, tar: &[u8]) -> Result<Vec<u8>> {
        use std::io::Write;
        Ok(match self {
            Self::Plain => tar.to_vec(),
            Self::Zstd => zstd::stream::encode_all(tar, 1)?,
            Self::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(tar)?;
                gzip.finish()?
            }
        })
    }
}

/// Three layers that hide, replace and link what is below them.
pub(crate) fn three_layers() -> Result<Saved> {
    let lowest = Tar::system()
        .dir("etc/", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n")
        .file("etc/keep", 0o644, b"1")
        .owned(b'5', ("home/joe/", ""), (0o2750, 1000), b"")
        .dir("usr/lib/", 0o755)
        .file("usr/lib/a", 0o644, b"1")
        .symlink("lib", "usr/lib")
        .file("opaque/x", 0o644, b"1")
        .file("opaque/deep/y", 0o644, b"1")
        .file("old/deep/er/x", 0o644, b"1")
        .file("again/x", 0o644, b"1")
        .file("swap/inner/x", 0o644, b"1")
        .file("file", 0o644, b"1")
        .pax(&[
            ("SCHILY.xattr.security.capability", &NET_RAW),
            ("SCHILY.xattr.user.note", b"n"),
        ])
        .file("bin/ping", 0o755, b"ping")
        .end();
    let middle = Tar::new()
        .file("lib/b", 0o644, b"2")
        .owned(b'0', ("home/joe/more", ""), (0o600, 1000), b"2")
        .hardlink("bin/ping6", "bin/ping")
        .file(".wh.old", 0o644, b"")
        .file("etc/.wh.passwd", 0o644, b"")
        .file("opaque/z", 0o644, b"2")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("swap", 0o644, b"2")
        .dir("file/", 0o700)
        .file("file/inner", 0o644, b"2")
        .file("again/new", 0o644, b"2")
        // Behind what it must not hide: it is about the layers below alone.
        .file(".wh.again", 0o644, b"")
        .file(".wh..wh.plnk", 0o644, b"")
        .file(".wh.never-there", 0o644, b"")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .dir("steered/", 0o755)
        .end();
    let upper = Tar::new()
        .file("old/new", 0o644, b"3")
        .file("bin/.wh.ping", 0o644, b"")
        .end();
    let config = json!({"Env": ["A=b"], "Entrypoint": ["/sbin/init"]});
    Saved::new(
        &config,
        &[
            (lowest, Packed::Plain),
            (middle, Packed::Zstd),
            (upper, Packed::Gzip),
        ],
    )
}
