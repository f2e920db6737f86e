//! `POST /1.0/instances`: a new VPS.

use axum::extract::FromRequest;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::facts::Facts;
use condo::vps::record::first_boot::FirstBoot;
use condo::vps::record::labels::Labels;
use condo::vps::record::name::Name;
use serde::Deserialize;

use super::change::configured as configured_as;
use super::power::act;
use super::show::seen;
use super::{backups, snapshots, view};
use crate::errand::Task;
use crate::images;
use crate::keys::{self, Devices, Keys, Setup};
use crate::operations::{Plan, random_id};
use crate::profiles::Profiles;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{self, Body, Params};
use crate::server::Server;

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: Option<String>,
    description: Option<String>,
    architecture: Option<String>,
    config: Option<Keys>,
    devices: Option<Devices>,
    /// Absent is the default profile, an empty list none.
    profiles: Option<Vec<String>>,
    ephemeral: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Source,
}

/// What it is made of.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    alias: Option<String>,
    fingerprint: Option<String>,
    server: Option<String>,
    /// The instance that is copied, or its snapshot as `NAME/SNAPSHOT`.
    source: Option<String>,
    /// The project of that one.
    project: Option<String>,
}

/// `POST /1.0/instances`.
pub(crate) async fn create(server: Server, params: Params, request: axum::extract::Request) -> Answer {
    let headers = request.headers();
    let header = |key: &str| {
        headers
            .get(key)
            .map_or("", |value| value.to_str().unwrap_or_default())
    };
    if header("content-type").starts_with("application/octet-stream") {
        server.must_be_unrestricted("archives")?;
        let called = Some(header("x-lxd-name")).filter(|name| !name.is_empty());
        let called = called.map(str::parse).transpose()?;
        return backups::import(&server, &params, called, request.into_body()).await;
    }
    let Body(wanted): Body<Wanted> = Body::from_request(request, &server).await?;
    let name = wanted.name()?;
    wanted.refuse_others()?;
    if wanted.source.kind == "copy" {
        return copy(&server, params.project(), name, wanted).await;
    }
    let (config, granted, first_boot) = server.read(move |condo| Ok(configured(condo, &wanted))).await??;
    server.must_not_empower(&granted, &config)?;
    let plan = Plan::of_instance("Creating instance", params.project(), name.as_str());
    let task = Task::Create {
        name: name.clone(),
        ip: config.ip,
        config: Box::new(config),
        first_boot,
    };
    act(&server, plan, task, "instance-created", &name)
}

/// An instance out of another, configured like that one where nothing else is said.
async fn copy(server: &Server, project: &str, name: Name, wanted: Wanted) -> Answer {
    if let Some(other) = wanted.source.project.as_deref().filter(|other| *other != project) {
        let problem = "is another project: instances are copied within one";
        return Err(Problem::value("source.project", other, problem));
    }
    let source = wanted.source.source.clone().unwrap_or_default();
    let (from, snapshot) = source
        .split_once('/')
        .map_or((source.as_str(), None), |(a, b)| (a, Some(b)));
    let from = request::name(from)?;
    let (seen, profiles) = seen(server, &from).await?;
    let snapshot = match snapshot {
        Some(snapshot) => Some(snapshots::of(server, &from, snapshot).await?),
        None => None,
    };
    let mut labels = view::labels(&seen.record, &profiles);
    labels.keys = wanted.config.clone().map_or(labels.keys, keys::lasting);
    labels.devices = wanted.devices.clone().unwrap_or(labels.devices);
    labels.profiles = wanted.profiles.clone().unwrap_or(labels.profiles);
    labels.description = wanted.description.clone().unwrap_or(labels.description);
    let granted = view::connected(&seen.record);
    let config = server
        .read(move |condo| Ok(configured_as(condo, &profiles, &seen.record, labels)))
        .await??;
    server.must_not_empower(&granted, &config)?;
    let plan = Plan::of_instance("Creating instance", project, name.as_str());
    let worker = server.clone();
    let work = async move {
        let new = name.clone();
        worker.run(Task::Clone { from, new, snapshot }).await?;
        worker
            .run(Task::Configure(name.clone(), Box::new(config)))
            .await?;
        Ok(())
    };
    Ok(Reply::begun(&*server.operations.begin(plan, work)?))
}

impl Wanted {
    fn name(&self) -> Result<Name, Problem> {
        match self.name.as_deref() {
            None | Some("") => Ok(format!("vps-{}", &random_id()?[..8]).parse()?),
            Some(name) => Ok(name.parse()?),
        }
    }

    /// Refuses what would be made into something else than was asked for.
    fn refuse_others(&self) -> Result<(), Problem> {
        if !["", "container"].contains(&self.kind.as_deref().unwrap_or_default()) {
            return Err(Problem::value(
                "type",
                self.kind.as_deref().unwrap_or_default(),
                "is not supported: VPSs are containers",
            ));
        }
        if self.ephemeral {
            return Err(Problem::value(
                "ephemeral",
                "true",
                "is not supported: delete it when it has stopped",
            ));
        }
        let machine = rustix::system::uname();
        match self.architecture.as_deref().filter(|machine| !machine.is_empty()) {
            Some(other) if other.as_bytes() != machine.machine().to_bytes() => {
                Err(Problem::value("architecture", other, "is not this host's"))
            }
            _ => Ok(()),
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            keys: keys::lasting(self.config.clone().unwrap_or_default()),
            devices: self.devices.clone().unwrap_or_default(),
        }
    }
}

/// The configuration of a VPS that is wanted, and what its profiles alone make of one.
fn configured(
    condo: &condo::vps::record::instance::Condo,
    wanted: &Wanted,
) -> Result<(VpsConfig, VpsConfig, FirstBoot), Problem> {
    let profiles = Profiles::load(condo)?;
    let chosen = wanted
        .profiles
        .clone()
        .unwrap_or_else(|| vec!["default".to_owned()]);
    profiles.must_have(&chosen)?;
    let mut own = wanted.setup();
    let image = image(condo, &wanted.source)?;
    for (key, value) in image.properties() {
        own.keys.entry(format!("image.{key}")).or_insert(value);
    }
    let mut config = VpsConfig::new(image.view.name);
    let mut granted = config.clone();
    profiles.expand(&chosen, &Setup::default()).apply(&mut granted)?;
    let all = profiles.expand(&chosen, &own);
    all.apply(&mut config)?;
    let first_boot = all.first_boot();
    first_boot.validate()?;
    let facts = Facts::probe(&condo.host)?;
    config.clone().with_defaults(&facts).validate(&facts)?;
    config.labels = Labels {
        description: wanted.description.clone().unwrap_or_default(),
        profiles: chosen,
        keys: own.keys,
        devices: own.devices,
    };
    Ok((config, granted, first_boot))
}

fn image(condo: &condo::vps::record::instance::Condo, source: &Source) -> Result<images::Known, Problem> {
    if source.kind != "image" {
        return Err(Problem::value(
            "source.type",
            &source.kind,
            "is not supported: image and copy are",
        ));
    }
    if let Some(server) = source.server.as_deref().filter(|server| !server.is_empty()) {
        let problem =
            "is another server: bring the image here first, with `condo image build` or `condo image import`";
        return Err(Problem::value("source.server", server, problem));
    }
    match (&source.fingerprint, &source.alias) {
        (Some(fingerprint), _) if !fingerprint.is_empty() => images::find(condo, fingerprint),
        (_, Some(alias)) if !alias.is_empty() => images::named(condo, alias).map(|(image, _)| image),
        _ => Err(Problem::bad(
            "source: neither `alias` nor `fingerprint` says of which image",
        )),
    }
}
