use super::super::super::nodes;
use super::super::users::Entry;
use super::*;
use crate::vps::record::permit::Permit;

/// What Docker says of a container, shortened.
fn docker() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "args": ["/sbin/init"], "cwd": "/", "env": ["PATH=/bin", "container=docker"], "user": { "uid": 0, "gid": 0 },
            "apparmorProfile": "docker-default", "noNewPrivileges": true,
            "capabilities": { "bounding": ["CAP_CHOWN"] },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=1m"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/hosts", "options": ["rbind"] },
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
            "sysctl": { "net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0" },
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" },
            "maskedPaths": ["/proc/scsi"],
        },
    })
}

fn given() -> Given {
    let map = json!([{ "containerID": 0, "hostID": 1_879_048_192_u32, "size": 262_144 }]);
    Given {
        users: Entry {
            path: None,
            maps: Some([map.clone(), map]),
        },
        ids: Some(262_144),
        memory: 1 << 30,
        clocks: None,
        binds: vec![None, None, None, None, Some("ridmap")],
        plain: vec![("/var/lib/docker", "/layer/condo/plain/docker".into())],
        uuid: Some("u".into()),
        devices: nodes::permitted(Permit::Fuse).into_iter().collect(),
        agent: None,
    }
}

fn mount<'a>(config: &'a Value, place: &str) -> Vec<&'a Value> {
    let all = config["mounts"].as_array().unwrap().iter();
    all.filter(|mount| mount["destination"] == place).collect()
}

fn has(mount: &Value, option: &str) -> bool {
    mount["options"]
        .as_array()
        .unwrap()
        .iter()
        .any(|found| found == option)
}

#[test]
fn a_container_gets_what_a_vps_has() {
    let mut config = docker();
    assert!(rewrite(&mut config, &given()).is_empty());
    let linux = &config["linux"];
    assert!(namespace(&config, "user").is_some() && namespace(&config, "cgroup").is_some());
    assert_eq!(linux["uidMappings"][0]["size"], 262_144);
    assert_eq!(linux["sysctl"]["net.ipv4.ping_group_range"], "0 262143");
    assert_eq!(linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
    assert_eq!(linux["sysctl"]["user.max_net_namespaces"], "256");
    assert_eq!(linux["devices"][0]["path"], "/dev/fuse");
    assert_eq!(config["process"]["capabilities"]["effective"], json!(KEPT));
    assert!(config["process"].get("apparmorProfile").is_none());
    assert_eq!(
        config["process"]["noNewPrivileges"], true,
        "that is the user's choice"
    );
    assert_eq!(
        config["process"]["env"],
        json!(["PATH=/bin", "container=condo", "container_uuid=u"])
    );
    let [cgroup] = mount(&config, "/sys/fs/cgroup")[..] else {
        panic!("one cgroup mount")
    };
    assert!(cgroup["type"] == "cgroup2" && has(cgroup, "rw"));
    let [shm] = mount(&config, "/dev/shm")[..] else {
        panic!("one /dev/shm")
    };
    assert!(has(shm, "size=1m"), "its size is the user's choice");
    assert!(has(mount(&config, "/etc/hosts")[0], "ridmap"));
    assert!(has(mount(&config, "/var/lib/docker")[0], "idmap"));
    assert_eq!(mount(&config, "/run").len(), 1);
    crate::runtime::bundle::parse(&serde_json::to_vec(&config).unwrap()).unwrap();
}

#[test]
fn a_single_program_keeps_its_run_and_its_environment() {
    let mut config = docker();
    config["process"]["args"] = json!(["nginx"]);
    config["process"]["user"]["uid"] = 1000.into();
    rewrite(&mut config, &given());
    assert!(mount(&config, "/run").is_empty());
    assert_eq!(config["process"]["env"][1], "container=docker");
    assert_eq!(config["process"]["capabilities"]["effective"], json!([]));
}

#[test]
fn a_network_that_is_the_host_s_is_shown_and_set_by_the_host() {
    let mut config = docker();
    config["linux"]["namespaces"][1]["path"] = "/run/netns/pod".into();
    let mut parameters = rewrite(&mut config, &given());
    parameters.sort();
    let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"]
    );
    let [sys] = mount(&config, "/sys")[..] else {
        panic!("one /sys")
    };
    assert!(sys["type"] == "bind" && has(sys, "ro"));
    assert!(mount(&config, "/dev/.condo/sys").is_empty());
}

#[test]
fn what_engines_chose_and_pods_have_stays() {
    let mut config = docker();
    let engines = Given {
        users: Entry {
            path: None,
            maps: None,
        },
        ids: None,
        ..given()
    };
    config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 500_000, "size": 65_536 }]);
    rewrite(&mut config, &engines);
    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], 500_000);
    let mut config = docker();
    let mut pods = given();
    pods.users.path = Some("/proc/7/ns/user".into());
    rewrite(&mut config, &pods);
    assert_eq!(namespace(&config, "user").unwrap()["path"], "/proc/7/ns/user");
    assert!(config["linux"]["sysctl"].get("user.max_net_namespaces").is_none());
}

#[test]
fn what_a_vps_has_to_itself_is_not_shared() {
    refuse_shared(&docker()).unwrap();
    for index in 0..5 {
        let mut config = docker();
        let removed = config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .remove(index);
        let e = refuse_shared(&config).unwrap_err().to_string();
        assert!(e.contains(removed["type"].as_str().unwrap()), "{e}");
    }
}

#[test]
fn who_tells_the_figures_is_asked() {
    let asked = |agent: Option<&str>| {
        let mut config = docker();
        rewrite(
            &mut config,
            &Given {
                agent: agent.map(PathBuf::from),
                ..given()
            },
        );
        let filter = config["linux"]["seccomp"].clone();
        let entries = filter["syscalls"].as_array().unwrap().iter();
        let entry = entries
            .filter(|entry| entry["action"] == "SCMP_ACT_NOTIFY")
            .map(|entry| entry["names"].clone());
        (filter["listenerPath"].clone(), entry.collect::<Vec<_>>())
    };
    assert_eq!(asked(None), (Value::Null, vec![]));
    assert_eq!(
        asked(Some("/run/agent.sock")),
        ("/run/agent.sock".into(), vec![json!(["sysinfo"])])
    );
}
