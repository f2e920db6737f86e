//! The options of what happens to a VPS by itself, and `condo set` and `condo autostart`.

use anyhow::Result;
use clap::Args;

use super::life;
use super::usage::digits;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::error::Error;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::policy::Restart;
use crate::vps::record::schedule::Schedule;

// As `create` and `set` have them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "By itself")]
pub(super) struct PolicyArgs {
    /// Whether it is started again when it ends: no, on-failure or always.
    #[arg(long, value_name = "POLICY")]
    restart: Option<Restart>,
    /// Start it when the host comes up; `--autostart=false` takes that back.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autostart: Option<bool>,
    /// Its turn when the host comes up: lower numbers first; 0 by default.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = turn)]
    boot_order: Option<i32>,
    /// Seconds that the next VPS waits after it when the host comes up.
    #[arg(long, value_name = "SECONDS", value_parser = |t: &str| small("--boot-delay", t))]
    boot_delay: Option<u32>,
    /// Snapshots by itself, where `condo-snapshot.timer` is enabled: hourly, daily, weekly or monthly, and how many stay; or none.
    /// Without it daily, of which 7 stay.
    #[arg(long, value_name = "WHEN[,KEEP]")]
    schedule: Option<Schedule>,
}

fn turn(text: &str) -> crate::error::Result<i32> {
    const OPTION: &str = "--boot-order";
    let refuse = || Error::invalid(OPTION, text, "is no whole number, or too large");
    let number = digits(OPTION, text.strip_prefix('-').unwrap_or(text)).map_err(|_| refuse())?;
    let turn = i32::try_from(number).map_err(|_| refuse())?;
    Ok(if text.starts_with('-') { -turn } else { turn })
}

fn small(option: &str, text: &str) -> crate::error::Result<u32> {
    let number = digits(option, text)?;
    u32::try_from(number).map_err(|_| Error::invalid(option, text, "is too large"))
}

impl PolicyArgs {
    fn is_empty(&self) -> bool {
        self.restart.is_none()
            && self.autostart.is_none()
            && self.boot_order.is_none()
            && self.boot_delay.is_none()
            && self.schedule.is_none()
    }

    /// Puts what was given into a configuration.
    pub(super) fn apply(&self, config: &mut VpsConfig) {
        config.restart = self.restart.unwrap_or(config.restart);
        config.schedule = self.schedule.or(config.schedule);
        let boot = &mut config.boot;
        boot.autostart = self.autostart.unwrap_or(boot.autostart);
        boot.order = self.boot_order.unwrap_or(boot.order);
        boot.delay = self.boot_delay.unwrap_or(boot.delay);
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  condo set web --restart always --autostart
  condo set db --autostart --boot-order 1 --boot-delay 5
  condo set db --schedule hourly,24";

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The VPS.
    pub(super) name: Name,
    #[command(flatten)]
    policy: PolicyArgs,
}

pub(super) fn set(condo: &Condo, args: &SetArgs) -> Result<Exit> {
    if args.policy.is_empty() {
        return Err(Error::invalid("set", &args.name, "is given nothing new; see condo set --help").into());
    }
    condo.store.reconfigure(&args.name, &|config| {
        args.policy.apply(config);
        Ok(())
    })?;
    Ok(Exit::Success)
}

pub(super) fn autostart(condo: &Condo) -> Result<Exit> {
    let mut exit = Exit::Success;
    for (name, result) in condo.autostart()? {
        if result.is_ok() {
            output::print(&format!("{name} started"))?;
        }
        exit = life::note(exit, result, "start", &name);
    }
    Ok(exit)
}
