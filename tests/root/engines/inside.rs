//! Engines inside of a VPS on a host with cgroup v2, where its part of the tree is its own to divide: their containers have limits. The
//! VPS is the system of the machine that the test runs on, with a copy of its settings.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::image;
use crate::harness;
use crate::runtime::Container;
use crate::vps::house::eventually;

tests![engines_divide_their_part_of_cgroup_v2 in guest: 400];

/// Each what it does and prints, in the order in which they need each other.
const DOCKER: &[(&str, &str)] = &[
    ("docker load --quiet --input /srv/image.tar", "Loaded image: localhost/busybox:latest"),
    ("docker info --format '{{.Driver}} {{.CgroupVersion}}' 2>/dev/null", "overlay2 2"),
    (
        "docker run --rm --network none --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 localhost/busybox \
         sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max'",
        "67108864\n50000 100000\n50",
    ),
    // A limit that is met: 137 is death by SIGKILL.
    (
        "docker run --rm --network none --memory 32m --memory-swap 32m localhost/busybox \
         dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1; echo $?",
        "137",
    ),
    (
        "docker network create own >/dev/null && docker run --detach --name server --network own --publish 8080:80 localhost/busybox \
         sh -c 'mkdir /w && echo a page > /w/index.html && exec busybox httpd -f -h /w' >/dev/null &&
         docker run --rm --network own localhost/busybox sh -c 'until wget -qO- http://server/ 2>/dev/null; do sleep 0.2; done'",
        "a page",
    ),
    ("curl -s http://127.0.0.1:8080/", "a page"),
    (
        "mkdir /srv/context && cd /srv/context && printf 'FROM localhost/busybox\\nRUN echo built > /built\\nCMD cat /built\\n' > Dockerfile &&
         docker build --quiet --network none --tag localhost/built . >/dev/null && docker run --rm --network none localhost/built",
        "built",
    ),
    (
        "cd /srv/context && printf 'services:\\n  one:\\n    image: localhost/built\\n    mem_limit: 64m\\n' > compose.yaml &&
         docker-compose --file compose.yaml --project-name two run --rm one 2>/dev/null | tr -d '\\r'",
        "built",
    ),
    ("docker rm --force server >/dev/null; systemctl stop docker.socket docker", ""),
];

const PODMAN: &[(&str, &str)] = &[
    (
        "podman load --quiet --input /srv/image.tar | tail -n 1",
        "Loaded image: localhost/busybox:latest",
    ),
    (
        "podman run --rm --network none --memory 64m --pids-limit 50 localhost/busybox sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max'",
        "67108864\n50",
    ),
    // An ordinary user's, with user ids of the VPS's own, and limits by the user's part of the VPS's part.
    (
        "useradd --create-home ann && loginctl enable-linger ann && cd /home/ann &&
         runuser -u ann -- podman load --quiet --input /srv/image.tar 2>/dev/null | tail -n 1",
        "Loaded image: localhost/busybox:latest",
    ),
    (
        "cd /home/ann && export XDG_RUNTIME_DIR=/run/user/$(id -u ann) && export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus &&
         runuser -u ann -- podman run --rm --network none --memory 64m --pids-limit 50 localhost/busybox \
         sh -c 'id -u; grep -c . /proc/self/uid_map; cd /sys/fs/cgroup; cat memory.max pids.max'",
        "0\n2\n67108864\n50",
    ),
    (
        "su ann -c 'unshare --user --map-root-user --pid --fork --mount-proc sh -c \"echo \\$\\$ \\$(id -u)\"'",
        "1 0",
    ),
    ("ulimit -Hn", "1048576"),
];

/// Programs that take a directory for a system, here one with the VPS's own `/usr`.
const DIRECTORIES: &[(&str, &str)] = &[
    (
        "mkdir -p /srv/tree/{usr,etc,proc,sys,dev,tmp,run,root,var} && mount --bind /usr /srv/tree/usr &&
         for dir in bin sbin lib lib64; do ln -s usr/$dir /srv/tree/$dir; done",
        "",
    ),
    (
        "printf 'lxc.rootfs.path = dir:/srv/tree\\nlxc.uts.name = tree\\nlxc.net.0.type = empty\\nlxc.mount.auto = proc:mixed sys:ro cgroup:mixed\\n' > /srv/config &&
         printf 'lxc.cgroup2.memory.max = 64M\\nlxc.cgroup2.pids.max = 50\\nlxc.cgroup2.cpu.max = 50000 100000\\n' >> /srv/config &&
         lxc-execute --name tree --rcfile /srv/config -- sh -c 'hostname; cd /sys/fs/cgroup; cat memory.max pids.max cpu.max
             dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null; echo $?'",
        "tree\n67108864\n50\n50000 100000\n137",
    ),
    // The limits are those of the scope that machined made for it, above the cgroup that it sees as the root.
    (
        "systemd-nspawn --quiet --directory /srv/tree --property MemoryMax=64M --property TasksMax=50 --bind-ro /sys/fs/cgroup:/mnt \
         sh -c 'echo $$; cd /mnt/machine.slice/machine-tree.scope; cat memory.max pids.max
             dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null; echo $?' | tr -d '\\r'",
        "1\n67108864\n50\n137",
    ),
    // The machine has AppArmor, which is out of reach: a service goes without its profile.
    ("systemd-run --quiet --wait --property AppArmorProfile=own true; echo $?", "0"),
];

fn engines_divide_their_part_of_cgroup_v2() -> Result<()> {
    needs!(root, ours, cgroup2, userns, dockerd, podman);
    for program in ["lxc-execute", "systemd-nspawn"] {
        harness::need(program);
    }
    let mut vps = Container::new(&["/sbin/init"])?;
    furnish(&vps)?;
    vps.set("/annotations/io.condo.vps", json!("true"))?
        .set("/process/noNewPrivileges", json!(false))?
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "hard": 1_048_576, "soft": 1024}]),
        )?
        .push(
            "/mounts",
            json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}),
        )?;
    vps.up()?;
    for unit in ["containerd", "docker"] {
        let is_up = || Ok(vps.exec(&["@", "systemctl", "is-active", unit])?.out == "active\n");
        eventually(&format!("{unit} is up"), is_up).with_context(|| units(&vps))?;
    }
    // What systemd does last at a boot, it does to the cgroups that engines are to divide.
    vps.exec(&["@", "timeout", "60", "systemctl", "is-system-running", "--wait"])?;
    for (script, expected) in DOCKER.iter().chain(PODMAN).chain(DIRECTORIES) {
        let ran = vps.exec(&["@", "bash", "-c", script])?;
        ensure!(
            ran.out.trim() == *expected,
            "{script}: {ran:?} and not `{expected}`\n{}",
            units(&vps)
        );
    }
    vps.cleared()
}

/// Of the machine's services those that take the emulator long and that nobody asks for here.
const LEFT_OUT: [&str; 8] = [
    "apparmor.service",
    "lxc.service",
    "lxc-monitord.service",
    "lxc-net.service",
    "podman.service",
    "podman-restart.service",
    "podman-auto-update.timer",
    "systemd-update-utmp.service",
];

/// What a system has beside `/usr`.
fn furnish(vps: &Container) -> Result<()> {
    let root = vps.bundle.rootfs();
    std::fs::remove_dir_all(root.join("bin"))?;
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    std::fs::remove_dir_all(root.join("etc"))?;
    harness::run(Command::new("cp").arg("-a").arg("/etc").arg(&root))?;
    for unit in LEFT_OUT {
        let place = root.join("etc/systemd/system").join(unit);
        let _ = std::fs::remove_file(&place);
        symlink("/dev/null", place)?;
    }
    for dir in ["home", "srv", "var/lib/lxc", "var/log", "var/tmp"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    for dir in ["tmp", "var/tmp"] {
        std::fs::set_permissions(root.join(dir), Permissions::from_mode(0o1777))?;
    }
    image::busybox(&root.join("srv/image.tar"))
}

/// What systemd says of itself, and which controllers it gives to whom.
fn units(vps: &Container) -> String {
    let script = "systemctl --failed --no-legend; systemctl list-jobs; journalctl --no-pager --lines 80
        cd /sys/fs/cgroup && grep . cgroup.controllers cgroup.subtree_control */cgroup.subtree_control; dmesg | tail -n 5";
    vps.exec(&["@", "bash", "-c", script])
        .map_or_else(|e| e.to_string(), |ran| ran.out + &ran.err)
}
