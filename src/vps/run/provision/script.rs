//! What runs once inside: the owner's script, or what cloud-init makes of its data.
//!
//! ```text
//! with cloud-init     /var/lib/cloud/seed/nocloud/{meta-data,user-data}     cloud-init does it
//! with systemd        /var/lib/condo/{first-boot,run}, a unit               when the network is up
//! with other inits    /var/lib/condo/{first-boot,run}                       before init begins
//! ```

use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::put_link;
use crate::error::{During, Result};
use crate::files::Root;
use crate::vps::record::store::Record;

/// By this an image is known to have it.
pub(super) const CLOUD_INIT: &str = "/usr/bin/cloud-init";
/// Where it looks for data on the disk (its data source NoCloud).
const SEED: &str = "/var/lib/cloud/seed/nocloud";

const DIR: &str = "/var/lib/condo";
/// What starts the script.
pub(super) const RUNNER: &str = "/var/lib/condo/run";
/// The same in a shell's line.
pub(super) const LINE: &str = "/bin/sh /var/lib/condo/run; ";

/// At most once: it is renamed before it begins, so that one which breaks the system does not break it again.
const RUN: &str = "#!/bin/sh
# Runs what this system was given for its first boot, at most once. Written by condo.
cd /var/lib/condo && mv first-boot begun || exit 0
export HOME=/root
cd /
status=0
/var/lib/condo/begun < /dev/null || status=$?
rm -rf /var/lib/condo
[ $status -eq 0 ] || echo \"condo: the script of the first boot failed with status $status\"
exit $status
";

const UNIT: &str = "/etc/systemd/system/condo-first-boot.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/condo-first-boot.service";
const SERVICE: &str = "[Unit]
Description=Run what this system was given for its first boot
After=network-online.target
Wants=network-online.target
ConditionPathExists=/var/lib/condo/first-boot

[Service]
Type=oneshot
ExecStart=/var/lib/condo/run
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity
";

/// Puts it where it will be found; whether it is left to whoever starts init.
pub(super) fn put(root: &Root, record: &Record, data: Option<&str>) -> Result<bool> {
    if root.has(Path::new(CLOUD_INIT)) {
        return seed(root, record, data).map(|()| false);
    }
    let Some(script) = data else {
        return Ok(false);
    };
    root.create_dir_all(Path::new(DIR), 0o700)?;
    let dir = root.get(Path::new(DIR), OFlags::RDONLY | OFlags::DIRECTORY)?;
    rustix::fs::fchmod(dir, Mode::RWXU).during(|| format!("close `{DIR}` to others"))?;
    root.write(&Path::new(DIR).join("first-boot"), script.as_bytes(), 0o700)?;
    root.write(Path::new(RUNNER), RUN.as_bytes(), 0o700)?;
    if !has_systemd(root) {
        return Ok(true);
    }
    root.write(Path::new(UNIT), SERVICE.as_bytes(), 0o644)?;
    put_link(root, WANTED, UNIT)?;
    Ok(false)
}

/// Data for cloud-init, also where the owner gave none: it looks for a cloud otherwise, for minutes.
fn seed(root: &Root, record: &Record, data: Option<&str>) -> Result<()> {
    let meta = format!(
        "instance-id: {}\nlocal-hostname: {}\n",
        record.uuid,
        record.hostname()
    );
    root.create_dir_all(Path::new(SEED), 0o700)?;
    let put = |name: &str, text: &str| root.write(&Path::new(SEED).join(name), text.as_bytes(), 0o600);
    put("meta-data", &meta)?;
    put("user-data", data.unwrap_or("#cloud-config\n{}\n"))
}

/// Whether what `/sbin/init` leads to is systemd.
fn has_systemd(root: &Root) -> bool {
    root.follow(Path::new("/sbin/init"))
        .is_ok_and(|(_, name)| name == "systemd")
}
