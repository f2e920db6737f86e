//! What other runtimes, which are written in Go, read out of JSON that is not as the types want it: `null` is as if the key were
//! absent, what is absent has its type's zero value, and of a key that is there twice the last counts.

use serde_json::{Map, Value};

/// What is 0, `false` or empty where it is absent: the objects (`*` stands for every element), and their fields.
const ZEROS: [(&str, &[(&str, Zero)]); 14] = [
    ("process", &[("user", Zero::Object)]),
    ("process/user", &[("uid", Zero::Number), ("gid", Zero::Number)]),
    (
        "process/consoleSize",
        &[("height", Zero::Number), ("width", Zero::Number)],
    ),
    (
        "process/rlimits/*",
        &[("hard", Zero::Number), ("soft", Zero::Number)],
    ),
    ("linux/uidMappings/*", MAPPING),
    ("linux/gidMappings/*", MAPPING),
    ("mounts/*/uidMappings/*", MAPPING),
    ("mounts/*/gidMappings/*", MAPPING),
    ("linux/devices/*", NUMBERS),
    ("linux/resources/devices/*", &[("allow", Zero::False)]),
    ("linux/resources/blockIO/weightDevice/*", NUMBERS),
    ("linux/resources/hugepageLimits/*", &[("limit", Zero::Number)]),
    ("linux/seccomp/syscalls/*", &[("names", Zero::List)]),
    (
        "linux/seccomp/syscalls/*/args/*",
        &[
            ("index", Zero::Number),
            ("value", Zero::Number),
            ("valueTwo", Zero::Number),
        ],
    ),
];

/// The lists of throttled devices.
const THROTTLES: [&str; 4] = [
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
];

const MAPPING: &[(&str, Zero)] = &[
    ("containerID", Zero::Number),
    ("hostID", Zero::Number),
    ("size", Zero::Number),
];
const NUMBERS: &[(&str, Zero)] = &[("major", Zero::Number), ("minor", Zero::Number)];
const RATES: &[(&str, Zero)] = &[
    ("major", Zero::Number),
    ("minor", Zero::Number),
    ("rate", Zero::Number),
];

/// Objects whose keys are the user's: a value that is `null` there is an empty one.
const MAPS: [&str; 3] = ["annotations", "linux/sysctl", "linux/resources/unified"];

/// Those whose values are objects: `null` there is one without a word.
const MAPS_OF_OBJECTS: [&str; 3] = ["linux/netDevices", "linux/timeOffsets", "linux/resources/rdma"];

#[derive(Clone, Copy)]
enum Zero {
    Number,
    False,
    Object,
    List,
}

impl Zero {
    fn value(self) -> Value {
        match self {
            Self::Number => 0.into(),
            Self::False => false.into(),
            Self::Object => Map::new().into(),
            Self::List => Vec::<Value>::new().into(),
        }
    }
}

/// Fills in a whole config.
pub(super) fn fill(config: &mut Value) {
    let empty = Value::from("");
    let maps = MAPS.map(|map| (map, empty.clone()));
    let of_objects = MAPS_OF_OBJECTS.map(|map| (map, Zero::Object.value()));
    for (map, zero) in maps.into_iter().chain(of_objects) {
        each(config, map, &mut |map| {
            map.values_mut()
                .filter(|v| v.is_null())
                .for_each(|v| *v = zero.clone());
        });
    }
    drop_nulls(config);
    for (path, fields) in ZEROS {
        each(config, path, &mut |object| fill_in(object, fields));
    }
    for list in THROTTLES {
        let path = format!("linux/resources/blockIO/{list}/*");
        each(config, &path, &mut |object| fill_in(object, RATES));
    }
    each(config, "linux/resources", &mut drop_empty_pids);
    each(config, "linux", &mut drop_empty_filter);
}

/// Fills in a `process` alone.
pub(super) fn fill_process(process: &mut Value) {
    within(&["process"], process);
}

/// Fills in `linux.resources` alone.
pub(super) fn fill_resources(resources: &mut Value) {
    within(&["linux", "resources"], resources);
}

/// Fills in a part of a config that stands alone.
fn within(path: &[&str], part: &mut Value) {
    let mut config = std::mem::take(part);
    for key in path.iter().rev() {
        config = Value::Object(Map::from_iter([((*key).to_owned(), config)]));
    }
    fill(&mut config);
    let mut place = &mut config;
    for key in path {
        place = &mut place[*key];
    }
    *part = place.take();
}

/// `pids` without a limit says nothing, but a limit of 0 does: the type cannot tell them apart.
fn drop_empty_pids(resources: &mut Map<String, Value>) {
    if resources
        .get("pids")
        .is_some_and(|pids| pids.get("limit").is_none())
    {
        resources.remove("pids");
    }
}

/// `seccomp` without a word about any call filters none.
fn drop_empty_filter(linux: &mut Map<String, Value>) {
    let empty = |value: Option<&Value>| match value {
        None => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    };
    if linux
        .get("seccomp")
        .and_then(Value::as_object)
        .is_some_and(|filter| empty(filter.get("defaultAction")) && empty(filter.get("syscalls")))
    {
        linux.remove("seccomp");
    }
}

fn fill_in(object: &mut Map<String, Value>, fields: &[(&str, Zero)]) {
    for (name, zero) in fields {
        object.entry(*name).or_insert_with(|| zero.value());
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => {
            let zero = list
                .iter()
                .find(|value| !value.is_null())
                .map_or("".into(), zero_like);
            list.iter_mut()
                .filter(|value| value.is_null())
                .for_each(|value| *value = zero.clone());
            list.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// What stands for nothing beside this value in a list. A list of nothing else is one of texts, as most are.
fn zero_like(value: &Value) -> Value {
    match value {
        Value::Bool(_) => Zero::False.value(),
        Value::Number(_) => Zero::Number.value(),
        Value::Array(_) => Zero::List.value(),
        Value::Object(_) => Zero::Object.value(),
        Value::String(_) | Value::Null => "".into(),
    }
}

/// Does something with each object at a path.
fn each(value: &mut Value, path: &str, work: &mut dyn FnMut(&mut Map<String, Value>)) {
    let (key, rest) = match path.split_once('/') {
        _ if path.is_empty() => return value.as_object_mut().map(work).unwrap_or_default(),
        Some((key, rest)) => (key, rest),
        None => (path, ""),
    };
    match value {
        Value::Array(list) if key == "*" => list.iter_mut().for_each(|entry| each(entry, rest, work)),
        Value::Object(object) => {
            if let Some(inner) = object.get_mut(key) {
                each(inner, rest, work);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxResources, Process, Spec};

    fn filled(json: &str) -> Value {
        let mut value = serde_json::from_str(json).unwrap();
        fill(&mut value);
        value
    }

    #[test]
    fn null_is_absent_and_in_maps_empty() {
        let json = r#"{"ociVersion":"1.0.2","annotations":{"a":null,"b":"c"},"hooks":null,
            "mounts":[{"destination":"/a","options":null}],
            "linux":{"sysctl":{"kernel.sem":null},"namespaces":[{"type":"pid","path":null}]}}"#;
        let spec: Spec = serde_json::from_value(filled(json)).unwrap();
        assert_eq!(spec.annotations().as_ref().unwrap()["a"], "");
        assert_eq!(
            filled(json)["linux"],
            serde_json::json!({"sysctl": {"kernel.sem": ""}, "namespaces": [{"type": "pid"}]})
        );
    }

    #[test]
    fn null_among_others_is_their_zero() {
        let json = r#"{"process":{"args":["a",null],"user":{"additionalGids":[null,5]},"env":[null]},
            "mounts":[{"destination":"/a"},null],"linux":{"netDevices":{"eth0":null},"timeOffsets":{"boottime":null},
            "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":null},{}]}}}"#;
        let config = filled(json);
        assert_eq!(config["process"]["args"], serde_json::json!(["a", ""]));
        assert_eq!(
            config["process"]["user"]["additionalGids"],
            serde_json::json!([0, 5])
        );
        assert_eq!(config["process"]["env"], serde_json::json!([""]));
        assert_eq!(config["mounts"][1], serde_json::json!({}));
        assert_eq!(config["linux"]["netDevices"], serde_json::json!({"eth0": {}}));
        assert_eq!(
            config["linux"]["timeOffsets"],
            serde_json::json!({"boottime": {}})
        );
        let names = serde_json::json!({"names": []});
        assert_eq!(
            config["linux"]["seccomp"]["syscalls"],
            serde_json::json!([names, names])
        );
    }

    #[test]
    fn absent_numbers_are_zero_wherever_the_types_want_one() {
        let json = r#"{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/","consoleSize":{},"rlimits":[{"type":"RLIMIT_CPU"}]},
            "mounts":[{"destination":"/a","uidMappings":[{"size":1}],"gidMappings":[{}]}],
            "linux":{"uidMappings":[{"size":1}],"gidMappings":[{"hostID":5}],"devices":[{"path":"/dev/a","type":"p"}],
            "resources":{"devices":[{"access":"rwm"}],"hugepageLimits":[{"pageSize":"2MB"}],"pids":{},
              "blockIO":{"weightDevice":[{}],"throttleReadBpsDevice":[{}],"throttleWriteBpsDevice":[{}],
                "throttleReadIOPSDevice":[{}],"throttleWriteIOPSDevice":[{}]}},
            "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","args":[{"op":"SCMP_CMP_EQ"}]}]}}}"#;
        let spec: Spec = serde_json::from_value(filled(json)).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 0);
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert!(resources.pids().is_none());
        assert!(!resources.devices().as_ref().unwrap()[0].allow());
    }

    #[test]
    fn a_filter_without_a_word_is_none() {
        for empty in [
            "{}",
            r#"{"defaultAction":"","syscalls":[]}"#,
            r#"{"syscalls":null,"flags":[]}"#,
        ] {
            let config = filled(&format!(r#"{{"linux":{{"seccomp":{empty}}}}}"#));
            assert_eq!(config["linux"], serde_json::json!({}), "{empty}");
        }
        let broken = filled(r#"{"linux":{"seccomp":{"syscalls":[{}]}}}"#);
        assert!(broken["linux"]["seccomp"].is_object());
    }

    #[test]
    fn parts_are_filled_in_alone() {
        let mut process = serde_json::json!({"args": ["a"], "cwd": "/", "user": null});
        fill_process(&mut process);
        let process: Process = serde_json::from_value(process).unwrap();
        assert_eq!(process.user().gid(), 0);
        let mut resources = serde_json::json!({"pids": {"limit": null}, "memory": {"limit": null}});
        fill_resources(&mut resources);
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        assert!(resources.pids().is_none());
    }
}
