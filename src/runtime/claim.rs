//! What a container holds of the host before it has a process: its id, its cgroup, its class of caches.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use super::bundle::Bundle;
use super::container::Container;
use super::hooks::{self, Surroundings};
use super::id::Id;
use super::plan::Plan;
use super::state::{Folder, State};
use super::status::Identity;
use crate::cgroups::{Cgroup, Placeholder};
use crate::error::{Error, Result};
use crate::files::Lock;
use crate::host::Host;
use crate::namespaces::ranges::Held;
use crate::rootfs;
use crate::undo::Undo;

/// All of it. Dropping a claim gives everything back; [`Claim::keep`] makes it the container's for good.
pub struct Claim<'a> {
    host: &'a Host,
    plan: &'a Plan,
    folder: Folder,
    /// The facts so far.
    pub state: State,
    /// The container's cgroup, if it is to have one.
    pub cgroup: Option<Cgroup>,
    born: Rc<Cell<bool>>,
    undo: Undo<'a>,
    placeholder: Option<Placeholder>,
    _lock: Lock,
}

impl<'a> Claim<'a> {
    /// Claims the id below the root, and makes the rest. `ids` are user ids that are claimed already.
    ///
    /// # Errors
    /// [`Error::Exists`] for an id in use; [`Error::Invalid`] for a cgroup in use.
    pub fn stake(
        host: &'a Host,
        (root, id): (&Path, &Id),
        bundle: &'a Bundle,
        plan: &'a Plan,
        ids: Option<Held>,
    ) -> Result<Self> {
        let folder = Folder::new(root, id);
        let state = State {
            ids,
            ..first_state(host, id, bundle, plan)?
        };
        let lock = folder.claim(!host.caller.privileged)?;
        let born = Rc::new(Cell::new(false));
        let mut undo = poststop_after(born.clone(), plan, state.oci(0, "stopped"), &bundle.path);
        let removed = folder.clone();
        undo.push(move || removed.remove());
        // Before the cgroup: whoever finds this directory after our death knows what to clear.
        folder.save(&state)?;
        folder.save_config(&bundle.raw)?;
        let mut claim = Self {
            host,
            plan,
            folder,
            state,
            cgroup: None,
            born,
            undo,
            placeholder: None,
            _lock: lock,
        };
        claim.limit()?;
        claim.allocate()?;
        claim.state.claimed = true;
        claim.save()?;
        Ok(claim)
    }

    /// Makes the cgroup. It must be the container's alone: limits and `kill` act on all that is in it.
    fn limit(&mut self) -> Result<()> {
        let (host, plan) = (self.host, self.plan);
        let Some(home) = &plan.cgroup else {
            return Ok(());
        };
        let (cgroup, placeholder) = home.create(&host.cgroups, &plan.limits).map_err(|e| match e {
            Error::Invalid { value, problem, .. } => Error::invalid("linux.cgroupsPath", value, problem),
            e => e,
        })?;
        log::debug!("cgroup `{}` is there", home.path());
        self.placeholder = placeholder;
        self.undo.push(move || home.remove(&host.cgroups));
        home.confine(&cgroup, &plan.limits)?;
        self.cgroup = Some(cgroup);
        Ok(())
    }

    /// Makes the class of caches and memory bandwidth.
    fn allocate(&mut self) -> Result<()> {
        if let Some(share) = &self.plan.resctrl {
            share.prepare()?;
            self.undo.push(move || share.remove());
        }
        Ok(())
    }

    /// Puts the root filesystem in its place where the container is among the caller's mounts.
    ///
    /// # Errors
    /// As [`RootfsPlan::cover`](rootfs::RootfsPlan::cover).
    pub fn cover(&mut self, sources: Option<&rootfs::Sources>) -> Result<()> {
        let mount = sources
            .map(|sources| self.plan.rootfs.cover(sources))
            .transpose()?;
        let Some(mount) = mount.flatten() else {
            return Ok(());
        };
        let root = self.state.rootfs.clone();
        self.undo.push(move || rootfs::uncover(&root, mount));
        self.state.covered_by = Some(mount);
        self.save()
    }

    /// The container has come to be: the spec's life goes on with poststop when creation fails from here on.
    pub fn born(&self) {
        self.born.set(true);
    }

    /// Puts a process where only one that is there can be put: systemd's scope, and the class of caches and memory bandwidth.
    /// It is init, or what will make init.
    pub fn settle(&mut self, pid: i32) -> Result<()> {
        if let Some(home) = &self.plan.cgroup {
            home.settle(&self.host.cgroups, self.placeholder.take(), &self.plan.limits)?;
        }
        let share = self.plan.resctrl.as_ref();
        share.map_or(Ok(()), |share| share.admit(pid))
    }

    /// Gives the cgroup's management to whom the plan names. Not before those who enter by themselves have done so: a process that
    /// was born into a user namespace opens a v1 cgroup's `tasks` only as the owner it still is.
    pub fn delegate(&self) -> Result<()> {
        match (self.plan.delegate, &self.cgroup) {
            (Some((uid, gid)), Some(cgroup)) => cgroup.delegate(uid, gid),
            _ => Ok(()),
        }
    }

    /// From here on the container can be found by its init.
    ///
    /// # Errors
    /// [`Error::Init`] for one that has died, or whose container a hook has deleted.
    pub fn name_init(&mut self, init: i32) -> Result<()> {
        if self.folder.is_called_off() {
            return Err(Error::Init("one of its hooks has deleted the container".into()));
        }
        let died = || Error::Init("init died before it was ready".into());
        self.state.init = Some(Identity::of(init).ok_or_else(died)?);
        self.save()
    }

    fn save(&self) -> Result<()> {
        self.folder.save(&self.state)
    }

    /// Where the container's state is.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The container, whose all of it is now.
    pub fn keep(self) -> Container {
        self.undo.disarm();
        Container::from_parts(self.folder, self.state)
    }
}

/// Last of all that is taken back.
fn poststop_after<'a>(born: Rc<Cell<bool>>, plan: &'a Plan, ended: Vec<u8>, bundle: &'a Path) -> Undo<'a> {
    Undo::of(move || {
        if born.get() {
            let around = Surroundings::of_bundle(bundle);
            hooks::run_all("poststop", &plan.hooks.poststop, &ended, around);
        }
        Ok(())
    })
}

/// The facts about a container that has no init yet.
fn first_state(host: &Host, id: &Id, bundle: &Bundle, plan: &Plan) -> Result<State> {
    let spec = &bundle.spec;
    Ok(State {
        oci_version: spec.version().clone(),
        id: id.to_string(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs()?,
        annotations: spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
        owner: host.caller.uid,
        init: None,
        claimed: false,
        cgroup: plan.cgroup.clone(),
        resctrl: plan.resctrl.clone(),
        ids: None,
        namespaces: plan.namespaces.own(),
        covered_by: None,
        streams: Vec::new(),
        server: None,
        start_hooks: !plan.hooks.start_container.is_empty(),
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
    })
}
