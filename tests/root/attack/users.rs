//! Limits that the kernel counts per user: of the machine, one VPS has its own share and no more.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::harness;
use crate::vps::debian;
use crate::vps::house::{House, eventually};

tests![
    a_hundred_vpss_have_what_an_init_holds: 600,
    one_vps_uses_up_its_own_alone: 120,
    all_terminals_of_the_machine_are_more_than_a_vps_can_take,
    whoever_starts_it: 120,
    an_exec_is_the_same_whoever_calls,
    hard_limits_are_lifted_or_named,
];

/// As many inotify instances as systemd and its usual services hold.
const USUAL: u32 = 8;

/// A program that takes so many inotify instances, or as many as it gets, and holds them.
fn holder(instances: u32) -> Vec<u8> {
    harness::need(if cfg!(target_arch = "x86_64") {
        "root"
    } else {
        "x86_64"
    });
    let mut code = vec![0xbb];
    code.extend(instances.to_le_bytes());
    // again: inotify_init(); when it fails or all are there, pause() for ever.
    code.extend([
        0xb8, 253, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0, 0x78, 4, 0xff, 0xcb, 0x75, 0xf1,
    ]);
    code.extend([0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    elf(&code)
}

/// The smallest program file: a header, one segment, the code.
fn elf(code: &[u8]) -> Vec<u8> {
    let (base, header) = (0x40_0000_u64, 120_u64);
    let length = header + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    [2_u16, 62].iter().for_each(|n| file.extend(n.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    [base + header, 64, 0]
        .iter()
        .for_each(|n| file.extend(n.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    [64_u16, 56, 1, 0, 0, 0]
        .iter()
        .for_each(|n| file.extend(n.to_le_bytes()));
    // Loaded, readable and executable.
    [1_u32, 5].iter().for_each(|n| file.extend(n.to_le_bytes()));
    [0, base, base, length, length, 4096]
        .iter()
        .for_each(|n| file.extend(n.to_le_bytes()));
    file.extend(code);
    file
}

/// How many inotify instances a VPS's init holds.
fn held(house: &House, name: &str) -> Result<u32> {
    let mut count = 0;
    for fd in std::fs::read_dir(format!("/proc/{}/fd", house.init(name)?))? {
        let inotify = std::fs::read_link(fd?.path())?
            .to_string_lossy()
            .contains("inotify");
        count += u32::from(inotify);
    }
    Ok(count)
}

fn a_hundred_vpss_have_what_an_init_holds() -> Result<()> {
    let mut house = House::new()?;
    house.import_program("holder", &holder(USUAL))?;
    // Some are Debian, where there is an image of it.
    let systems = if house.take_in_debian()? { 4 } else { 0 };
    let many = harness::rounds(100) - systems;
    for n in 0..many {
        house.ok(&format!("create v{n} --image holder --memory 32M --start"))?;
    }
    for n in 0..systems {
        house.ok(&format!(
            "create debian{n} --image debian-12 --memory 256M --start"
        ))?;
    }
    for n in 0..systems {
        debian::up(&house, &format!("debian{n}"))?;
    }
    for n in 0..many {
        let name = format!("v{n}");
        eventually("it holds all", || Ok(held(&house, &name)? == USUAL))?;
    }
    every_processor_tells_of_some(&house, many + systems)?;
    house.leave()
}

/// Figures of many are those of each, in the order of the list.
fn every_processor_tells_of_some(house: &House, many: usize) -> Result<()> {
    let told = |command: &str| -> Result<Vec<serde_json::Value>> {
        let all: serde_json::Value = serde_json::from_str(&house.ok(command)?)?;
        Ok(all.as_array().context("no list")?.clone())
    };
    let (list, stats) = (told("list --json")?, told("stats --json")?);
    ensure!(stats.len() == many, "{} of {many}", stats.len());
    for (listed, of_it) in list.iter().zip(&stats) {
        let memory = of_it["memory"].as_u64().unwrap_or(0);
        ensure!(
            listed["name"] == of_it["name"] && of_it["status"] == "running" && memory > 0,
            "{of_it}"
        );
    }
    Ok(())
}

/// The attack: everything that is counted per user, by a root that takes all it can get.
fn one_vps_uses_up_its_own_alone() -> Result<()> {
    let mut house = House::new()?;
    house.import_program("thief", &holder(10_000))?;
    house.import_program("holder", &holder(USUAL))?;
    house.ok("create thief --image thief --start")?;
    house.ok("create bystander --image holder --start")?;
    house.running("web", "")?;
    let most = held(&house, "thief")?;
    ensure!((32..1000).contains(&most), "a VPS has {most}");
    ensure!(held(&house, "bystander")? == USUAL);
    // The host's root is another user as well.
    let own = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC);
    ensure!(own.is_ok(), "{own:?}");
    for (name, most) in [("net", 256), ("user", 1024), ("mnt", 1024), ("pid", 1024)] {
        let file = format!("/proc/sys/user/max_{name}_namespaces");
        let bound = house.sh(
            "thief",
            &format!("cat {file}; (echo 100000 > {file}) 2>/dev/null; cat {file}"),
        )?;
        ensure!(bound == format!("{most}\n{most}"), "{name}: {bound}");
    }
    // Whose account it is: the owner of the namespace, as the kernel tells it.
    let owner = owner_of_namespace(house.init("web")?)?;
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", house.init("web")?))?;
    ensure!(
        map.split_whitespace().nth(1) == Some(&owner.to_string()),
        "{owner}: {map}"
    );
    house.leave()
}

/// `NS_GET_OWNER_UID` of `ioctl_ns(2)`.
fn owner_of_namespace(pid: i32) -> Result<u32> {
    let script = format!(
        "open F, '<', '/proc/{pid}/ns/user' or die $!; my $u = pack 'L', 0; ioctl(F, 0xb704, $u) or die $!; print unpack 'L', $u"
    );
    harness::need("program:perl");
    Ok(harness::run(Command::new("perl").args(["-e", &script]))?
        .trim()
        .parse()?)
}

/// One VPS holds as many terminals as it may get: the others start, and get theirs.
/// The kernel has 4096 unless told otherwise, of which containers get 3072. Root in a VPS lifts the bound of its own mount.
fn all_terminals_of_the_machine_are_more_than_a_vps_can_take() -> Result<()> {
    const SOME: u32 = 4000;
    let house = House::new()?;
    std::fs::write("/proc/sys/kernel/pty/max", "4096")?;
    house.running("thief", "--memory 64M")?;
    house.sh(
        "thief",
        "mount -i -o remount,max=1000000,ptmxmode=666 devpts /dev/pts",
    )?;
    house.sh(
        "thief",
        "for n in 1 2 3 4 5; do (i=10; while [ $i -lt 1000 ]; do eval \"exec $i<>/dev/ptmx\" || break; i=$((i+1)); done; \
         sleep 600) >/dev/null 2>&1 & done",
    )?;
    eventually("it holds more than there were", || {
        Ok(house.sh("thief", "ls /dev/pts | wc -l")?.parse::<u32>()? > SOME)
    })?;
    house.running("web", "")?;
    let tty = house.ok("exec web -t -- tty")?;
    ensure!(tty.contains("/dev/pts/"), "{tty}");
    // What ends it is its own memory.
    let used = house.show("thief")?["memory_used"].as_u64().unwrap_or_default();
    ensure!(used > u64::from(SOME) * 4096, "{used}");
    house.leave()
}

/// All that a process has by inheritance, as `/proc` and busybox tell it.
fn nature(pid: i32) -> Result<Vec<String>> {
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| file.to_owned());
    let status = read("status")?;
    let fields = [
        "Umask",
        "SigBlk",
        "SigIgn",
        "Cpus_allowed_list",
        "THP_enabled",
        "CapInh",
        "CapAmb",
        "Groups",
        "NoNewPrivs",
    ];
    let mut all: Vec<String> = status
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(&format!("{field}:"))))
        .map(Into::into)
        .collect();
    let soft = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
    let whole = harness::has("resource");
    let limits = read("limits")?;
    all.extend(
        limits
            .lines()
            .skip(1)
            .map(|line| if whole { line.to_owned() } else { soft(line) }),
    );
    for file in ["oom_score_adj", "coredump_filter", "timerslack_ns", "personality"] {
        all.push(format!("{file} {}", read(file)?.trim()));
    }
    // Kernels without audit, without NUMA, and before 6.4 have not all of these.
    for file in ["loginuid", "sessionid", "ksm_stat"] {
        all.push(format!("{file} {}", read(file).unwrap_or_default().trim()));
    }
    let memory = read("numa_maps").unwrap_or_default();
    all.extend(
        memory
            .lines()
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .map(Into::into),
    );
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // Priority, nice value, real-time priority, policy (proc(5), from field 3 on).
    all.extend([15, 16, 37, 38].map(|at| format!("stat[{at}] {}", fields[at])));
    // What becomes of it when memory fails (PF_MCE_PROCESS: it has its own choice).
    let flags: u64 = fields[6].parse()?;
    all.push(format!("memory errors {:#x}", flags & 0x80));
    let io = harness::run(Command::new("ionice").args(["-p", &pid.to_string()]))?;
    all.push(io.trim().to_owned());
    Ok(all)
}

/// Calls of the kernel that have no program: no huge pages, equal memory shared, memory errors told early, memory of node 0, a login.
fn odder() -> String {
    let (prctl, set_mempolicy) = (libc::SYS_prctl, libc::SYS_set_mempolicy);
    format!(
        "syscall({prctl}, 41, 1, 0, 0, 0); syscall({prctl}, 67, 1, 0, 0, 0); syscall({prctl}, 33, 1, 1, 0, 0); \
         my $node = pack 'Q', 1; syscall({set_mempolicy}, 2, $node, 64); open F, '>', '/proc/self/loginuid' and syswrite F, '4242'; exec @ARGV"
    )
}

/// What a caller may have that a VPS must not have.
const ODD: &str = "umask 077; trap '' CHLD INT; ulimit -S -t 5 -f 100 -n 200 -c 1000 -s 1024; \
                   echo 300 > /proc/self/oom_score_adj; echo 0x7f > /proc/self/coredump_filter; echo 123456 > /proc/$$/timerslack_ns; \
                   exec nice -n 15 ionice -c 3 chrt -b 0 taskset -c 0 setarch -R perl -e \"$ODDER\" \"$@\"";

fn whoever_starts_it() -> Result<()> {
    needs!(program:taskset, program:ionice, program:chrt, program:setarch, program:perl);
    let house = House::quick()?;
    house.ok("create plain --image quick --start")?;
    house.ok("create odd --image quick")?;
    let condo = harness::condo();
    let mut start = Command::new("sh");
    start.args(["-c", ODD, "odd"]).arg(&condo).args(["start", "odd"]);
    harness::run(start.env("CONDO_ROOT", &house.root).env("ODDER", odder()))?;
    let (plain, odd) = (nature(house.init("plain")?)?, nature(house.init("odd")?)?);
    let differ: Vec<_> = plain.iter().zip(&odd).filter(|(a, b)| a != b).collect();
    ensure!(differ.is_empty(), "{differ:#?}");
    let environ = |name: &str| -> Result<BTreeSet<String>> {
        let text = std::fs::read_to_string(format!("/proc/{}/environ", house.init(name)?))?;
        Ok(text
            .split('\0')
            .filter(|v| !v.starts_with("container_uuid"))
            .map(Into::into)
            .collect())
    };
    ensure!(environ("plain")? == environ("odd")?);
    // With the exit status of whom it waits for.
    house.ok("stop odd --timeout 10")?;
    ensure!(
        house.show("odd")?["last_exit"]["status"] == 0,
        "{}",
        house.show("odd")?
    );
    house.leave()
}

fn an_exec_is_the_same_whoever_calls() -> Result<()> {
    needs!(program:taskset, program:ionice, program:chrt, program:setarch, program:perl);
    let house = House::quick()?;
    house.ok("create web --image quick --start")?;
    let look = "exec busybox cat /proc/self/limits /proc/self/oom_score_adj /proc/self/personality /proc/self/coredump_filter; \
                exec busybox cat /proc/self/timerslack_ns /proc/self/loginuid /proc/self/ksm_stat";
    let look = format!(
        "umask; busybox grep -E 'Cpus_allowed_list|SigIgn|SigBlk' /proc/self/status; busybox nice; {look}"
    );
    let condo = harness::condo();
    let mut plain = house.command();
    let plain = harness::run(plain.args(["exec", "web", "--", "sh", "-c", &look]))?;
    let mut odd = Command::new("sh");
    odd.args(["-c", ODD, "odd"])
        .arg(&condo)
        .args(["exec", "web", "--", "sh", "-c", &look]);
    let odd = harness::run(odd.env("CONDO_ROOT", &house.root).env("ODDER", odder()))?;
    ensure!(plain == odd, "{plain}\n{odd}");
    house.leave()
}

/// What only `CAP_SYS_RESOURCE` could change back stays, and is told.
fn hard_limits_are_lifted_or_named() -> Result<()> {
    let house = House::quick()?;
    house.ok("create web --image quick")?;
    let script = "ulimit -t 50 -f 100000 -n 200; exec \"$@\"";
    let mut start = Command::new("sh");
    start
        .args(["-c", script, "limited"])
        .arg(harness::condo())
        .args(["start", "web"]);
    let output = start.env("CONDO_ROOT", &house.root).output()?;
    ensure!(output.status.success(), "{output:?}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", house.init("web")?))?;
    let lifted = limits
        .lines()
        .any(|line| line.starts_with("Max cpu time") && line.contains("unlimited"));
    let named = crate::vps::house::said(&output).contains("limit `cpu`, limit `fsize`, limit `nofile`");
    ensure!(lifted != named, "{limits}{output:?}");
    // What nobody can take back is named as well.
    house.ok("stop web --timeout 10")?;
    let mut start = Command::new("setpriv");
    start
        .arg("--no-new-privs")
        .arg(harness::condo())
        .args(["start", "web"]);
    let output = start.env("CONDO_ROOT", &house.root).output()?;
    let named = crate::vps::house::said(&output).contains("no new privileges");
    ensure!(output.status.success() && named, "{output:?}");
    // A program that is run by a caller with limits runs all the same.
    let mut exec = Command::new("sh");
    exec.args(["-c", script, "limited"])
        .arg(harness::condo())
        .args(["exec", "web", "--", "busybox", "echo", "in"]);
    ensure!(harness::run(exec.env("CONDO_ROOT", &house.root))? == "in\n");
    house.leave()
}
