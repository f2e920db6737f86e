//! Projects, and the one place where a VPS is let into one: inside the transaction that records or changes it.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{Record, sql};
use super::{Store, all, begin, copies, exists, now};
use crate::error::{Error, Result};
use crate::vps::record::name::Name;
use crate::vps::record::project::{Allowance, DEFAULT, Project, ProjectView};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS project (
    name    TEXT PRIMARY KEY,
    limits  TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;
";

impl Store {
    /// Makes a project.
    ///
    /// # Errors
    /// [`Error::Exists`], and what [`Allowance::check`] says.
    pub fn add_project(&self, name: &Name, limits: Allowance) -> Result<Project> {
        limits.check()?;
        if name.as_str() == DEFAULT {
            return Err(exists("project", name));
        }
        self.with(|db| {
            let claim = begin(db)?;
            if find(&claim, name)?.is_some() {
                return Err(exists("project", name));
            }
            let project = Project {
                name: name.clone(),
                limits,
                created: now(),
            };
            put(&claim, &project)?;
            copies::write_projects(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(project)
        })
    }

    /// Looks whether a project is there.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn must_have_project(&self, name: &Name) -> Result<()> {
        match name.as_str() {
            DEFAULT => Ok(()),
            _ => self.find_project(name).map(drop),
        }
    }

    /// One as it is stored, without what its VPSs use.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn find_project(&self, name: &Name) -> Result<Project> {
        self.with(|db| get(db, name))
    }

    /// Changes what a project may use. It may be less than is used: then nothing is added until enough has gone.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what [`Allowance::check`] says.
    pub fn change_project(
        &self,
        name: &Name,
        change: &dyn Fn(Allowance) -> Result<Allowance>,
    ) -> Result<Project> {
        self.with(|db| {
            let claim = begin(db)?;
            let mut project = get(&claim, name)?;
            project.limits = change(project.limits)?;
            project.limits.check()?;
            put(&claim, &project)?;
            copies::write_projects(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(project)
        })
    }

    /// Forgets a project.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Status`] for one that has VPSs.
    pub fn remove_project(&self, name: &Name) -> Result<()> {
        self.with(|db| {
            let claim = begin(db)?;
            let project = get(&claim, name)?;
            if let Some(vps) = members(&claim, name)?.first() {
                let text = format!("the VPS `{}` is in the project; delete it first", vps.name);
                return Err(Error::Status(text));
            }
            claim
                .execute("DELETE FROM project WHERE name = ?1", [project.name.as_str()])
                .map_err(sql)?;
            copies::write_projects(&self.folders, &claim)?;
            claim.commit().map_err(sql)
        })
    }

    /// All projects with what they use, by name; `default` among them.
    pub fn projects(&self) -> Result<Vec<ProjectView>> {
        self.with(|db| {
            let mut found = every(db)?;
            found.push(default()?);
            found.sort_by(|a, b| a.name.cmp(&b.name));
            let records = all(db)?;
            let view = |project: Project| {
                let own = records
                    .iter()
                    .filter(|vps| vps.project() == project.name.as_str());
                let own: Vec<Record> = own.cloned().collect();
                project.view(&own)
            };
            Ok(found.into_iter().map(view).collect())
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn project(&self, name: &Name) -> Result<ProjectView> {
        self.with(|db| {
            let project = match name.as_str() {
                DEFAULT => default()?,
                _ => get(db, name)?,
            };
            Ok(project.view(&members(db, name)?))
        })
    }
}

/// Lets a VPS into its project, or lets it have more there, if that is within the limits. The caller has begun a transaction.
pub(super) fn admit(claim: &Connection, before: Option<&Record>, after: &Record) -> Result<()> {
    let Some(name) = &after.config.project else {
        return Ok(());
    };
    let project = get(claim, name)?;
    let mut others = members(claim, name)?;
    others.retain(|other| other.name != after.name);
    let before = before.filter(|before| before.config.project.as_ref() == Some(name));
    project.admit(&others, before, after)
}

fn members(db: &Connection, name: &Name) -> Result<Vec<Record>> {
    let mut records = all(db)?;
    records.retain(|record| record.project() == name.as_str());
    Ok(records)
}

fn default() -> Result<Project> {
    Ok(Project {
        name: DEFAULT.parse()?,
        limits: Allowance::default(),
        created: 0,
    })
}

fn get(db: &Connection, name: &Name) -> Result<Project> {
    find(db, name)?.ok_or_else(|| Error::NotFound {
        kind: "project",
        name: name.to_string(),
    })
}

fn find(db: &Connection, name: &Name) -> Result<Option<Project>> {
    let row = db
        .query_row(
            "SELECT limits, created FROM project WHERE name = ?1",
            [name.as_str()],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(sql)?;
    row.map(|(limits, created)| read(name.clone(), &limits, created))
        .transpose()
}

/// All that are stored.
pub(super) fn every(db: &Connection) -> Result<Vec<Project>> {
    let mut query = db
        .prepare_cached("SELECT name, limits, created FROM project ORDER BY name")
        .map_err(sql)?;
    let rows = query
        .query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
        })
        .map_err(sql)?;
    rows.map(|row| {
        let (name, limits, created) = row.map_err(sql)?;
        read(name.parse()?, &limits, created)
    })
    .collect()
}

fn read(name: Name, limits: &str, created: i64) -> Result<Project> {
    let limits = serde_json::from_str(limits)?;
    Ok(Project {
        name,
        limits,
        created,
    })
}

pub(super) fn put(db: &Connection, project: &Project) -> Result<()> {
    let text = "INSERT OR REPLACE INTO project (name, limits, created) VALUES (?1, ?2, ?3)";
    let limits = serde_json::to_string(&project.limits)?;
    db.execute(text, params![project.name.as_str(), limits, project.created])
        .map_err(sql)?;
    Ok(())
}
