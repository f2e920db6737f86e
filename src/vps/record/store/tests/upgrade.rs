//! Databases of earlier condos, which are used on, and of later ones, which are refused.

use super::*;

/// A folder with the database that a condo of this step left.
fn left_by(step: &str, tables: &str) -> Scratch {
    let scratch = Scratch::new(step);
    let db = Connection::open(scratch.folders().database()).unwrap();
    db.execute_batch(tables).unwrap();
    scratch
}

/// Every database that condo has ever made: its name and what makes it.
fn steps() -> Vec<(String, String)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/database");
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    found.sort();
    assert!(found.len() >= 6, "{found:?}");
    found
}

#[test]
fn every_earlier_database_is_used_on() {
    for (step, tables) in steps() {
        let scratch = left_by(&step, &tables);
        let store = scratch.store();
        let (web, db) = (name("web"), name("db"));
        let record = store.get(&web).unwrap();
        assert_eq!(record.config.limits.memory, Some(64 << 20), "{step}");
        assert_eq!(record.last_exit.as_ref().unwrap().status, Some(3), "{step}");
        assert_eq!(
            record.interfaces[0].address,
            Ipv4Addr::new(10, 88, 0, 2),
            "{step}"
        );
        assert_eq!(store.peers(&web).unwrap()[0].0, db, "{step}");
        assert_eq!(
            store.networks().unwrap(),
            [network("condo0", 0, "10.88.0.0/16")],
            "{step}"
        );
        // What came later works on it.
        store.rename(&db, &name("shop")).unwrap();
        store
            .reconfigure(&web, &|config| {
                config.hostname = Some("www".into());
                Ok(())
            })
            .unwrap();
        let third = store.insert(&new("third"), &picks()).unwrap();
        assert_eq!(third.id, 3, "{step}");
        store.remove(&name("shop")).unwrap();
        assert_eq!(scratch.store().list().unwrap().len(), 2, "{step}");
    }
}

#[test]
fn later_layouts_are_refused_and_left_alone() {
    let scratch = Scratch::new("version");
    let store = scratch.store();
    store.db.borrow().pragma_update(None, "user_version", 9).unwrap();
    let text = Store::open(&scratch.folders()).unwrap_err().to_string();
    assert!(
        text.contains("a newer condo made the database: it is of version 9"),
        "{text}"
    );
    let version: u32 = store
        .db
        .borrow()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 9);
}

#[test]
fn a_later_configuration_is_refused_and_left_alone() {
    let scratch = Scratch::new("later");
    let store = scratch.store();
    store.insert(&new("web"), &picks()).unwrap();
    let later = "UPDATE vps SET config = '{\"image\":\"busybox\",\"orbit\":5}'";
    store.db.borrow().execute_batch(later).unwrap();
    for text in [
        store.list().unwrap_err().to_string(),
        store.get(&name("web")).unwrap_err().to_string(),
        store
            .reconfigure(&name("web"), &|config| {
                config.hostname = None;
                Ok(())
            })
            .unwrap_err()
            .to_string(),
    ] {
        assert!(
            text.contains("a newer condo wrote the database (unknown field `orbit`"),
            "{text}"
        );
    }
    let kept: String = store
        .db
        .borrow()
        .query_row("SELECT config FROM vps", [], |row| row.get(0))
        .unwrap();
    assert!(kept.contains("orbit"));
}
