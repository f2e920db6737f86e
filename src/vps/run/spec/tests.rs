use std::net::Ipv4Addr;

use super::*;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::limits::Limits;

fn facts() -> Facts {
    Facts {
        cpus: (0..8).collect(),
        memory: 8 << 30,
        swap: 0,
        controllers: ["cpu", "cpuset", "memory", "pids", "io"].map(Into::into).into(),
        swap_accounting: true,
        unified: true,
        open_files: 1 << 20,
        oom_score: 0,
        clocks: Some(Clocks {
            monotonic: 1000,
            boottime: 1200,
        }),
    }
}

fn record(limits: Limits) -> Record {
    Record {
        name: "web".parse().unwrap(),
        id: 3,
        uid_base: 1_000_131_072,
        address: Ipv4Addr::new(10, 88, 0, 4),
        interfaces: Vec::new(),
        uuid: "7f1b2c9e-8a51-4f0e-9d5d-3f6f6f1f2a11".into(),
        config: VpsConfig {
            limits,
            env: [
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
                ("PATH".to_owned(), "/bin".to_owned()),
            ]
            .into(),
            ..VpsConfig::new("busybox")
        },
        created: 1,
        last_exit: None,
    }
}

fn everything() -> Limits {
    Limits {
        cpus: Some(1.5),
        cpu_weight: Some(200),
        cpuset: Some("0-1".into()),
        memory: Some(1 << 30),
        swap: Some(0),
        pids: Some(4096),
        io_read: Some(100 << 20),
        io_write: Some(50 << 20),
        iops_read: Some(2000),
        iops_write: Some(1000),
        io_weight: Some(500),
        rate_in: Some(1_000_000),
        rate_out: Some(1_000_000),
        burst: Some(8192),
    }
}

fn with<T>(limits: Limits, facts: &Facts, disk: Option<(u32, u32)>, work: impl FnOnce(Input<'_>) -> T) -> T {
    let record = record(limits);
    let init = Init {
        args: vec!["/sbin/init".into()],
        env: vec![("LANG".into(), "C.UTF-8".into())],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: vec![],
    };
    let nodes = super::super::nodes::of(&record.config).unwrap();
    work(Input {
        record: &record,
        init: &init,
        rootfs: Path::new("/var/lib/condo/vps/web/bundle/rootfs"),
        nodes: (Path::new("/var/lib/condo/vps/web/bundle/dev"), &nodes),
        engines: (
            Path::new("/var/lib/condo/vps/web/bundle/engines"),
            &["/var/lib/docker"],
        ),
        own: None,
        cgroup: "/condo/web",
        disk,
        facts,
        seccomp: None,
    })
}

fn rendered(limits: Limits, facts: &Facts) -> Value {
    let spec = with(limits, facts, Some((8, 16)), render).unwrap();
    serde_json::to_value(spec).unwrap()
}

/// Everything written by hand in the source arrives in the typed form: a misspelt key would be dropped silently.
#[test]
fn the_typed_form_loses_nothing() {
    let facts = facts();
    let written = with(everything(), &facts, Some((8, 16)), |input| {
        document(&input).unwrap()
    });
    assert_covers(&rendered(everything(), &facts), &written, "");
    let v1 = Facts {
        unified: false,
        ..facts
    };
    let written = with(everything(), &v1, Some((8, 16)), |input| {
        document(&input).unwrap()
    });
    assert_covers(&rendered(everything(), &v1), &written, "");
}

fn assert_covers(typed: &Value, written: &Value, at: &str) {
    match (typed, written) {
        (Value::Object(typed), Value::Object(written)) => {
            for (key, value) in written {
                let at = format!("{at}.{key}");
                let typed = typed.get(key).unwrap_or_else(|| panic!("{at} was dropped"));
                assert_covers(typed, value, &at);
            }
        }
        (Value::Array(typed), Value::Array(written)) => {
            assert_eq!(typed.len(), written.len(), "{at}");
            // Capability sets come back in an order of their own.
            if at.contains("capabilities") {
                return assert!(written.iter().all(|w| typed.contains(w)), "{at}");
            }
            for (typed, written) in typed.iter().zip(written) {
                assert_covers(typed, written, at);
            }
        }
        _ => assert_eq!(typed, written, "{at}"),
    }
}

#[test]
fn every_limit_has_its_place() {
    let resources = rendered(everything(), &facts())["linux"]["resources"].clone();
    let device = |rate: u64| json!([{ "major": 8, "minor": 16, "rate": rate }]);
    assert_eq!(
        resources["cpu"],
        json!({ "quota": 150_000, "period": 100_000, "cpus": "0-1" })
    );
    assert_eq!(
        resources["memory"],
        json!({ "limit": 1_u64 << 30, "swap": 1_u64 << 30 })
    );
    assert_eq!(resources["pids"], json!({ "limit": 4096 }));
    assert_eq!(resources["unified"], json!({ "cpu.weight": "200" }));
    assert_eq!(
        resources["blockIO"],
        json!({
            "throttleReadBpsDevice": device(100 << 20),
            "throttleWriteBpsDevice": device(50 << 20),
            "throttleReadIOPSDevice": device(2000),
            "throttleWriteIOPSDevice": device(1000),
            "weightDevice": [{ "major": 8, "minor": 16, "weight": 500 }],
        })
    );
}

#[test]
fn without_limits_only_devices_are_controlled() {
    let resources = rendered(Limits::default(), &facts())["linux"]["resources"].clone();
    let keys: Vec<_> = resources.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["devices"]);
    assert_eq!(
        resources["devices"][0],
        json!({ "allow": false, "access": "rwm" })
    );
}

#[test]
fn on_v1_the_weight_is_shares() {
    let v1 = Facts {
        unified: false,
        ..facts()
    };
    let resources = rendered(everything(), &v1)["linux"]["resources"].clone();
    assert_eq!(resources["cpu"]["shares"], 2048);
    assert_eq!(resources.get("unified"), None);
}

#[test]
fn a_disk_limit_without_a_disk_is_refused() {
    assert!(with(everything(), &facts(), None, render).is_err());
    with(Limits::default(), &facts(), None, render).unwrap();
}

#[test]
fn the_init_knows_where_it_is_and_the_user_may_set_the_rest() {
    let spec = rendered(Limits::default(), &facts());
    assert_eq!(
        spec["process"]["env"],
        json!([
            "LANG=C.UTF-8",
            "PATH=/bin",
            "TERM=linux",
            "container=condo",
            "container_uuid=7f1b2c9e-8a51-4f0e-9d5d-3f6f6f1f2a11",
        ])
    );
    assert_eq!(spec["process"]["args"], json!(["/sbin/init"]));
    assert_eq!(spec["process"]["terminal"], json!(true));
    assert_eq!(spec["hostname"], "web");
}

#[test]
fn nodes_and_directories_of_its_own_are_bound() {
    let spec = rendered(Limits::default(), &facts());
    let source = |place: &str| {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts.iter().find(|m| m["destination"] == place).unwrap()["source"].clone()
    };
    assert_eq!(source("/dev/null"), "/var/lib/condo/vps/web/bundle/dev/null");
    assert_eq!(
        source("/var/lib/docker"),
        "/var/lib/condo/vps/web/bundle/engines/docker"
    );
}

#[test]
fn root_inside_is_nobody_outside() {
    let linux = rendered(Limits::default(), &facts())["linux"].clone();
    let map = json!([{ "containerID": 0, "hostID": 1_000_131_072, "size": 65_536 }]);
    assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&map, &map));
    assert_eq!(linux["cgroupsPath"], "/condo/web");
    let kinds: Vec<_> = linux["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["type"])
        .collect();
    let mut expected = vec!["pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"];
    assert_eq!(kinds, expected);
    let back = |secs: i64| json!({ "secs": secs, "nanosecs": 0 });
    assert_eq!(
        linux["timeOffsets"],
        json!({ "monotonic": back(-1000), "boottime": back(-1200) })
    );
    let without = Facts {
        clocks: None,
        ..facts()
    };
    let linux = rendered(Limits::default(), &without)["linux"].clone();
    expected.pop();
    assert_eq!(linux["namespaces"].as_array().unwrap().len(), expected.len());
}

#[test]
fn it_runs_on_as_many_processors_as_it_has_time_for() {
    let cpus =
        |limits: Limits, facts: &Facts| rendered(limits, facts)["linux"]["resources"]["cpu"]["cpus"].clone();
    let of = |cpus: f64| Limits {
        cpus: Some(cpus),
        ..Limits::default()
    };
    assert_eq!(cpus(of(1.5), &facts()), "4-5");
    assert_eq!(cpus(of(8.0), &facts()), Value::Null);
    assert_eq!(cpus(everything(), &facts()), "0-1", "what was asked for");
    let without = Facts {
        controllers: ["cpu".to_owned()].into(),
        ..facts()
    };
    assert_eq!(cpus(of(1.5), &without), Value::Null);
}

#[test]
fn powers_over_the_host_are_not_granted() {
    let sets = rendered(Limits::default(), &facts())["process"]["capabilities"].clone();
    for set in ["bounding", "effective", "permitted"] {
        let set = sets[set].as_array().unwrap();
        assert_eq!(set.len(), capabilities::KEPT.len());
        for host_wide in [
            "CAP_SYS_MODULE",
            "CAP_SYS_RAWIO",
            "CAP_SYS_TIME",
            "CAP_SYSLOG",
            "CAP_BPF",
        ] {
            assert!(!set.contains(&host_wide.into()), "{host_wide}");
        }
    }
    for set in ["inheritable", "ambient"] {
        assert_eq!(sets[set], json!([]));
    }
}

#[test]
fn a_tmpfs_is_sized_by_the_limit() {
    let spec = rendered(everything(), &facts());
    let options = |place: &str| {
        let mounts = spec["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|m| m["destination"] == place).unwrap();
        mount["options"].as_array().unwrap().clone()
    };
    assert!(options("/run").contains(&"size=209712k".into()));
    assert!(options("/dev/shm").contains(&"size=524288k".into()));
    assert!(options("/run/lock").contains(&"size=5120k".into()));
    assert!(options("/sys").contains(&"ro".into()));
}

#[test]
fn what_only_a_privileged_host_may_raise_is_not_asked_for() {
    let poor = Facts {
        open_files: 4096,
        oom_score: 300,
        ..facts()
    };
    let process = rendered(Limits::default(), &poor)["process"].clone();
    assert_eq!(
        process["rlimits"],
        json!([{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 }])
    );
    assert_eq!(process["oomScoreAdj"], 300);
    let proud = Facts {
        oom_score: -900,
        ..facts()
    };
    assert_eq!(rendered(Limits::default(), &proud)["process"]["oomScoreAdj"], 0);
}

#[test]
fn the_filter_is_put_in_its_slot() {
    let seccomp: LinuxSeccomp = serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW" })).unwrap();
    let facts = facts();
    let spec = with(Limits::default(), &facts, None, |mut input| {
        input.seccomp = Some(seccomp.clone());
        render(input).unwrap()
    });
    assert_eq!(spec.linux().as_ref().unwrap().seccomp().as_ref(), Some(&seccomp));
}
