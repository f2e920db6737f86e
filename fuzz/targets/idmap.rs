//! `linux.uidMappings` and `linux.gidMappings`: what is accepted is a map the kernel takes.
#![no_main]

use condo::namespaces::user::IdMap;
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxIdMapping;

/// First id and the one past the last.
type Span = (u64, u64);

fn span(start: u32, size: u32) -> Span {
    (u64::from(start), u64::from(start) + u64::from(size))
}

/// Inside and outside, each range lies below the highest number (which is no id) and touches no other.
fn check(spans: &[Span]) {
    for (index, (start, end)) in spans.iter().enumerate() {
        assert!(start < end && *end <= u64::from(u32::MAX));
        for (other_start, other_end) in &spans[..index] {
            assert!(end <= other_start || other_end <= start, "{spans:?}");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok((uids, gids)) = serde_json::from_slice::<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)>(data) else {
        return;
    };
    let Ok(map) = IdMap::from_mappings(&uids, &gids, "linux") else {
        return;
    };
    assert_eq!(map.is_empty(), uids.is_empty() && gids.is_empty());
    for (list, has) in [
        (&uids, IdMap::has_uid as fn(&IdMap, u32) -> bool),
        (&gids, IdMap::has_gid),
    ] {
        assert!(list.len() <= 340);
        check(
            &list
                .iter()
                .map(|m| span(m.container_id(), m.size()))
                .collect::<Vec<_>>(),
        );
        check(
            &list
                .iter()
                .map(|m| span(m.host_id(), m.size()))
                .collect::<Vec<_>>(),
        );
        for mapping in list {
            assert!(has(&map, mapping.container_id()));
            assert!(has(&map, mapping.container_id() + (mapping.size() - 1)));
        }
        assert!(!has(&map, u32::MAX));
    }
    let root = |list: &[LinuxIdMapping]| {
        list.iter()
            .find(|m| m.container_id() == 0)
            .map(LinuxIdMapping::host_id)
    };
    assert_eq!(map.root(), root(&uids).zip(root(&gids)));
});
