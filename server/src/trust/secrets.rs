//! Secrets that are given out, and what each stands for. The secrets themselves are not kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use condo::error::{Error, Result};
use condo::image::hex;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Reach;

/// What a secret stands for, for as long as it does.
#[derive(Debug, Serialize, Deserialize)]
struct Grant<T> {
    /// In seconds since 1970.
    expires: u64,
    #[serde(flatten)]
    what: T,
}

/// The projects that somebody is trusted with, if not with all that there is.
pub(super) type Projects = Option<Vec<Name>>;

/// Those that were named, if any were.
pub(super) fn named(projects: Vec<Name>) -> Projects {
    Some(projects).filter(|all| !all.is_empty())
}

/// Refuses projects that are not there.
pub(super) fn must_exist(condo: &Condo, projects: &Projects) -> Result<()> {
    let mut all = projects.iter().flatten();
    all.try_for_each(|project| condo.store.must_have_project(project))
}

/// How far somebody is trusted who is trusted with these.
pub(super) fn reach_of(projects: Projects) -> Reach {
    projects.map_or(Reach::All, Reach::Projects)
}

/// A secret as it is told, once.
pub(crate) struct Given {
    pub(crate) secret: String,
    /// When it ends to be good.
    pub(crate) expires: SystemTime,
}

/// Gives a new one out. Those of its kind whose time is over go.
pub(super) fn give<T: Serialize>(
    condo: &Condo,
    (kind, lasts): (&'static str, Duration),
    what: T,
) -> Result<Given> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let secret = hex(&bytes);
    for (key, text) in condo.store.kept(kind)? {
        if read::<Grant<serde_json::Value>>(&text)?.expires < now() {
            let _ = condo.store.let_go(kind, &key);
        }
    }
    let expires = now() + lasts.as_secs();
    let text = serde_json::to_string(&Grant { expires, what })?;
    condo.store.keep_new(kind, &key(&secret), &text)?;
    Ok(Given {
        secret,
        expires: UNIX_EPOCH + Duration::from_secs(expires),
    })
}

/// What a secret stands for, if it is good.
pub(super) fn look<T: DeserializeOwned>(condo: &Condo, kind: &str, secret: &str) -> Result<Option<T>> {
    let kept = condo.store.kept(kind)?;
    let grant = kept.get(&key(secret)).map(|text| read::<Grant<T>>(text));
    let good = grant.transpose()?.filter(|grant| grant.expires >= now());
    Ok(good.map(|grant| grant.what))
}

/// The same for a secret that is good once: of several who bring it, one gets it.
pub(super) fn take<T: DeserializeOwned>(
    condo: &Condo,
    kind: &'static str,
    secret: &str,
) -> Result<Option<T>> {
    let found = look(condo, kind, secret)?;
    Ok(if forget(condo, kind, secret)? { found } else { None })
}

/// Makes a secret worthless; whether it was known.
pub(super) fn forget(condo: &Condo, kind: &'static str, secret: &str) -> Result<bool> {
    match condo.store.let_go(kind, &key(secret)) {
        Ok(()) => Ok(true),
        Err(e) if e.is_gone() => Ok(false),
        Err(e) => Err(e),
    }
}

/// What was kept about trust.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::Corrupt(format!("the database holds unusable words of trust: {e}")))
}

/// What a secret is known by.
fn key(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
