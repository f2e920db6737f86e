//! A VPS moved to another host: another instance in another network namespace, over a real sshd.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::debian;
use super::house::{House, eventually};
use crate::harness;
use crate::harness::trace::{self, Victim};

tests![
    a_vps_moves_while_it_serves: 300,
    a_debian_moves_while_it_serves: 300,
    a_move_that_is_cut_leaves_one_vps: 600,
    a_move_whose_other_end_is_killed_leaves_one_vps: 300,
    a_move_that_fails_when_it_is_repeated_leaves_it_running: 120,
    whoever_knows_where_a_vps_is_says_so: 120,
];

/// The other host: a network namespace, kept by a process in it, an instance of condo, and sshd.
struct Other {
    root: PathBuf,
    keeper: Child,
    sshd: Child,
    key: PathBuf,
}

const HERE: &str = "192.168.219.1";
const THERE: &str = "192.168.219.2";
const PORT: u16 = 2222;

/// Connects this namespace with the one of a process.
fn connect(pid: &str) -> Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    eventually("the namespace is there", || {
        Ok(std::fs::read_link(format!("/proc/{pid}/ns/net"))? != own)
    })?;
    let ip = |line: &str| harness::run(Command::new("ip").args(line.split_whitespace()));
    let enter = ["-t", pid, "-n", "ip"];
    let inside = |line: &str| harness::run(Command::new("nsenter").args(enter).args(line.split_whitespace()));
    ip("link add here type veth peer name there")?;
    ip(&format!("link set there netns {pid}"))?;
    ip(&format!("addr add {HERE}/24 dev here"))?;
    ip("link set here up")?;
    inside("link set lo up")?;
    inside(&format!("addr add {THERE}/24 dev there"))?;
    inside("link set there up").map(drop)
}

/// An sshd in the namespace of a process, and the key that it lets in.
fn sshd(pid: &str) -> Result<(PathBuf, Child)> {
    let dir = harness::tempdir();
    let key = dir.join("key");
    for name in [&key, &dir.join("hostkey")] {
        let mut make = Command::new("ssh-keygen");
        harness::run(make.args(["-q", "-N", "", "-t", "ed25519", "-f"]).arg(name))?;
    }
    let dir = dir.display();
    let config = format!("{dir}/sshd_config");
    std::fs::write(
        &config,
        format!(
            "Port {PORT}\nListenAddress {THERE}\nHostKey {dir}/hostkey\nAuthorizedKeysFile {dir}/key.pub\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPidFile none\n"
        ),
    )?;
    // Where it takes its privileges apart; its package makes it at boot.
    std::fs::create_dir_all("/run/sshd")?;
    let sshd = Command::new("nsenter")
        .args(["-t", pid, "-n", "/usr/sbin/sshd", "-D", "-f", &config])
        .stderr(Stdio::null())
        .spawn()?;
    Ok((key, sshd))
}

impl Other {
    fn new() -> Result<Self> {
        needs!(program:sshd, program:ip, program:unshare, program:nsenter);
        let mut keeper = Command::new("unshare").args(["-n", "sleep", "10000"]).spawn()?;
        let pid = keeper.id().to_string();
        match connect(&pid).and_then(|()| sshd(&pid)) {
            Ok((key, sshd)) => Ok(Self {
                root: harness::tempdir().join("other"),
                keeper,
                sshd,
                key,
            }),
            Err(e) => {
                let _ = keeper.kill();
                let _ = keeper.wait();
                Err(e)
            }
        }
    }

    /// What is run there.
    fn remote(&self) -> String {
        format!("{} --root {}", harness::condo().display(), self.root.display())
    }

    fn options(&self, remote: String) -> Vec<String> {
        let ssh = format!(
            "ssh -F none -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR",
            self.key.display()
        );
        vec![
            "--ssh".into(),
            ssh,
            "--remote".into(),
            remote,
            format!("ssh://root@{THERE}:{PORT}"),
        ]
    }

    /// `condo migrate` on this side.
    fn migrate(&self, house: &House, name: &str) -> Command {
        self.migrate_by(house, name, self.remote())
    }

    /// The same with another command there.
    fn migrate_by(&self, house: &House, name: &str, remote: String) -> Command {
        let mut command = Command::new(harness::condo());
        command
            .arg("--root")
            .arg(&house.root)
            .args(["migrate", name, "--timeout", "5"])
            .args(self.options(remote));
        command.stdin(Stdio::null());
        command
    }

    /// A command in the other namespace.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.keeper.id().to_string(), "-n", program])
            .stdin(Stdio::null());
        command
    }

    fn condo(&self, line: &str) -> Result<Output> {
        let mut command = self.inside(&harness::condo().display().to_string());
        Ok(command
            .arg("--root")
            .arg(&self.root)
            .args(line.split_whitespace())
            .output()?)
    }

    fn list(&self) -> Result<Vec<Value>> {
        let output = self.condo("list --json")?;
        ensure!(output.status.success(), "{output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Whether an address serves the page there.
    fn serves(&self, address: &str) -> Result<bool> {
        let ask = format!(
            "exec 3<>/dev/tcp/{address}/80 && printf 'GET /page HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q 'the page' <&3"
        );
        let mut bash = self.inside("bash");
        Ok(bash.args(["-c", &ask]).stderr(Stdio::null()).status()?.success())
    }

    fn sshd_listens(&self) -> Result<()> {
        eventually("sshd listens", || Ok(TcpStream::connect((THERE, PORT)).is_ok()))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.condo("delete --force --all");
        for child in [&mut self.sshd, &mut self.keeper] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// An image whose init serves what is in `/srv` by HTTP, at once.
fn serving() -> Result<House> {
    let mut house = House::new()?;
    let script = "busybox mkdir -p /srv; busybox httpd -p 80 -h /srv; trap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done";
    house.import("server", script)?;
    Ok(house)
}

/// Writes the page. Its init may be about to make the directory.
const WRITE: &str = "busybox mkdir -p /srv && echo the page > /srv/page && busybox sync";

/// Whether an address serves the page.
fn serves(address: &str) -> bool {
    let ask = || -> Result<bool> {
        let to = format!("{address}:80").parse()?;
        let mut line = TcpStream::connect_timeout(&to, Duration::from_millis(200))?;
        line.set_read_timeout(Some(Duration::from_millis(500)))?;
        line.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        line.read_to_string(&mut page)?;
        Ok(page.contains("the page"))
    };
    ask().unwrap_or(false)
}

/// Moves it while a client asks for the page all the time; what was said, and how long the client had none.
fn moved(house: &House, other: &Other, address: &str) -> Result<(Output, Duration)> {
    let over = AtomicBool::new(false);
    let (moved, there, gap) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut last = Instant::now();
            while !over.load(Relaxed) {
                if serves(address) {
                    last = Instant::now();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            last
        });
        let moved = other.migrate(house, "web").output();
        let there = eventually("it serves there", || other.serves(address));
        let first = Instant::now();
        over.store(true, Relaxed);
        (moved, there, client.join().map(|last| first.duration_since(last)))
    });
    let moved = moved?;
    ensure!(moved.status.success(), "{moved:?}");
    there?;
    match gap {
        Ok(gap) => Ok((moved, gap)),
        Err(_) => bail!("the client died"),
    }
}

fn a_vps_moves_while_it_serves() -> Result<()> {
    let house = serving()?;
    let other = Other::new()?;
    other.sshd_listens()?;
    house.ok("create web --image server --memory 64M --start")?;
    let fill = format!(
        "{WRITE} && busybox dd if=/dev/urandom of=/srv/big bs=1M count=16 2>/dev/null && busybox sync"
    );
    house.sh("web", &fill)?;
    let address = house.address("web")?;
    eventually("it serves", || Ok(serves(&address)))?;
    let (moved, gap) = moved(&house, &other, &address)?;
    let said = String::from_utf8_lossy(&moved.stdout).into_owned();
    eprintln!("{}; a client saw a gap of {gap:.2?}", said.trim());
    ensure!(
        said.contains("is on ssh://") && said.contains("stopped for"),
        "{said}"
    );
    let list = other.list()?;
    ensure!(
        list.len() == 1 && list[0]["status"] == "running" && list[0]["address"] == *address,
        "{list:?}"
    );
    ensure!(list[0]["limits"]["memory"] == 64 << 20);
    ensure!(house.list()?.is_empty(), "it is still here");
    let sizes = other.condo("exec web -- busybox stat -c %s /srv/big")?;
    ensure!(
        String::from_utf8_lossy(&sizes.stdout).trim() == (16 << 20).to_string(),
        "{sizes:?}"
    );
    drop(other);
    house.leave()
}

/// A web server of perl, which every Debian has, as a service of systemd.
const SERVICE: &str = "cat >/usr/local/sbin/web <<'END'
#!/usr/bin/perl
use IO::Socket::INET;
$all = IO::Socket::INET->new(LocalPort => 80, Listen => 16, ReuseAddr => 1) or die;
while ($one = $all->accept) { <$one>; print $one \"HTTP/1.0 200 OK\\r\\n\\r\\nthe page\\n\"; close $one }
END
chmod 755 /usr/local/sbin/web
printf '[Service]\nExecStart=/usr/local/sbin/web\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/web.service
systemctl enable --quiet --now web.service";

fn a_debian_moves_while_it_serves() -> Result<()> {
    let image = debian::image()?;
    let mut house = House::new()?;
    let other = Other::new()?;
    other.sshd_listens()?;
    other.list()?;
    debian::settle(&image, &house.root)?;
    debian::settle(&image, &other.root)?;
    house.settle_in();
    house.ok("create web --image debian-12 --memory 256M --disk 512M --start")?;
    debian::up(&house, "web")?;
    house.sh("web", SERVICE)?;
    let address = house.address("web")?;
    eventually("it serves", || Ok(serves(&address)))?;
    let key = house.sh("web", debian::HOST_KEY)?;
    let (moved, gap) = moved(&house, &other, &address)?;
    let said = String::from_utf8_lossy(&moved.stdout).into_owned();
    eprintln!("{}; a client saw a gap of {gap:.2?}", said.trim());
    ensure!(house.list()?.is_empty(), "it is still here");
    let seen = other.condo(&format!("exec web -- {}", debian::HOST_KEY))?;
    ensure!(
        String::from_utf8_lossy(&seen.stdout).trim() == key,
        "it is another machine: {seen:?}"
    );
    drop(other);
    house.leave()
}

/// How many hosts have a VPS that may start, and how many run it.
fn owners(house: &House, other: &Other) -> Result<(Vec<String>, usize)> {
    let here = house.list()?;
    let there = other.list()?;
    let running = here
        .iter()
        .chain(&there)
        .filter(|vps| vps["status"] == "running")
        .count();
    let may_start = |output: Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success() || said.contains("is running already")
    };
    let mut owners = Vec::new();
    if !here.is_empty() && may_start(house.output("start web")?) {
        owners.push("here".to_owned());
    }
    if !there.is_empty() && may_start(other.condo("start web")?) {
        owners.push("there".to_owned());
    }
    Ok((owners, running))
}

/// The same command again, until it has moved.
fn moves_at_last(house: &House, other: &Other) -> Result<()> {
    let mut last = None;
    eventually("it moves at last", || {
        let again = other.migrate(house, "web").output()?;
        let moved = again.status.success() || house.list()?.is_empty();
        last = Some(again);
        Ok(moved)
    })
    .with_context(|| format!("{last:?}"))
}

const PARTS: usize = 12;

/// The command is killed after system calls spread over it; at no time two hosts run the VPS, and run again it is moved.
fn a_move_that_is_cut_leaves_one_vps() -> Result<()> {
    let house = serving()?;
    let other = Other::new()?;
    other.sshd_listens()?;
    let fresh = || -> Result<()> {
        house.ok("create web --image server --start")?;
        house.sh("web", WRITE).map(drop)
    };
    fresh()?;
    let all = trace::kill_after(&other.migrate(&house, "web"), Victim::Program, usize::MAX)?;
    ensure!(all.success, "it does not move");
    for part in 1..PARTS {
        ensure!(other.condo("delete --force --all")?.status.success());
        house.ok("delete --force --all")?;
        fresh()?;
        trace::kill_after(
            &other.migrate(&house, "web"),
            Victim::Program,
            all.calls * part / PARTS,
        )?;
        // ssh, and with it the other end, has no more to read.
        std::thread::sleep(Duration::from_millis(300));
        let (owners, running) = owners(&house, &other)?;
        ensure!(
            owners.len() <= 1 && running <= 1,
            "part {part}: {owners:?}, {running} running"
        );
        moves_at_last(&house, &other).with_context(|| format!("part {part}"))?;
        let list = other.list()?;
        ensure!(
            list.len() == 1 && house.list()?.is_empty(),
            "part {part}: {list:?}, {:?}",
            house.list()?
        );
        let page = other.condo("exec web -- busybox cat /srv/page")?;
        ensure!(page.stdout == b"the page\n", "part {part}: {page:?}");
    }
    drop(other);
    house.leave()
}

/// The other end is killed at times spread over the move, alone and together with this one.
fn a_move_whose_other_end_is_killed_leaves_one_vps() -> Result<()> {
    let house = serving()?;
    let other = Other::new()?;
    other.sshd_listens()?;
    let fresh = || -> Result<()> {
        ensure!(other.condo("delete --force --all")?.status.success());
        house.ok("delete --force --all")?;
        house.ok("create web --image server --start")?;
        house.sh("web", WRITE).map(drop)
    };
    fresh()?;
    let begin = Instant::now();
    ensure!(other.migrate(&house, "web").output()?.status.success());
    let took = begin.elapsed();
    fresh()?;
    let all = trace::count(&other.migrate(&house, "web"))?;
    for (part, both) in [(3, false), (5, false), (7, false), (6, true)] {
        fresh()?;
        let after = (took * part / 8).as_secs_f64();
        let remote = format!("timeout -s KILL {after:.3} {}", other.remote());
        let mut command = other.migrate_by(&house, "web", remote);
        let cut = match both {
            true => trace::kill_after(&command, Victim::Program, all.calls * part as usize / 8).map(drop),
            false => command.output().map(drop).map_err(Into::into),
        };
        cut?;
        std::thread::sleep(Duration::from_millis(300));
        let (owners, running) = owners(&house, &other)?;
        ensure!(
            owners.len() <= 1 && running <= 1,
            "part {part}: {owners:?}, {running} running"
        );
        moves_at_last(&house, &other).with_context(|| format!("part {part}"))?;
        let list = other.list()?;
        ensure!(
            list.len() == 1 && house.list()?.is_empty(),
            "part {part}: {list:?}"
        );
        let page = other.condo("exec web -- busybox cat /srv/page")?;
        ensure!(page.stdout == b"the page\n", "part {part}: {page:?}");
    }
    drop(other);
    house.leave()
}

/// Moves it, and the line is cut between the other end's record of that and its answer.
fn unclear(house: &House, other: &Other) -> Result<()> {
    let dir = harness::tempdir();
    let (script, answers) = (dir.join("cut"), dir.join("answers"));
    let record = other.root.join("lib/vps/web/record.json");
    let text = format!(
        "exec 3<&0; mkfifo {answers}; cat {answers} & reader=$!; {} \"$@\" <&3 >{answers} & \
         until grep -q '\"arrived\": *\"' {} 2>/dev/null; do :; done; kill -9 $reader; wait; rm {answers}",
        other.remote(),
        record.display(),
        answers = answers.display()
    );
    std::fs::write(&script, text)?;
    for _ in 0..5 {
        house.ok("create web --image server --start")?;
        let moved = other
            .migrate_by(house, "web", format!("sh {}", script.display()))
            .output()?;
        let said = String::from_utf8_lossy(&moved.stderr).into_owned();
        if !moved.status.success() {
            ensure!(said.contains("condo migrate web --here"), "{said}");
            return house.refused("start web", "--there").map(drop);
        }
        // The answer was quicker than the cut.
        ensure!(other.condo("delete --force web")?.status.success());
    }
    bail!("it always arrives")
}

/// Only the record of the first attempt tells that it ran: the VPS is stopped when the second begins.
fn a_move_that_fails_when_it_is_repeated_leaves_it_running() -> Result<()> {
    let house = serving()?;
    let other = Other::new()?;
    other.sshd_listens()?;
    unclear(&house, &other)?;
    ensure!(other.condo("delete --force web")?.status.success());
    ensure!(house.status("web")? == "stopped");
    // Its first answer comes, which is that nothing of the VPS is there.
    let script = harness::tempdir().join("short");
    let none = "\0\0\0\u{11}{\"answer\":\"none\"}".len();
    let text = format!("{} \"$@\" | head -c {none}", other.remote());
    std::fs::write(&script, text)?;
    let again = other
        .migrate_by(&house, "web", format!("sh {}", script.display()))
        .output()?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(
        !again.status.success() && said.contains("the other host does not answer"),
        "{said}"
    );
    ensure!(house.status("web")? == "running");
    ensure!(other.migrate(&house, "web").output()?.status.success());
    ensure!(other.list()?[0]["status"] == "running");
    drop(other);
    house.leave()
}

fn whoever_knows_where_a_vps_is_says_so() -> Result<()> {
    let house = serving()?;
    let other = Other::new()?;
    other.sshd_listens()?;
    unclear(&house, &other)?;
    house.refused("delete web", "--there")?;
    house.ok("migrate web --there")?;
    ensure!(house.list()?.is_empty());
    let list = other.list()?;
    ensure!(list.len() == 1, "{list:?}");
    let started = other.condo("start web")?;
    eventually("it runs there", || Ok(other.list()?[0]["status"] == "running"))
        .with_context(|| format!("{started:?}, {:?}", other.list()))?;
    ensure!(other.condo("delete --force web")?.status.success());

    unclear(&house, &other)?;
    // The other host is lost.
    ensure!(other.condo("delete --force web")?.status.success());
    ensure!(house.ok("migrate web --here")?.contains("runs"));
    ensure!(house.status("web")? == "running");
    house.refused("migrate web --here", "it is here")?;
    house.refused("migrate web --there", "it is here")?;
    house.refused("migrate web --here --there", "cannot be used with")?;
    house.refused("migrate web ssh://b --here", "cannot be used with")?;
    ensure!(other.migrate(&house, "web").output()?.status.success());
    drop(other);
    house.leave()
}
