//! The spelling of JSON: callers that are written in Go rely on its reading keys without regard to case, and halves of characters.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The names of fields of config.json, sorted without regard to case.
const NAMES: &str = "\
    access action additionalGids allow ambient annotations apparmorProfile architectures args blockIO bounding burst \
    capabilities cgroupsPath checkBeforeUpdate class classID closID commandLine consoleSize containerID cpu cpus \
    createContainer createRuntime cwd deadline defaultAction defaultErrnoRet destination devices disableOOMKiller \
    domain domainname effective enableCmt enableMbm enableMonitoring env errnoRet execCPUAffinity fileMode final \
    flags gid gidMappings hard hcaHandles hcaObjects height hooks hostID hostname hugepageLimits idle index \
    inheritable initial intelRdt ioPriority kernel kernelTCP l3CacheSchema leafWeight limit linux listenerMetadata \
    listenerPath major maskedPaths memBwSchema memory memoryPolicy mems minor mode mountLabel mounts name names \
    namespaces nanosecs netDevices network nice nodes noNewPrivileges ociVersion oomScoreAdj op options pageSize \
    path period permitted personality pids policy poststart poststop prestart priorities priority process quota rate \
    rdma readonly readonlyPaths realtimePeriod realtimeRuntime reservation resources rlimits root rootfsPropagation \
    runtime scheduler schemata seccomp secs selinuxLabel shares size soft solaris source startContainer swap \
    swappiness syscalls sysctl terminal throttleReadBpsDevice throttleReadIOPSDevice throttleWriteBpsDevice \
    throttleWriteIOPSDevice timeOffsets timeout type uid uidMappings umask unified useHierarchy user username value \
    valueTwo vm weight weightDevice width windows zos";

/// How many there are.
const COUNT: usize = {
    let (mut count, mut at) = (1, 0);
    while at < NAMES.len() {
        count += (NAMES.as_bytes()[at] == b' ') as usize;
        at += 1;
    }
    count
};

/// Where each of them begins; the last place is behind the last of them.
const PLACES: [u16; COUNT + 1] = {
    let mut places = [0; COUNT + 1];
    let (mut found, mut at) = (1, 0);
    while found <= COUNT {
        if at == NAMES.len() || NAMES.as_bytes()[at] == b' ' {
            places[found] = at as u16 + 1;
            found += 1;
        }
        at += 1;
    }
    places
};

/// Objects whose keys are the user's own and stay as they are; what is in those objects is of the spec again.
const FREE: &[&str] = &[
    "annotations",
    "netDevices",
    "rdma",
    "sysctl",
    "timeOffsets",
    "unified",
];

/// Gives keys that differ from a field's name in case only that name, and leaves out what follows the first object, which readers in
/// Go do not look at. They take U+FFFD for what is no UTF-8, and for an escape that is half of a pair of UTF-16 (`\ud83d` alone). What is
/// no JSON comes back as it is: its reader complains.
///
/// Text of the same length takes its place, so that nothing else moves: neither order nor the columns in error messages.
pub fn correct(json: &[u8]) -> Cow<'_, [u8]> {
    if let Cow::Owned(text) = String::from_utf8_lossy(json) {
        return correct(text.as_bytes()).into_owned().into();
    }
    let mut keys = Keys::of(json);
    let misspelt: Vec<_> = keys
        .by_ref()
        .filter_map(|key| Some((key.at, key.misspelt()?)))
        .collect();
    let mut text = Cow::Borrowed(keys.json);
    for (at, name) in misspelt {
        text.to_mut()[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
    for at in halves(&text) {
        text.to_mut()[at..at + UNKNOWN.len()].copy_from_slice(UNKNOWN);
    }
    text
}

/// The replacement character as an escape, as long as what it replaces.
const UNKNOWN: &[u8] = b"\\ufffd";

/// Where there are escapes of one half of a pair without the other.
fn halves(json: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(distance) = json
        .get(at..)
        .and_then(|rest| rest.iter().position(|byte| *byte == b'\\'))
    {
        at += distance;
        at += match (unit(json, at), unit(json, at + UNKNOWN.len())) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 2 * UNKNOWN.len(),
            (Some(0xd800..=0xdfff), _) => {
                found.push(at);
                UNKNOWN.len()
            }
            (Some(_), _) => UNKNOWN.len(),
            (None, _) => 2,
        };
    }
    found
}

/// The unit of UTF-16 that an escape at `at` stands for.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + UNKNOWN.len())?.strip_prefix(b"\\u")?;
    let hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| hexadecimal)?;
    u16::from_str_radix(text, 16).ok()
}

/// The name that a text is but for its case.
fn known(text: &[u8]) -> Option<&'static str> {
    let (mut first, mut end) = (0, COUNT);
    while first < end {
        let middle = first.midpoint(end);
        let name = &NAMES[PLACES[middle].into()..usize::from(PLACES[middle + 1]) - 1];
        match lower(name.as_bytes()).cmp(lower(text)) {
            Ordering::Less => first = middle + 1,
            Ordering::Equal => return Some(name),
            Ordering::Greater => end = middle,
        }
    }
    None
}

fn lower(text: &[u8]) -> impl Iterator<Item = u8> {
    text.iter().map(u8::to_ascii_lowercase)
}

/// One key.
struct Key<'a> {
    /// Where it begins.
    at: usize,
    text: &'a [u8],
    /// The field's name that it is but for its case; none where its object takes any key.
    name: Option<&'static str>,
}

impl Key<'_> {
    fn misspelt(&self) -> Option<&'static str> {
        self.name.filter(|name| name.as_bytes() != self.text)
    }
}

/// Goes through the keys of a JSON text.
struct Keys<'a> {
    /// The text; once the first object or list has ended, no more than that.
    json: &'a [u8],
    at: usize,
    /// What is open: for an object whether its keys are free, nothing for a list.
    open: Vec<Option<bool>>,
    /// Whether a string that comes now is a key.
    key_next: bool,
    /// Whether the value that comes next, if it is an object, is free.
    free_next: bool,
}

impl<'a> Keys<'a> {
    fn of(json: &'a [u8]) -> Self {
        Self {
            json,
            at: 0,
            open: Vec::new(),
            key_next: false,
            free_next: false,
        }
    }

    /// The string that begins after the quote at `at`, with `at` moved behind it; nothing when it does not end. Escapes stay as
    /// they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let mut end = start;
        while let Some(byte) = self.json.get(end).filter(|byte| **byte != b'"') {
            end += if *byte == b'\\' { 2 } else { 1 };
        }
        self.at = end + 1;
        self.json.get(..=end).map(|all| &all[start..end])
    }
}

impl<'a> Iterator for Keys<'a> {
    type Item = Key<'a>;

    fn next(&mut self) -> Option<Key<'a>> {
        while let Some(byte) = self.json.get(self.at) {
            if *byte == b'"' {
                let at = self.at + 1;
                let text = self.string()?;
                let Some(free) = self.open.last().copied().flatten().filter(|_| self.key_next) else {
                    continue;
                };
                self.key_next = false;
                let name = if free { None } else { known(text) };
                self.free_next = name.is_some_and(|name| FREE.contains(&name));
                return Some(Key { at, text, name });
            }
            match byte {
                b'{' => self.open.push(Some(std::mem::take(&mut self.free_next))),
                b'[' => self.open.push(None),
                b'}' | b']' => drop(self.open.pop()),
                _ => {}
            }
            if matches!(byte, b'{' | b',' | b'[') {
                self.key_next = *byte != b'[';
                self.free_next = false;
            }
            self.at += 1;
            if matches!(byte, b'}' | b']') && self.open.is_empty() {
                self.json = &self.json[..self.at];
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrected(json: &str) -> String {
        String::from_utf8(correct(json.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn keys_get_the_spec_s_spelling() {
        for (given, right) in [
            (r#"{"OCIVersion":"1"}"#, r#"{"ociVersion":"1"}"#),
            (
                r#"{"linux" : {"hugepagelimits":[{"PageSize":"2MB"}, {"limit":1,"pagesize":"X"}]}}"#,
                r#"{"linux" : {"hugepageLimits":[{"pageSize":"2MB"}, {"limit":1,"pageSize":"X"}]}}"#,
            ),
            (r#"{"a\"b":{"ARGS":[]}}"#, r#"{"a\"b":{"args":[]}}"#),
        ] {
            assert_eq!(corrected(given), right);
        }
    }

    #[test]
    fn all_else_stays() {
        for same in [
            r#"{"annotations":{"PIDS":"Args"},"process":{"args":["PageSize","{\"ARGS\":1}","\\"]}}"#,
            r#"{"linux":{"sysctl":{"MEMORY":"1"},"resources":{"unified":{"CPU":"1"},"rdma":{"Limit":{"hcaHandles":1}}}}}"#,
            r#"["ARGS", "a"]"#,
            r#"{"unknownToAll": 1, "": 2}"#,
            "{\"ARGS",
            "{\"args\\",
            "}{]\"Args\"",
            "",
        ] {
            assert!(matches!(correct(same.as_bytes()), Cow::Borrowed(_)), "{same}");
        }
        let inner = r#"{"rdma":{"Limit":{"HCAHandles":1}},"Annotations":{"PIDS":"x"},"PIDS":1}"#;
        let right = r#"{"rdma":{"Limit":{"hcaHandles":1}},"annotations":{"PIDS":"x"},"pids":1}"#;
        assert_eq!(corrected(inner), right);
    }

    #[test]
    fn half_a_character_is_the_replacement_character() {
        for (given, right) in [
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ufffd"}"#),
            (
                r#"{"a":"x\uDC00y\ud83d\uDE00z"}"#,
                r#"{"a":"x\ufffdy\ud83d\uDE00z"}"#,
            ),
            (r#"{"\ud800\ud800":"\ud800\n"}"#, r#"{"\ufffd\ufffd":"\ufffd\n"}"#),
            (r#"{"a":"\ud800\\udc00\u00e4"}"#, r#"{"a":"\ufffd\\udc00\u00e4"}"#),
        ] {
            assert_eq!(corrected(given), right);
        }
        for same in [
            r#"{"a":"\\ud800\ud7ff\ue000"}"#,
            r#"{"a":"\ud80"#,
            r#"{"a":"\ud+00"}"#,
            r#"{"a":"\"#,
        ] {
            assert_eq!(corrected(same), same);
        }
    }

    #[test]
    fn what_follows_the_first_object_is_left_out() {
        for (given, read) in [
            (r#"{"a":{"b":[1,"}"]}} and more"#, r#"{"a":{"b":[1,"}"]}}"#),
            ("{} {\"PIDS\":1}\n", "{}"),
            (r#" {"PIDS":1}}"#, r#" {"pids":1}"#),
            ("nonsense {", "nonsense {"),
        ] {
            assert_eq!(corrected(given), read);
        }
        assert_eq!(
            *correct(b"{\"ARGS\":[\"\xff\"]}}"),
            *"{\"args\":[\"\u{fffd}\"]}".as_bytes()
        );
    }

    #[test]
    fn every_field_is_in_the_table_once() {
        let mut names: Vec<_> = NAMES.split(' ').map(str::to_ascii_lowercase).collect();
        assert!(names.is_sorted());
        names.dedup();
        assert_eq!(names.len(), NAMES.split(' ').count());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/config");
        for file in std::fs::read_dir(folder).unwrap() {
            let rows: serde_json::Value =
                serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
            for field in rows
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|row| row["field"].as_str())
            {
                let parts = field.split('.').map(|part| part.trim_end_matches("[]"));
                for name in parts.filter(|part| *part != "*") {
                    assert_eq!(known(name.as_bytes()), Some(name), "{field}");
                }
            }
        }
    }
}
