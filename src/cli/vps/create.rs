//! `condo create`.

use anyhow::{Context, Result};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::error;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::disk::Disk;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::NewVps;

use super::args::CreateArgs;

pub(super) fn run(condo: &Condo, args: CreateArgs) -> Result<Exit> {
    let start = args.start;
    let plan = args.plan.clone();
    let mut new = wanted(args)?;
    if let Some(plan) = plan {
        new.config = condo.planned(new.config, &plan)?;
    }
    let record = condo.create(new)?;
    let name = &record.name;
    if start {
        condo
            .start(name)
            .with_context(|| format!("`{name}` was created, but does not start"))?;
    }
    let done = if start { "started" } else { "created" };
    output::print(&format!("{name} {done}, address {}", record.address))?;
    Ok(Exit::Success)
}

/// The command line as a configuration; of a variable given twice the last value holds.
pub(super) fn wanted(args: CreateArgs) -> error::Result<NewVps> {
    let mut config = VpsConfig {
        hostname: args.hostname,
        limits: args.limits.into(),
        env: args.env.into_iter().collect(),
        ip: args.ip,
        networks: args.networks.network,
        allow: args.publish.allow.into_iter().collect(),
        permit: args.inside.permit.into_iter().collect(),
        publish: args.publish.publish.into_iter().collect(),
        devices: args.inside.device.into_iter().collect(),
        nesting: args.inside.nesting,
        own_sysinfo: !args.inside.host_sysinfo,
        ids: args.inside.ids,
        disk: Disk::wanted(args.disk.into()),
        ..VpsConfig::new(args.image)
    };
    args.policy.apply(&mut config);
    Ok(NewVps {
        name: args.name,
        wanted_ip: args.ip,
        config,
        first_boot: args.first_boot.read()?,
    })
}
