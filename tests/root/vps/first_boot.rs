//! What a system is given once, at its first start, and the ways in that it opens.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually, finish, said};
use crate::harness;
use crate::image::Tar;

tests![
    the_owner_comes_in_by_key_and_by_password: 120,
    a_first_boot_is_given_what_was_asked_for,
    what_no_first_boot_can_have_is_refused,
    a_vps_is_rebuilt: 120,
    what_a_killed_rebuild_decided_comes_first,
    a_vps_is_rescued: 120,
    a_vps_is_renamed,
];

/// Options of ssh.
pub(super) const BY_PASSWORD: [&str; 4] = [
    "-o",
    "PubkeyAuthentication=no",
    "-o",
    "PreferredAuthentications=password",
];
pub(super) const PASSWORD: &str = "correct horse battery staple";

/// A system with dropbear, a resolv.conf that is systemd-resolved's link, and a key that its maker put in.
fn import_ssh(house: &mut House) -> Result<()> {
    let mut tar = Tar::new().dir("./", 0o755);
    for dir in [
        "bin",
        "dev",
        "etc",
        "etc/dropbear",
        "proc",
        "root",
        "root/.ssh",
        "run",
        "sbin",
        "sys",
        "tmp",
        "usr/share/zoneinfo/Europe",
    ] {
        tar = tar.dir(&format!("{dir}/"), 0o755);
    }
    let init = "#!/bin/sh\ntrap 'exit 0' TERM\n/usr/sbin/dropbear -F -E -R &\nwhile :; do busybox sleep 60 & wait $!; done\n";
    tar = tar
        .file("bin/busybox", 0o755, &fs::read("/bin/busybox")?)
        .entry(b'2', "bin/sh", "busybox", b"")
        .entry(
            b'2',
            "etc/resolv.conf",
            "../run/systemd/resolve/stub-resolv.conf",
            b"",
        )
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/shadow", 0o640, b"root:*:19000:0:99999:7:::\n")
        .file("etc/shells", 0o644, b"/bin/sh\n")
        .file("etc/dropbear/dropbear_ed25519_host_key", 0o600, b"the image's")
        .file("root/.ssh/authorized_keys", 0o644, b"# the maker's\n")
        .file("usr/share/zoneinfo/Europe/Berlin", 0o644, b"zone")
        .file("sbin/init", 0o755, init.as_bytes());
    let dropbear = harness::with_libraries(&["/usr/sbin/dropbear", "/usr/bin/dropbearkey"])?;
    let tar = tar.executables(&dropbear);
    let archive = harness::tempdir().join("ssh.tar");
    fs::write(&archive, tar.end())?;
    house.ok(&format!(
        "image import {} --name ssh --init /sbin/init --stop-signal TERM",
        archive.display()
    ))?;
    house.settle_in();
    Ok(())
}

pub(super) fn key(name: &str) -> Result<PathBuf> {
    let path = harness::tempdir().join(name);
    harness::run(
        Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-t", "ed25519", "-f"])
            .arg(&path),
    )?;
    Ok(path)
}

/// Logs in with these options and says who is there.
pub(super) fn ssh(house: &House, name: &str, options: &[&str]) -> Result<Output> {
    let dir = harness::tempdir();
    let ask = dir.join("ask");
    fs::write(&ask, format!("#!/bin/sh\necho '{PASSWORD}'\n"))?;
    fs::set_permissions(&ask, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let mut command = Command::new("ssh");
    command
        .env("SSH_ASKPASS", &ask)
        .env("SSH_ASKPASS_REQUIRE", "force");
    for option in [
        "StrictHostKeyChecking=accept-new",
        "ConnectTimeout=10",
        "IdentitiesOnly=yes",
    ] {
        command.args(["-o", option]);
    }
    command.arg("-o").arg(format!(
        "UserKnownHostsFile={}",
        dir.join(format!("hosts-{name}")).display()
    ));
    command.args(["-F", "/dev/null"]).args(options);
    command
        .arg(format!("root@{}", house.address(name)?))
        .arg("read -r name < /etc/hostname; echo \"inside of $name\"");
    Ok(command.stdin(Stdio::null()).output()?)
}

pub(super) fn comes_in(house: &House, name: &str, options: &[&str]) -> Result<()> {
    let mut last = String::new();
    eventually("ssh lets the owner in", || {
        let output = ssh(house, name, options)?;
        last = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
        Ok(output.stdout == format!("inside of {name}\n").as_bytes())
    })
    .with_context(|| last.clone())
}

pub(super) fn fed(house: &House, line: &str, input: &str) -> Result<Output> {
    let mut command = house.command();
    command
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    finish(child)
}

/// Whether a text is anywhere in what lasts of VPSs outside of their disks.
fn is_kept(house: &House, text: &str) -> Result<bool> {
    let mut command = Command::new("grep");
    command.args(["-raqF", "--exclude-dir=disk", "-e", text]);
    command.args(["lib/vps", "lib/condo.db", "run"].map(|place| house.root.join(place)));
    Ok(command.status()?.success())
}

fn the_owner_comes_in_by_key_and_by_password() -> Result<()> {
    let mut house = House::new()?;
    needs!(program:ssh, program:dropbear);
    import_ssh(&mut house)?;
    let (mine, other) = (key("mine")?, key("other")?);
    house.ok(&format!(
        "create keyed --image ssh --ssh-key {}.pub --ssh-key {}.pub --start",
        mine.display(),
        other.display()
    ))?;
    let by_key = |key: &Path| format!("{}", key.display());
    comes_in(&house, "keyed", &["-i", &by_key(&mine)])?;
    comes_in(&house, "keyed", &["-i", &by_key(&other)])?;
    ensure!(
        !ssh(&house, "keyed", &BY_PASSWORD)?.status.success(),
        "a password lets in that nobody gave"
    );
    let seen = house.sh("keyed", "busybox stat -c %a /root/.ssh /root/.ssh/authorized_keys; busybox head -n1 /root/.ssh/authorized_keys; test ! -L /etc/resolv.conf && busybox grep -c nameserver /etc/resolv.conf")?;
    ensure!(seen.starts_with("700\n600\n# the maker's\n"), "{seen}");
    // By password; neither it nor its hash stays outside.
    let made = fed(
        &house,
        "create walled --image ssh --password-stdin",
        &format!("{PASSWORD}\n"),
    )?;
    ensure!(made.status.success(), "{}", said(&made));
    ensure!(is_kept(&house, "$6$")? && !is_kept(&house, PASSWORD)?);
    house.ok("start walled")?;
    comes_in(&house, "walled", &BY_PASSWORD)?;
    ensure!(!is_kept(&house, "$6$")?, "the hash is kept outside of the disk");
    let shadow = house.sh(
        "walled",
        "busybox stat -c '%a %u' /etc/shadow; busybox cat /etc/shadow",
    )?;
    ensure!(shadow.starts_with("640 0\nroot:$6$"), "{shadow}");
    house.leave()
}

fn a_first_boot_is_given_what_was_asked_for() -> Result<()> {
    let mut house = House::new()?;
    let script = harness::tempdir().join("script");
    fs::write(
        &script,
        "#!/bin/sh\necho \"here I am, $HOME\"\nmkdir /made && date > /made/at\nhostname > /made/name\nexit 3\n",
    )?;
    house.ok(&format!(
        "create web --image busybox --timezone Europe/Berlin --user-data {} --start",
        script.display()
    ))?;
    house.up("web")?;
    let log = house.ok("logs web")?;
    ensure!(
        log.contains("here I am, /root") && log.contains("failed with status 3"),
        "{log}"
    );
    let seen = house.sh(
        "web",
        "cat /made/name /etc/timezone; test -s /etc/localtime; ls -A /var/lib/condo 2>&1; date +%Z",
    )?;
    ensure!(
        seen.starts_with("web\nEurope/Berlin\n") && seen.contains("No such file") && seen.contains("CE"),
        "{seen}"
    );
    // Once.
    house.sh("web", "rm -r /made")?;
    house.ok("restart web")?;
    house.up("web")?;
    ensure!(house.sh("web", "test ! -e /made; cat /proc/1/comm")? == "init");
    // Where there is cloud-init, it is given the same, and what it needs besides.
    house.import_files(
        "cloud",
        &[
            (
                "sbin/init".into(),
                b"#!/bin/sh\nwhile :; do busybox sleep 60; done\n".to_vec(),
            ),
            ("usr/bin/cloud-init".into(), b"#!/bin/sh\n".to_vec()),
        ],
        "--stop-signal KILL",
    )?;
    let data = harness::tempdir().join("data");
    fs::write(&data, "#cloud-config\npackages: [nginx]\n")?;
    house.ok(&format!(
        "create cloud --image cloud --hostname shop.example --user-data {} --start",
        data.display()
    ))?;
    let seen = house.sh(
        "cloud",
        "cd /var/lib/cloud/seed/nocloud; busybox cat user-data meta-data; busybox stat -c %a . user-data",
    )?;
    ensure!(
        seen.starts_with("#cloud-config\npackages: [nginx]\ninstance-id: ")
            && seen.ends_with("local-hostname: shop.example\n700\n600"),
        "{seen}"
    );
    house.leave()
}

fn what_no_first_boot_can_have_is_refused() -> Result<()> {
    let house = House::new()?;
    let dir = harness::tempdir();
    let file = |name: &str, text: &str| -> Result<String> {
        fs::write(dir.join(name), text)?;
        Ok(dir.join(name).display().to_string())
    };
    let config = file("config", "#cloud-config\n")?;
    let private = file(
        "private",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n",
    )?;
    let words = file("words", "hello world\n")?;
    for (options, needle) in [
        (format!("--user-data {config}"), "cloud-init"),
        (format!("--ssh-key {private}"), ".pub"),
        (format!("--ssh-key {words}"), "no public key"),
        ("--ssh-key /none".into(), "/none"),
        ("--timezone Europe/Nowhere".into(), "Europe/Nowhere"),
        ("--timezone ../../etc/shadow".into(), "AREA/CITY"),
        ("--password-stdin".into(), "is empty"),
        ("--password-stdin --ssh-key -".into(), "standard input"),
    ] {
        house.refused(&format!("create web --image busybox {options}"), needle)?;
    }
    ensure!(house.list()?.is_empty());
    house.leave()
}

/// Whatever works with the disk first carries out what was decided about it.
fn what_a_killed_rebuild_decided_comes_first() -> Result<()> {
    let mut house = House::quick()?;
    house.import("other", "while :; do busybox sleep 60; done")?;
    house.ok("create web --image quick")?;
    house.ok("snapshot create web old")?;
    let own = |vps: &str, path: &str| house.root.join("lib/vps").join(vps).join(path);
    let out = harness::tempdir();
    let (archive, copied) = (out.join("web.condo"), out.join("copied"));
    fs::write(&copied, "copied")?;
    let lines = [
        ("snapshot create web new".to_owned(), "web"),
        ("snapshot diff web old".to_owned(), "web"),
        ("clone web copy".to_owned(), "copy"),
        (format!("export web -o {}", archive.display()), "web"),
        (format!("cp {} web:/root", copied.display()), "web"),
        ("resize web --pids 99".to_owned(), "web"),
        ("rename web renamed".to_owned(), "renamed"),
    ];
    for (line, vps) in lines {
        house.ok("rebuild web --image quick")?;
        house.ok(&format!("cp {} web:/mine", copied.display()))?;
        ensure!(own("web", "disk/upper/mine").exists());
        fs::write(own("web", "rebuild.json"), r#"{"image":"other"}"#)?;
        house.ok(&line)?;
        for vps in ["web", vps] {
            ensure!(
                !own(vps, "rebuild.json").exists(),
                "`{line}` has not carried it out"
            );
            ensure!(!own(vps, "disk/upper/mine").exists(), "`{line}`: the old system");
        }
        ensure!(house.show(vps)?["image"] == "other", "`{line}`");
    }
    house.leave()
}

fn a_vps_is_rebuilt() -> Result<()> {
    let mut house = House::quick()?;
    house.import(
        "other",
        "trap 'exit 0' TERM; echo other; while :; do busybox sleep 60 & wait $!; done",
    )?;
    house.ok("create db --image quick")?;
    house.ok("create web --image quick --allow db --pids 99 --start")?;
    house.sh("web", "echo mine > /mine; echo id > /etc/machine-id")?;
    let before = house.show("web")?;
    house.refused("rebuild web --image other", "--force")?;
    house.refused("rebuild web --image none --force", "does not exist")?;
    ensure!(house.sh("web", "busybox cat /mine")? == "mine");
    house.ok("rebuild web --image other --force")?;
    let after = house.show("web")?;
    ensure!(
        after["status"] == "running" && after["image"] == "other",
        "{after}"
    );
    for field in ["address", "limits", "allowed", "created", "hostname"] {
        ensure!(after[field] == before[field], "{field}: {after}");
    }
    house.sh("web", "test ! -e /mine && test -s /etc/hostname")?;
    ensure!(house.ok("image show other --json")?.contains("web"));
    house
        .ok("image remove quick")
        .err()
        .context("an image in use was removed")?;
    // Killed after the decision: whoever comes next carries it out.
    house.ok("stop web")?;
    let note = house.root.join("lib/vps/web/rebuild.json");
    house
        .sh("web", "true")
        .err()
        .context("a stopped VPS runs programs")?;
    fs::write(&note, r#"{"image":"quick"}"#)?;
    fs::remove_dir_all(house.root.join("lib/vps/web/disk/work"))?;
    house.ok("start web")?;
    ensure!(house.show("web")?["image"] == "quick" && !note.exists());
    house.ok("stop web")?;
    let keyed = key("rebuilt")?;
    house.ok(&format!(
        "rebuild web --image busybox --ssh-key {}.pub --start",
        keyed.display()
    ))?;
    house.up("web")?;
    ensure!(
        house
            .sh("web", "cat /root/.ssh/authorized_keys")?
            .starts_with("ssh-ed25519 ")
    );
    house.leave()
}

fn a_vps_is_rescued() -> Result<()> {
    let mut house = House::quick()?;
    house.import(
        "other",
        "trap 'exit 0' TERM; echo other; while :; do busybox sleep 60 & wait $!; done",
    )?;
    house.ok("create web --image quick --start")?;
    house.sh("web", "echo broken > /etc/mine; busybox chown 33:33 /etc/mine")?;
    house.refused("rescue web --image other", "--force")?;
    house.refused("rescue web --end", "not in rescue")?;
    house.ok("rescue web --image other --force")?;
    let vps = house.show("web")?;
    ensure!(
        vps["status"] == "running" && vps["rescue"] == "other" && vps["image"] == "quick",
        "{vps}"
    );
    ensure!(house.ok("show web")?.contains("rescue"));
    let seen = house.sh("web", "cd /mnt/etc; busybox stat -c %u mine; busybox cat mine hostname; test ! -e /etc/mine; echo mended > mine; echo gone > /only")?;
    ensure!(seen == "33\nbroken\nweb", "{seen}");
    house.refused("image remove other", "in use")?;
    house.refused("rebuild web --image other --force", "--end")?;
    house.refused("rescue web --image quick", "already")?;
    // It stays the rescue system until it is ended.
    house.ok("restart web")?;
    ensure!(house.sh("web", "busybox cat /only /mnt/etc/mine")? == "gone\nmended");
    house.ok("rescue web --end")?;
    ensure!(house.sh("web", "busybox cat /etc/mine; test ! -e /only")? == "mended");
    let vps = house.show("web")?;
    ensure!(vps["status"] == "running" && vps["rescue"].is_null(), "{vps}");
    ensure!(!house.root.join("lib/vps/web/rescue").exists());
    // One that was stopped is stopped again; what rescues by default is its own image, fresh.
    house.ok("stop web")?;
    house.ok("rescue web")?;
    house.sh("web", "test ! -e /etc/mine && test -e /mnt/etc/mine")?;
    house.ok("rescue web --end")?;
    ensure!(house.status("web")? == "stopped");
    house.leave()
}

fn a_vps_is_renamed() -> Result<()> {
    let house = House::quick()?;
    house.ok("create db --image quick --start")?;
    house.ok("create web --image quick --allow db --start")?;
    let before = house.show("web")?;
    house.sh("web", "echo mine > /mine; echo '10.1.1.1 web' >> /etc/hosts")?;
    house.refused("rename web shop", "stop it first")?;
    house.ok("stop web")?;
    house.refused("rename web db", "already exists")?;
    house.refused("rename web web", "already")?;
    house.refused("rename nobody shop", "does not exist")?;
    house.ok("rename web shop")?;
    house.refused("show web", "does not exist")?;
    let after = house.show("shop")?;
    ensure!(
        after["address"] == before["address"]
            && after["hostname"] == "shop"
            && after["last_exit"]["reason"] == "exited",
        "{after}"
    );
    ensure!(
        after["allowed"] == serde_json::json!(["db"])
            && house.show("db")?["allowed"] == serde_json::json!(["shop"])
    );
    house.ok("start shop")?;
    let seen = house.sh(
        "shop",
        "busybox cat /mine /etc/hostname /etc/hosts; busybox hostname",
    )?;
    ensure!(
        seen.starts_with("mine\nshop\n") && seen.contains("\tshop\n10.1.1.1 web") && seen.ends_with("\nshop"),
        "{seen}"
    );
    // Killed between records and folders: the next command, whichever it is, moves them.
    house.ok("stop shop")?;
    let lib = house.root.join("lib/vps");
    house.ok("rename shop again")?;
    fs::rename(lib.join("again"), lib.join("shop"))?;
    let sql = "INSERT INTO rename (old, new) VALUES ('shop', 'again')";
    rusqlite::Connection::open(house.root.join("lib/condo.db"))?.execute(sql, [])?;
    house.ok("list")?;
    ensure!(lib.join("again/disk").exists() && !lib.join("shop").exists());
    // A database that is lost is made anew with the new name.
    fs::remove_file(house.root.join("lib/condo.db"))?;
    ensure!(house.show("again")?["allowed"] == serde_json::json!(["db"]));
    // The old name is free.
    house.ok("create web --image quick --start")?;
    house.sh("web", "test ! -e /mine")?;
    house.leave()
}
