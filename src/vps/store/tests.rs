use super::super::config::VpsConfig;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;

/// A database of its own, removed at the end whatever happens.
struct Scratch(PathBuf);

impl Scratch {
    fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("condo-store-{what}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn folders(&self) -> Folders {
        Folders::open(Some(&self.0)).unwrap()
    }

    fn store(&self) -> Store {
        Store::open(&self.folders()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn new(text: &str) -> NewVps {
    NewVps {
        name: name(text),
        config: VpsConfig::new("busybox"),
        wanted_ip: None,
    }
}

/// The lowest address of 10.9.0.0/16 from .2 on.
fn lowest(taken: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr> {
    (2..60_000_u32)
        .map(|n| Ipv4Addr::from(0x0a09_0000 + n))
        .find(|ip| !taken.contains(ip))
        .ok_or_else(|| Error::unsupported("an address", "none is left"))
}

#[test]
fn a_record_comes_back_as_it_was_stored() {
    let scratch = Scratch::new("roundtrip");
    let store = scratch.store();
    let mut wanted = new("web");
    wanted.config.limits.memory = Some(1 << 30);
    let record = store.insert(wanted, &lowest).unwrap();
    assert_eq!(scratch.store().get(&name("web")).unwrap(), record);
    assert_eq!(record.id, 1);
    assert_eq!(record.address, Ipv4Addr::new(10, 9, 0, 2));
    assert_eq!(record.uuid.len(), 36);
    assert!(record.uid_base >= FIRST_UID && record.uid_base + UIDS <= 2_147_000_000);
    assert_eq!(store.list().unwrap(), [record]);
}

#[test]
fn what_is_taken_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new("taken");
    let store = scratch.store();
    let web = store.insert(new("web"), &lowest).unwrap();
    let same_name = store.insert(new("web"), &lowest).unwrap_err();
    assert_eq!(same_name.to_string(), "VPS `web` already exists");
    let mut same_address = new("db");
    same_address.wanted_ip = Some(web.address);
    let same_address = store.insert(same_address, &lowest).unwrap_err();
    assert_eq!(same_address.to_string(), "address `10.9.0.2` already exists");
    let mut stranger = new("db");
    stranger.config.allow.insert(name("nobody"));
    assert!(matches!(
        store.insert(stranger, &lowest),
        Err(Error::NotFound { kind: "VPS", .. })
    ));
    assert!(
        store
            .insert(new("db"), &|_| Err(Error::unsupported("a", "b")))
            .is_err()
    );
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn what_is_given_up_is_used_again() {
    let scratch = Scratch::new("reuse");
    let store = scratch.store();
    let records: Vec<_> = ["a", "b", "c"]
        .map(|n| store.insert(new(n), &lowest).unwrap())
        .into();
    store.remove(&name("b")).unwrap();
    store.remove(&name("b")).unwrap();
    assert!(matches!(store.get(&name("b")), Err(Error::NotFound { .. })));
    let d = store.insert(new("d"), &lowest).unwrap();
    assert_eq!(
        (d.id, d.uid_base, d.address),
        (2, records[1].uid_base, records[1].address)
    );
    assert_ne!(d.uuid, records[1].uuid);
}

#[test]
fn an_exit_belongs_to_its_vps() {
    let scratch = Scratch::new("exit");
    let store = scratch.store();
    store.insert(new("web"), &lowest).unwrap();
    let mut exit = LastExit {
        reason: ExitReason::Oom,
        status: None,
        signal: Some(9),
        at: 7,
    };
    store.record_exit(&name("web"), &exit).unwrap();
    exit.reason = ExitReason::Exited;
    exit.status = Some(3);
    store.record_exit(&name("web"), &exit).unwrap();
    assert_eq!(store.get(&name("web")).unwrap().last_exit, Some(exit.clone()));
    store.remove(&name("web")).unwrap();
    store.record_exit(&name("web"), &exit).unwrap();
    assert_eq!(store.insert(new("web"), &lowest).unwrap().last_exit, None);
}

#[test]
fn pairs_go_both_ways_and_end_with_either() {
    let scratch = Scratch::new("pairs");
    let store = scratch.store();
    let db = store.insert(new("db"), &lowest).unwrap();
    let mut web = new("web");
    web.config.allow.insert(name("db"));
    let web = store.insert(web, &lowest).unwrap();
    assert_eq!(store.peers(&db.name).unwrap(), [(web.name.clone(), web.address)]);
    assert_eq!(store.peers(&web.name).unwrap(), [(db.name.clone(), db.address)]);
    store.remove(&db.name).unwrap();
    assert!(store.peers(&web.name).unwrap().is_empty());
}

#[test]
fn the_first_network_holds() {
    let scratch = Scratch::new("network");
    let store = scratch.store();
    let settings = |subnet: &str| NetworkSettings {
        bridge: "condo0".into(),
        table: "condo".into(),
        subnet: subnet.into(),
    };
    assert_eq!(store.network().unwrap(), None);
    let first = store.set_network_if_absent(&settings("10.88.0.0/16")).unwrap();
    assert_eq!(
        store.set_network_if_absent(&settings("10.99.0.0/16")).unwrap(),
        first
    );
    assert_eq!(scratch.store().network().unwrap().unwrap().subnet, "10.88.0.0/16");
}

#[test]
fn fifty_at_once_share_nothing() {
    let scratch = Scratch::new("fifty");
    let folders = scratch.folders();
    let records: Vec<Record> = std::thread::scope(|scope| {
        let insert = |n: usize| {
            let folders = folders.clone();
            // A connection each, as fifty processes would have; the first of them set the database up at once.
            move || Store::open(&folders)?.insert(new(&format!("vps-{n}")), &lowest)
        };
        let threads: Vec<_> = (0..50).map(|n| scope.spawn(insert(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
    });
    assert_eq!(
        records.iter().map(|r| r.id).collect::<BTreeSet<_>>(),
        (1..=50).collect()
    );
    assert_eq!(
        records.iter().map(|r| r.uid_base).collect::<BTreeSet<_>>().len(),
        50
    );
    assert_eq!(
        records.iter().map(|r| r.address).collect::<BTreeSet<_>>().len(),
        50
    );
}

#[test]
fn one_name_is_won_once() {
    let scratch = Scratch::new("race");
    let folders = scratch.folders();
    let won = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Store::open(&folders).unwrap().insert(new("web"), &lowest).is_ok()))
            .collect();
        threads
            .into_iter()
            .filter(|_| true)
            .map(|t| t.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(won, 1);
}

const CHILD: &str = "CONDO_TEST_STORE";

/// Runs itself as a child that stops in the middle of its claim, and kills it there.
#[test]
fn a_process_killed_in_its_claim_has_claimed_nothing() {
    if let Some(root) = std::env::var_os(CHILD) {
        let store = Store::open(&Folders::open(Some(root.as_ref())).unwrap()).unwrap();
        let _ = store.insert(new("web"), &|_| {
            std::fs::write(PathBuf::from(&root).join("here"), "").unwrap();
            std::thread::sleep(Duration::from_secs(600));
            Err(Error::Busy("never".into()))
        });
        return;
    }
    let scratch = Scratch::new("killed");
    let store = scratch.store();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "vps::store::tests::a_process_killed_in_its_claim_has_claimed_nothing",
        ])
        .env(CHILD, &scratch.0)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !scratch.0.join("here").exists() {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "the child ended before its claim"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(store.list().unwrap().is_empty());
    assert_eq!(store.insert(new("web"), &lowest).unwrap().id, 1);
}

#[test]
fn the_last_range_is_the_end() {
    let scratch = Scratch::new("full");
    let store = scratch.store();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO vps SELECT 'v' || i, i, i, i, i, '{\"image\":\"a\"}', 0 FROM n";
    store.db.execute(fill, [RANGES]).unwrap();
    assert!(matches!(free_id(&store.db), Err(Error::Unsupported { .. })));
    store.remove(&name("v77")).unwrap();
    assert_eq!(free_id(&store.db).unwrap(), 77);
}

#[test]
fn other_versions_and_other_files_are_refused() {
    let scratch = Scratch::new("version");
    scratch.store().db.pragma_update(None, "user_version", 9).unwrap();
    let text = Store::open(&scratch.folders()).unwrap_err().to_string();
    assert!(text.contains("version 9"), "{text}");
    let other = Scratch::new("garbage");
    std::fs::write(
        other.folders().database(),
        "not a database, but long enough to be read as one".repeat(20),
    )
    .unwrap();
    assert!(matches!(
        Store::open(&other.folders()).unwrap_err().root(),
        Error::Corrupt(_)
    ));
}

#[test]
fn every_range_lies_below_two_to_the_31() {
    for mark in [None, Some("00000000"), Some("ffffffff")] {
        let first = first_range(mark);
        assert!(first < RANGES);
        for id in [1, 2, RANGES / 2, RANGES] {
            let base = FIRST_UID + (first + id - 1) % RANGES * UIDS;
            assert!(base >= FIRST_UID && base + UIDS <= 2_147_000_000);
        }
    }
}
