//! What a distribution has, installed and used inside of one VPS. Where `CONDO_TEST_SERVICES` names what `scripts/services` made, and
//! `CONDO_TEST_DEBIAN_IMAGE` the image it was made for.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::debian::up;
use super::house::{House, eventually};
use crate::harness;

tests![services_are_installed_and_used: 500];

/// Scripts for bash, each with what it has to print. Whatever it needs is installed, and the user `ann` is there.
type Uses = &'static [(&'static str, &'static str)];

/// Data that has to be there after a reboot.
const FIRST: Uses = &[
    (
        "useradd -m -s /bin/bash ann; echo a page > /var/www/html/index.html",
        "",
    ),
    (
        "cd /; su postgres -c \"createdb shop; psql -qAt shop -c 'create table t (x int); insert into t values (42)'\"",
        "",
    ),
    (
        "mariadb -N -e 'create database shop; create table shop.t (x int); insert into shop.t values (43)'",
        "",
    ),
    ("redis-cli set x 44 && redis-cli save", "OK\nOK"),
    ("echo '* * * * * ann date > /home/ann/ran' > /etc/cron.d/ann", ""),
    ("timedatectl set-timezone Asia/Tokyo", ""),
    ("loginctl enable-linger ann", ""),
    // It began before its message bus knew its user: so Debian's package has it.
    ("systemctl restart systemd-resolved", ""),
];

/// What the services do, before and after a reboot.
const SERVICES: Uses = &[
    (
        "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3",
        "a page",
    ),
    (
        "cd /; su postgres -c \"psql -At shop -c 'select x from t'\"",
        "42",
    ),
    ("mariadb -N -e 'select * from shop.t'", "43"),
    ("redis-cli get x", "44"),
    ("date +%Z", "JST"),
    ("systemctl is-active systemd-logind nginx cron | uniq", "active"),
    ("systemctl is-active systemd-timesyncd || true", "inactive"),
    (
        "resolvectl query localhost --legend=no | sed -n 's/^localhost: *\\([^ ]*\\).*/\\1/p'",
        "127.0.0.1",
    ),
];

/// Programs that look at the system or change it, and what systemd does to services.
const PROGRAMS: Uses = &[
    ("echo 'ann ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ann; su ann -c 'sudo id -u'", "0"),
    ("su ann -c 'ping -qc1 127.0.0.1' | grep -o '1 received'", "1 received"),
    ("su ann -c 'strace -o /dev/null cat /etc/hostname'", "web"),
    ("gdb -batch -ex starti -ex 'print 6*7' /bin/true 2>/dev/null | tail -n 1", "$1 = 42"),
    (
        "timeout 9 tcpdump -c 1 -n -i lo icmp 2>/dev/null > /tmp/seen & until [ -s /tmp/seen ]; do ping -qc1 127.0.0.1 >/dev/null; kill -0 $! 2>/dev/null || break; done
         wait; grep -o 'ICMP echo request' /tmp/seen",
        "ICMP echo request",
    ),
    ("iptables -A INPUT -p tcp --dport 9 -j DROP && iptables -S INPUT | tail -n 1; iptables -F", "-A INPUT -p tcp -m tcp --dport 9 -j DROP"),
    ("nft add table inet own && nft list tables | grep own; nft delete table inet own", "table inet own"),
    ("mount -t tmpfs tmpfs /mnt && stat -fc %T /mnt && umount /mnt", "tmpfs"),
    (
        "cd /var/lib/docker && mkdir l u w && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay /mnt && stat -fc %T /mnt && umount /mnt; rm -r l u w",
        "overlayfs",
    ),
    ("bindfs /etc /mnt && stat -fc %T /mnt && cat /mnt/hostname && umount /mnt", "fuseblk\nweb"),
    ("ulimit -n $(ulimit -Hn) && test $(ulimit -n) = $(sed -n 's/Max open files *[0-9]* *\\([0-9]*\\).*/\\1/p' /proc/1/limits)", ""),
    ("dmesg 2>&1 | head -n 1", "dmesg: read kernel buffer failed: Operation not permitted"),
    (
        "su ann -c 'cd; XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user is-system-running --wait
             XDG_RUNTIME_DIR=/run/user/$(id -u) systemd-run --user --wait --pipe -q id -un'",
        "running\nann",
    ),
    (
        "systemd-run -q --wait --pipe -p DynamicUser=yes -p PrivateTmp=yes -p ProtectSystem=strict -p PrivateDevices=yes \
         -p PrivateNetwork=yes sh -c 'test $(id -u) -gt 60000 && ls -A /tmp && ! touch /usr/x 2>/dev/null && ! test -e /dev/fuse && ip -o link | wc -l'",
        "1",
    ),
    (
        "truncate -s 1M /root/image; systemd-run -q --wait -p RootImage=/root/image --unit rooted true 2>&1; systemctl show -p ExecMainStatus rooted; systemctl reset-failed",
        "ExecMainStatus=226",
    ),
    ("unshare --fork --pid --mount-proc --user --map-root-user sh -c 'echo $$ $(id -u)'", "1 0"),
];

/// Containers of programs that are no engines, in a system made of the VPS's own programs.
const SANDBOXES: Uses = &[
    (
        "su ann -c 'bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all readlink /proc/self'",
        "2",
    ),
    (
        "mkdir -p /root/tree/{usr,etc,proc,sys,dev,tmp,run,root,var} && cp /etc/os-release /root/tree/etc &&
         for dir in bin sbin lib lib64; do ln -s usr/$dir /root/tree/$dir; done",
        "",
    ),
    // A directory without a systemd of its own is one that wants cgroup v1, unless it is told otherwise.
    (
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn -q -M first -D /root/tree --bind-ro=/usr sh -c 'echo $$ $(id -u)' | tr -d '\\r'",
        "1 0",
    ),
    (
        "mount --bind /usr /root/tree/usr && systemd-nspawn -q -M second -D /root/tree sh -c 'echo $$ $(id -u)' | tr -d '\\r'; umount /root/tree/usr",
        "1 0",
    ),
    (
        "printf 'lxc.rootfs.path = dir:/root/tree\\nlxc.uts.name = tree\\nlxc.net.0.type = empty\\nlxc.mount.auto = proc:mixed sys:ro cgroup:mixed\\nlxc.mount.entry = /usr usr none bind,ro 0 0\\n' > /root/config &&
         lxc-execute -n tree -f /root/config -- hostname 2>/dev/null",
        "tree",
    ),
];

/// What programs size themselves by.
const SIZES: Uses = &[
    ("getconf _NPROCESSORS_ONLN; nproc", "1\n1"),
    (
        "python3 -c 'import os; print(os.cpu_count(), os.sysconf(\"SC_PHYS_PAGES\") >> 8)'",
        "1 1024",
    ),
    (
        "node -e 'console.log(os.cpus().length, os.totalmem() >> 20)'",
        "1 1024",
    ),
    ("df -m --output=size /run | tail -n 1 | tr -d ' '", "205"),
];

fn services_are_installed_and_used() -> Result<()> {
    let Some(packages) = std::env::var_os("CONDO_TEST_SERVICES").filter(|dir| Path::new(dir).is_dir()) else {
        harness::need("services");
        anyhow::bail!("unreachable");
    };
    let mut house = House::new()?;
    if !house.take_in_debian()? {
        harness::need("debian-image");
    }
    house.ok("create web --image debian-12 --memory 1G --cpus 1 --nesting --permit packet-rings --start")?;
    up(&house, "web")?;
    let packages = packages.to_str().context("a path")?;
    house.ok(&format!("cp {packages} web:/root/packages"))?;
    let asked = bash(
        &house,
        "sed -n 's/^nameserver //p' /etc/resolv.conf | tr '\\n' ' '",
    )?;
    install(&house)?;
    up(&house, "web")?;
    all(&house, FIRST)?;
    all(&house, SERVICES)?;
    mail(&house, "first")?;
    all(&house, PROGRAMS)?;
    all(&house, SANDBOXES)?;
    all(&house, SIZES)?;
    core_is_dumped(&house)?;
    let before = house.init("web")?;
    house.sh_last("web", "systemctl reboot")?;
    house.boots_again("web", before)?;
    up(&house, "web")?;
    all(&house, SERVICES)?;
    mail(&house, "second")?;
    // Whoever installs systemd-resolved asks for names where it was asked before.
    let global = bash(&house, "resolvectl dns | sed -n 's/^Global: *//p'")?;
    ensure!(global == asked, "resolved asks `{global}` and not `{asked}`");
    job_has_run(&house)?;
    // A power off in the order of the system's own shutdown.
    house.ok("stop web --timeout 60")?;
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "exited", "{exit}");
    house.leave()
}

/// As a tenant does it, postinst scripts and all; but dpkg does not wait for the disk after each file.
fn install(house: &House) -> Result<()> {
    let apt = "apt-get -qq -y --no-install-recommends -o APT::Sandbox::User=root -o Dpkg::Options::=--force-unsafe-io";
    let script = format!(
        "cd /root/packages && DEBIAN_FRONTEND=noninteractive {apt} install ./*.deb > /tmp/log 2>&1 || tail -n 30 /tmp/log; rm -r /root/packages"
    );
    let said = house.sh("web", &script)?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

fn all(house: &House, uses: Uses) -> Result<()> {
    for (script, expected) in uses {
        let said = bash(house, script)?;
        ensure!(said == *expected, "{script}: `{said}` and not `{expected}`");
    }
    Ok(())
}

fn bash(house: &House, script: &str) -> Result<String> {
    let mut command = house.command();
    let said = harness::run(command.args(["exec", "web", "--", "bash", "-c", script]))?;
    Ok(said.trim().to_owned())
}

fn mail(house: &House, word: &str) -> Result<()> {
    bash(house, &format!("echo {word} letter | mail -s hello ann"))?;
    eventually("the mail is there", || {
        let found = house.try_sh("web", &format!("grep -q '{word} letter' /var/mail/ann"))?;
        Ok(found.status.success())
    })
}

/// Into the directory of who crashed: the pattern is the host's, and names no program there.
fn core_is_dumped(house: &House) -> Result<()> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    if pattern.starts_with(['|', '/']) {
        return Ok(());
    }
    let script =
        "mkdir /root/crash; cd /root/crash; ulimit -c unlimited; sleep 60 & kill -SEGV $!; wait; ls | wc -l";
    let said = bash(house, script)?;
    ensure!(said == "1", "{said} core files");
    Ok(())
}

/// cron begins a job with each minute: by now one has passed, or is about to.
fn job_has_run(house: &House) -> Result<()> {
    let mut ran = false;
    for _ in 0..3 {
        let look = || Ok(house.try_sh("web", "test -s /home/ann/ran")?.status.success());
        ran = ran || eventually("the job has run", look).is_ok();
    }
    ensure!(ran, "cron runs nothing");
    Ok(())
}
