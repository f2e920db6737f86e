//! Files inside, through the API.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Result, ensure};

use super::reception::Reception;
use crate::harness;

tests![
    lxc_pushes_and_pulls_files: 120,
    files_are_read_and_written_one_by_one: 120,
];

fn lxc_pushes_and_pulls_files() -> Result<()> {
    needs!(root, program: lxc);
    let all = Reception::new()?;
    all.house.running("web", "")?;
    let here = harness::tempdir();
    let tree = here.join("site");
    fs::create_dir_all(tree.join("deep/er"))?;
    fs::write(tree.join("index.html"), "hello")?;
    fs::write(tree.join("deep/er/tool"), vec![7; 3 << 20])?;
    fs::set_permissions(tree.join("deep/er/tool"), PermissionsExt::from_mode(0o750))?;
    std::os::unix::fs::symlink("../index.html", tree.join("deep/link"))?;
    let tree = tree.display();
    all.ok(&format!("file push -r {tree} web/root"))?;
    ensure!(
        all.house
            .sh("web", "cat /root/site/deep/link; readlink /root/site/deep/link")?
            == "hello../index.html"
    );
    ensure!(
        all.house
            .sh("web", "stat -c '%a %u %g %s' /root/site/deep/er/tool")?
            == "750 0 0 3145728"
    );
    all.ok(&format!(
        "file push -p --mode 0640 --uid 33 --gid 44 {tree}/index.html web/new/folders/page"
    ))?;
    ensure!(all.house.sh("web", "stat -c '%a %u %g' /new/folders/page")? == "640 33 44");
    // What is there keeps its owner and mode.
    fs::write(here.join("page"), "changed")?;
    all.ok(&format!(
        "file push {} web/new/folders/page",
        here.join("page").display()
    ))?;
    ensure!(
        all.house
            .sh("web", "cat /new/folders/page; stat -c ' %a %u' /new/folders/page")?
            == "changed 640 33"
    );
    let back = here.join("back");
    fs::create_dir(&back)?;
    all.ok(&format!("file pull -r web/root/site {}", back.display()))?;
    let tool = fs::metadata(back.join("site/deep/er/tool"))?;
    ensure!(tool.len() == 3 << 20 && tool.mode() & 0o777 == 0o750);
    ensure!(fs::read_link(back.join("site/deep/link"))?.to_str() == Some("../index.html"));
    ensure!(fs::read_to_string(back.join("site/index.html"))? == "hello");
    all.ok(&format!(
        "file pull web/etc/hostname {}",
        here.join("name").display()
    ))?;
    ensure!(fs::read_to_string(here.join("name"))?.trim() == "web");
    all.ok("file delete web/new/folders/page")?;
    ensure!(all.house.sh("web", "ls /new/folders")?.is_empty());
    refused_and_stopped(&all, &tree.to_string())?;
    all.leave()
}

fn refused_and_stopped(all: &Reception, tree: &str) -> Result<()> {
    let missing = all.output(&["file", "pull", "web/no/such", "-"])?;
    ensure!(!missing.status.success(), "{missing:?}");
    // As well while it is stopped.
    all.house.ok("stop web -t 0")?;
    all.ok(&format!("file push {tree}/index.html web/root/index.html"))?;
    ensure!(all.ok("file pull web/root/index.html -")? == "hello");
    Ok(())
}

/// What goes wrong: the path, what is asked, and the status of the answer.
const REFUSED: &[(&str, &str, u16)] = &[
    ("GET", "/1.0/instances/web/files", 400),
    ("GET", "/1.0/instances/web/files?path=/no/such", 404),
    ("GET", "/1.0/instances/web/files?path=/etc/hostname/x", 400),
    ("GET", "/1.0/instances/web/files?path=/proc/version", 400),
    ("GET", "/1.0/instances/web/files?path=/dev/null", 400),
    ("GET", "/1.0/instances/web/files?path=/a%00b", 400),
    ("GET", "/1.0/instances/none/files?path=/", 404),
    ("POST", "/1.0/instances/web/files?path=/no/such", 404),
    ("POST", "/1.0/instances/web/files?path=/etc", 400),
    ("POST", "/1.0/instances/web/files?path=/", 400),
    (
        "POST",
        "/1.0/instances/web/files?path=/proc/sys/kernel/hostname",
        400,
    ),
    ("POST", "/1.0/instances/web/files?path=/root/out/x", 404),
    ("DELETE", "/1.0/instances/web/files?path=/etc", 400),
    ("DELETE", "/1.0/instances/web/files?path=/", 400),
    ("DELETE", "/1.0/instances/web/files?path=/no/such", 404),
];

fn files_are_read_and_written_one_by_one() -> Result<()> {
    let all = Reception::new()?;
    all.house.running("web", "")?;
    all.house.sh(
        "web",
        "ln -s /tmp/only-inside /root/out; ln -s /etc/hostname /root/name; mkfifo /root/fifo",
    )?;
    for (method, path, code) in REFUSED {
        let (said, answer) = all.ask(method, path, "x")?;
        ensure!(
            said == *code && answer["error_code"] == *code,
            "{method} {path}: {said} {answer}"
        );
    }
    let (code, names) = all.ask("GET", "/1.0/instances/web/files?path=/", "")?;
    let is_there = |name: &str| {
        names["metadata"]
            .as_array()
            .is_some_and(|all| all.iter().any(|n| n == name))
    };
    ensure!(code == 200 && is_there("etc") && is_there("root"), "{names}");
    let (code, answer) = all.ask("GET", "/1.0/instances/web/files?path=/root/fifo", "")?;
    ensure!(code == 400, "a fifo is not waited for: {answer}");
    // A link at the end of a path is followed inside, and only there.
    let (code, answer) = all.ask("POST", "/1.0/instances/web/files?path=/root/name", "other\n")?;
    ensure!(code == 200, "{answer}");
    ensure!(all.house.sh("web", "cat /etc/hostname; readlink /root/name")? == "other\n/etc/hostname");
    all.leave()
}
