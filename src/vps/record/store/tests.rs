use super::super::attachment::Attachment;
use super::super::config::VpsConfig;
use super::super::network::NetworkRecord;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::claim::{HIGHEST_ID, free_id};
use super::*;

mod upgrade;

/// A database of its own, removed at the end whatever happens.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("condo-store-{what}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn folders(&self) -> Folders {
        Folders::open(Some(&self.0)).unwrap()
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.folders()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn new(text: &str) -> NewVps {
    NewVps {
        name: name(text),
        config: VpsConfig::new("busybox"),
        wanted_ip: None,
        first_boot: Default::default(),
    }
}

/// The lowest address of 10.9.0.0/16 from .2 on.
fn lowest(_: &Attachment, taken: &Taken) -> Result<Ipv4Addr> {
    (2..60_000_u32)
        .map(|n| Ipv4Addr::from(0x0a09_0000 + n))
        .find(|ip| !taken.by_others.contains(ip))
        .ok_or_else(|| Error::unsupported("an address", "none is left"))
}

/// Addresses by [`lowest`], and ranges of user ids by number.
pub(super) fn picks() -> Picks<'static> {
    Picks {
        address: &lowest,
        uids: &|id, _| Ok(FIRST_UID + id * UIDS),
    }
}

const FIRST_UID: u32 = 1_900_000_000;

#[test]
fn a_record_comes_back_as_it_was_stored() {
    let scratch = Scratch::new("roundtrip");
    let store = scratch.store();
    let mut wanted = new("web");
    wanted.config.limits.memory = Some(1 << 30);
    let record = store.insert(&wanted, &picks()).unwrap();
    assert_eq!(scratch.store().get(&name("web")).unwrap(), record);
    assert_eq!(record.id, 1);
    assert_eq!(record.address, Ipv4Addr::new(10, 9, 0, 2));
    assert_eq!(record.uuid.len(), 36);
    assert_eq!(record.uid_base, FIRST_UID + UIDS);
    assert_eq!(store.list().unwrap(), [record]);
}

#[test]
fn addresses_are_handed_out_in_turn() {
    let scratch = Scratch::new("turn");
    let subnet = "10.9.0.0/29".parse().unwrap();
    let pick = |_: &Attachment, taken: &Taken| crate::net::ipam::pick(subnet, taken, None);
    let in_turn = Picks {
        address: &pick,
        ..picks()
    };
    // Each time as a command of its own, as after a restart.
    let next = |text: &str| {
        scratch
            .store()
            .insert(&new(text), &in_turn)
            .unwrap()
            .address
            .octets()[3]
    };
    assert_eq!([next("a"), next("b")], [2, 3]);
    scratch.store().remove(&name("b")).unwrap();
    assert_eq!([next("c"), next("d"), next("e")], [4, 5, 6]);
    // Whom it is the turn of is not changed by who asks for an address of his choice.
    scratch.store().remove(&name("d")).unwrap();
    let mut chosen = new("f");
    chosen.wanted_ip = Some(Ipv4Addr::new(10, 9, 0, 5));
    scratch.store().insert(&chosen, &in_turn).unwrap();
    assert_eq!(next("g"), 3);
    assert!(scratch.store().insert(&new("h"), &in_turn).is_err());
}

#[test]
fn a_database_from_before_turns_is_used() {
    let scratch = Scratch::new("before");
    scratch
        .store()
        .db
        .borrow()
        .execute_batch("DROP TABLE turns")
        .unwrap();
    let record = scratch.store().insert(&new("web"), &picks()).unwrap();
    assert_eq!(scratch.store().get(&name("web")).unwrap(), record);
}

#[test]
fn what_is_taken_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new("taken");
    let store = scratch.store();
    let web = store.insert(&new("web"), &picks()).unwrap();
    let same_name = store.insert(&new("web"), &picks()).unwrap_err();
    assert_eq!(same_name.to_string(), "VPS `web` already exists");
    let mut same_address = new("db");
    same_address.wanted_ip = Some(web.address);
    let same_address = store.insert(&same_address, &picks()).unwrap_err();
    assert_eq!(
        same_address.to_string(),
        "`web` has it; ask for another, or for none to be given the next that is free: address `10.9.0.2` already exists"
    );
    assert!(matches!(
        same_address.root(),
        Error::Exists { kind: "address", .. }
    ));
    let mut stranger = new("db");
    stranger.config.allow.insert(name("nobody"));
    assert!(matches!(
        store.insert(&stranger, &picks()),
        Err(Error::NotFound { kind: "VPS", .. })
    ));
    assert!(
        store
            .insert(
                &new("db"),
                &Picks {
                    address: &|_, _| Err(Error::unsupported("a", "b")),
                    ..picks()
                }
            )
            .is_err()
    );
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn what_is_given_up_is_used_again() {
    let scratch = Scratch::new("reuse");
    let store = scratch.store();
    let records: Vec<_> = ["a", "b", "c"]
        .map(|n| store.insert(&new(n), &picks()).unwrap())
        .into();
    store.remove(&name("b")).unwrap();
    store.remove(&name("b")).unwrap();
    assert!(matches!(store.get(&name("b")), Err(Error::NotFound { .. })));
    let d = store.insert(&new("d"), &picks()).unwrap();
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
    store.insert(&new("web"), &picks()).unwrap();
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
    assert_eq!(store.insert(&new("web"), &picks()).unwrap().last_exit, None);
}

#[test]
fn pairs_go_both_ways_and_end_with_either() {
    let scratch = Scratch::new("pairs");
    let store = scratch.store();
    let db = store.insert(&new("db"), &picks()).unwrap();
    let mut web = new("web");
    web.config.allow.insert(name("db"));
    let web = store.insert(&web, &picks()).unwrap();
    assert_eq!(store.peers(&db.name).unwrap(), [(web.name.clone(), web.address)]);
    assert_eq!(store.peers(&web.name).unwrap(), [(db.name.clone(), db.address)]);
    let all = store.all_peers().unwrap();
    assert_eq!(
        (&all[&db.name], &all[&web.name]),
        (&vec![web.name.clone()], &vec![db.name.clone()])
    );
    store.remove(&db.name).unwrap();
    assert!(store.peers(&web.name).unwrap().is_empty());
    assert!(store.all_peers().unwrap().is_empty());
}

#[test]
fn the_first_network_holds() {
    let scratch = Scratch::new("network");
    let store = scratch.store();
    assert_eq!(store.networks().unwrap(), []);
    let first = network("condo0", 0, "10.88.0.0/16");
    assert_eq!(store.set_network_if_absent(&first).unwrap(), first);
    let late = network("condo0", 0, "10.99.0.0/16");
    assert_eq!(store.set_network_if_absent(&late).unwrap(), first);
    assert_eq!(scratch.store().networks().unwrap(), [first]);
}

fn network(text: &str, number: u32, subnet: &str) -> NetworkRecord {
    NetworkRecord {
        name: name(text),
        number,
        network: crate::net::Network::new(&format!("condo{number}"), "condo", subnet.parse().unwrap()),
        reserved: Vec::new(),
        domain: None,
    }
}

#[test]
fn networks_are_made_and_forgotten() {
    let scratch = Scratch::new("networks");
    let store = scratch.store();
    store
        .set_network_if_absent(&network("condo0", 0, "10.9.0.0/16"))
        .unwrap();
    let make = |text: &str| {
        let subnet = format!("10.10{text}.0.0/16").replace(['a', 'b'], "");
        store.add_network(&name(text), &|_, number| Ok(network(text, number, &subnet)))
    };
    assert_eq!((make("a").unwrap().number, make("b").unwrap().number), (1, 2));
    assert!(matches!(make("a"), Err(Error::Exists { .. })));
    let refused = store.add_network(&name("c"), &|_, _| Err(Error::Busy("no".into())));
    assert!(refused.is_err() && store.network(&name("c")).is_err());
    let mut web = new("web");
    web.config.networks = vec![
        "condo0".parse().unwrap(),
        "b,mac=02:00:00:00:00:01".parse().unwrap(),
    ];
    let web = store.insert(&web, &picks()).unwrap();
    assert_eq!(web.interfaces.len(), 2);
    assert_ne!(web.interfaces[0].address, web.interfaces[1].address);
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&web));
    let text = store
        .remove_network(&name("b"), &|_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(text.contains("`web` is on the network"), "{text}");
    store.remove_network(&name("a"), &|_| Ok(())).unwrap();
    assert_eq!(make("a").unwrap().number, 1);
    let mut twin = new("twin");
    twin.config.networks = vec!["b,mac=02:00:00:00:00:01".parse().unwrap()];
    let twin = store.insert(&twin, &picks()).unwrap_err().to_string();
    assert!(twin.starts_with("`web` has it; "), "{twin}");
    assert!(
        twin.ends_with(": hardware address `02:00:00:00:00:01` already exists"),
        "{twin}"
    );
}

#[test]
fn interfaces_come_and_go() {
    let scratch = Scratch::new("interfaces");
    let store = scratch.store();
    let web = store.insert(&new("web"), &picks()).unwrap();
    let (more, added) = store
        .add_interface(&web.name, &"lan,ip=10.9.0.77".parse().unwrap(), &lowest)
        .unwrap();
    assert_eq!((added.number, added.name().as_str()), (1, "eth1"));
    assert_eq!(store.get(&web.name).unwrap(), more);
    assert_eq!(more.config.networks.len(), 2);
    let taken = store.add_interface(&web.name, &"x,ip=10.9.0.77".parse().unwrap(), &lowest);
    assert!(matches!(taken.unwrap_err().root(), Error::Exists { .. }));
    // What was the second is the first when that goes, under its old name.
    let moved = store.remove_interface(&web.name, 0).unwrap();
    assert_eq!(
        (moved.address, moved.interfaces.len()),
        (Ipv4Addr::new(10, 9, 0, 77), 1)
    );
    assert_eq!(store.get(&web.name).unwrap(), moved);
    assert!(matches!(
        store.remove_interface(&web.name, 1),
        Err(Error::Status(_))
    ));
    let other = store.insert(&new("other"), &picks()).unwrap();
    assert_eq!(other.address, web.address);
}

#[test]
fn vpss_of_an_earlier_condo_are_on_the_default_network() {
    let scratch = Scratch::new("earlier");
    let store = scratch.store();
    let web = store.insert(&new("web"), &picks()).unwrap();
    let age = "DELETE FROM interface; DELETE FROM networks;
               INSERT INTO network VALUES (1, 'condo0', 'condo', '10.9.0.0/16');";
    store.db.borrow().execute_batch(age).unwrap();
    assert_eq!(store.get(&web.name).unwrap(), web);
    let default = network("condo0", 0, "10.9.0.0/16");
    assert_eq!(store.networks().unwrap(), std::slice::from_ref(&default));
    assert_eq!(
        store.on_network(&default).unwrap(),
        std::slice::from_ref(&web.name)
    );
    let (more, _) = store
        .add_interface(&web.name, &"lan".parse().unwrap(), &lowest)
        .unwrap();
    assert_eq!(more.interfaces[0], web.interfaces[0]);
    assert_eq!(store.get(&web.name).unwrap(), more);
}

#[test]
fn fifty_at_once_share_nothing() {
    let scratch = Scratch::new("fifty");
    let folders = scratch.folders();
    let records: Vec<Record> = std::thread::scope(|scope| {
        let insert = |n: usize| {
            let folders = folders.clone();
            // A connection each, as fifty processes would have; the first of them set the database up at once.
            move || Store::open(&folders)?.insert(&new(&format!("vps-{n}")), &picks())
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
            .map(|_| {
                scope.spawn(|| {
                    Store::open(&folders)
                        .unwrap()
                        .insert(&new("web"), &picks())
                        .is_ok()
                })
            })
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
        let stop = |_: &Attachment, _: &Taken| {
            std::fs::write(PathBuf::from(&root).join("here"), "").unwrap();
            std::thread::sleep(Duration::from_secs(600));
            Err(Error::Busy("never".into()))
        };
        let picks = Picks {
            address: &stop,
            ..picks()
        };
        let _ = store.insert(&new("web"), &picks);
        return;
    }
    let scratch = Scratch::new("killed");
    let store = scratch.store();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "vps::record::store::tests::a_process_killed_in_its_claim_has_claimed_nothing",
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
    assert_eq!(store.insert(&new("web"), &picks()).unwrap().id, 1);
}

#[test]
fn the_last_number_is_the_end() {
    let scratch = Scratch::new("full");
    let store = scratch.store();
    let db = store.db.borrow();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO vps SELECT 'v' || i, i, i, i, i, '{\"image\":\"a\"}', 0 FROM n";
    db.execute(fill, [HIGHEST_ID]).unwrap();
    assert!(matches!(free_id(&db), Err(Error::Unsupported { .. })));
    db.execute("DELETE FROM vps WHERE id = 77", []).unwrap();
    assert_eq!(free_id(&db).unwrap(), 77);
}

/// A way to lose a database.
type Loss = fn(&std::path::Path);

fn losses() -> [(&'static str, Loss); 5] {
    [
        ("emptied", |db| std::fs::write(db, "").unwrap()),
        ("removed", |db| std::fs::remove_file(db).unwrap()),
        ("another-file", |db| {
            std::fs::write(db, "not a database ".repeat(2000)).unwrap();
        }),
        ("cut", |db| {
            std::fs::File::options()
                .write(true)
                .open(db)
                .unwrap()
                .set_len(6000)
                .unwrap();
        }),
        ("overwritten", |db| {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().write(true).open(db).unwrap();
            let pages = file.metadata().unwrap().len() / 4096;
            for page in 1..pages {
                file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
            }
        }),
    ]
}

#[test]
fn a_lost_database_is_made_anew_of_the_copies() {
    for (what, lose) in losses() {
        let scratch = Scratch::new(what);
        let store = scratch.store();
        let db = store.insert(&new("db"), &picks()).unwrap();
        let mut wanted = new("web");
        wanted.config.allow.insert(name("db"));
        let web = store.insert(&wanted, &picks()).unwrap();
        let settings = network("condo0", 0, "10.9.0.0/16");
        store.set_network_if_absent(&settings).unwrap();
        drop(store);
        lose(&scratch.folders().database());
        let store = scratch.store();
        assert_eq!(store.list().unwrap(), [db.clone(), web.clone()], "{what}");
        assert_eq!(
            store.peers(&db.name).unwrap(),
            [(web.name.clone(), web.address)],
            "{what}"
        );
        assert_eq!(store.networks().unwrap(), [settings], "{what}");
        let again = store.insert(&new("web"), &picks()).unwrap_err();
        assert!(matches!(again, Error::Exists { .. }), "{what}: {again}");
        let next = store.insert(&new("next"), &picks()).unwrap();
        assert_eq!((next.id, next.address), (3, Ipv4Addr::new(10, 9, 0, 4)), "{what}");
    }
}

#[test]
fn damage_is_mended_while_it_is_found() {
    let (_, overwrite) = losses()[4];
    let scratch = Scratch::new("found");
    let store = scratch.store();
    let web = store.insert(&new("web"), &picks()).unwrap();
    overwrite(&scratch.folders().database());
    drop(store);
    let store = scratch.store();
    store.remove(&web.name).unwrap();
    assert_eq!(store.list().unwrap(), []);
    assert!(scratch.folders().database().with_extension("db.damaged").exists());
}

#[test]
fn there_is_room_in_the_file_for_what_a_full_disk_must_not_stop() {
    let scratch = Scratch::new("reserve");
    let store = scratch.store();
    let free = || -> u32 {
        let db = store.db.borrow();
        db.query_row("PRAGMA freelist_count", [], |row| row.get(0))
            .unwrap()
    };
    let size = || std::fs::metadata(scratch.folders().database()).unwrap().len();
    for n in 0..120 {
        store.insert(&new(&format!("v{n}")), &picks()).unwrap();
        assert!(free() >= 24, "{n}: {}", free());
    }
    let before = size();
    let journal = scratch.folders().database().with_extension("db-journal");
    let long = std::fs::metadata(&journal).unwrap().len();
    let end = LastExit {
        reason: ExitReason::Killed,
        status: None,
        signal: Some(9),
        at: 7,
    };
    for n in 0..60 {
        store.record_exit(&name(&format!("v{n}")), &end).unwrap();
        store.remove(&name(&format!("v{n}"))).unwrap();
        assert_eq!(size(), before, "{n}: the database grew");
    }
    assert_eq!(
        std::fs::metadata(&journal).unwrap().len(),
        long,
        "the journal grew"
    );
}
