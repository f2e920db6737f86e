use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn descriptor(kind: &str, digest: &str, platform: &str) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":7{platform}}}"#)
}

fn index(entries: &[String]) -> Result<Blob> {
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    match document(text.as_bytes())? {
        Document::Index(blob) => Ok(blob),
        Document::Manifest(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_index_is_read_by_platform() {
    let ours = format!(r#","platform":{{"os":"linux","architecture":"{}"}}"#, machine());
    let other = r#","platform":{"os":"linux","architecture":"mips64le"}"#;
    let unknown = r#","platform":{"os":"unknown","architecture":"unknown"}"#;
    for kind in MANIFESTS {
        let both = [
            descriptor(kind, A, other),
            descriptor(kind, B, &ours),
            descriptor(kind, A, unknown),
        ];
        assert_eq!(index(&both).unwrap().digest.to_string(), B);
        assert_eq!(index(&[descriptor(kind, A, "")]).unwrap().digest.to_string(), A);
        let none = index(&[descriptor(kind, A, other)]).unwrap_err().to_string();
        assert!(none.contains("linux/mips64le"), "{none}");
        assert!(index(&[descriptor(kind, A, ""), descriptor(kind, B, "")]).is_err());
    }
    assert!(index(&[descriptor("application/x", A, "")]).is_err());
}

fn manifest(config: &str, layer: &str) -> Result<Manifest> {
    let text = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor(config, A, ""),
        descriptor(layer, B, "")
    );
    match document(text.as_bytes())? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(other) => panic!("{other:?}"),
    }
}

#[test]
fn manifests_of_both_kinds_are_read_and_others_refused() {
    for (config, layer) in [
        (CONFIGS[0], "application/vnd.oci.image.layer.v1.tar+zstd"),
        (CONFIGS[0], "application/vnd.oci.image.layer.v1.tar"),
        (CONFIGS[1], "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        (
            CONFIGS[1],
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ),
    ] {
        let manifest = manifest(config, layer).unwrap();
        assert_eq!(manifest.layers[0].digest.to_string(), B);
        assert_eq!((manifest.config.size, manifest.layers.len()), (7, 1));
    }
    let chart = manifest("application/vnd.cncf.helm.config.v1+json", "x.tar").unwrap_err();
    assert!(chart.to_string().contains("helm"), "{chart}");
    assert!(
        manifest(
            CONFIGS[0],
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
        )
        .is_err()
    );
    let old = document(br#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err();
    assert!(old.to_string().contains("push it again"), "{old}");
    assert!(document(b"[]").is_err() && document(b"").is_err());
}

fn configured(process: &str) -> Result<Config> {
    let text = format!(
        r#"{{"os":"linux","architecture":"{}","config":{process},"rootfs":{{"type":"layers","diff_ids":["{A}"]}}}}"#,
        machine()
    );
    config(text.as_bytes())
}

#[test]
fn a_configuration_says_what_runs() {
    let read = configured(
        r#"{"Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c"],"User":"www","WorkingDir":"/srv","StopSignal":"SIGQUIT",
            "ExposedPorts":{"80/tcp":{}},"Labels":null,"Volumes":null}"#,
    )
    .unwrap();
    assert_eq!(read.program, ["/e", "c"]);
    assert_eq!(
        (read.process.env.as_slice(), read.stop_signal.as_deref()),
        (&["A=b".to_owned()][..], Some("SIGQUIT"))
    );
    assert_eq!(
        (read.process.user.as_str(), read.process.working_dir.as_str()),
        ("www", "/srv")
    );
    assert!(!read.runs_no_more_than_a_shell());
    for shell in ["null", r#"{"Cmd":["/bin/bash"]}"#, r#"{"Cmd":["sh"]}"#] {
        assert!(configured(shell).unwrap().runs_no_more_than_a_shell(), "{shell}");
    }
    assert!(
        !configured(r#"{"Cmd":["sh","-c","httpd"]}"#)
            .unwrap()
            .runs_no_more_than_a_shell()
    );
    let least = configured("null").unwrap();
    assert!(least.program.is_empty() && least.stop_signal.is_none());
    assert!(configured(r#"{"Env":["A=\u0000"]}"#).is_err());
    let foreign = br#"{"os":"windows","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
    assert!(config(foreign).unwrap_err().to_string().contains("windows/amd64"));
}
