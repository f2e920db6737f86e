//! What documents show is what condo prints: their transcripts are run again, in order, a page on an instance of its own.
//!
//! A fence of `console` has commands behind `$ ` and what they print, in which numbers and addresses may be others. A line
//! that is `…` stands for any lines. What has to be there first is in comments of the page, which readers do not see:
//!
//! ```text
//! <!-- before: condo create web --image busybox -->     is run, and has to succeed
//! <!-- not run: why -->                                 the next fence is only shown
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::harness;
use crate::vps::house::House;

tests![
    the_page_about_copies: 120,
    the_page_about_disks: 120,
    the_page_about_files: 120,
    the_page_about_firewalls: 120,
    the_page_about_first_boots: 120,
    the_page_about_images: 120,
    the_page_about_limits: 120,
    the_page_about_networks: 120,
    the_page_about_ports: 120,
];

fn the_page_about_copies() -> Result<()> {
    is_what_happens("vps/copies.md")
}

fn the_page_about_disks() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    is_what_happens("vps/disk.md")
}

fn the_page_about_files() -> Result<()> {
    needs!(root, busybox, program:zstd);
    is_what_happens("vps/files.md")
}

fn the_page_about_firewalls() -> Result<()> {
    needs!(root, busybox);
    is_what_happens("vps/firewall.md")
}

fn the_page_about_first_boots() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:ssh-keygen");
    is_what_happens("vps/first-boot.md")
}

fn the_page_about_images() -> Result<()> {
    needs!(root, busybox);
    is_what_happens("images.md")
}

fn the_page_about_limits() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    is_what_happens("vps/limits.md")
}

fn the_page_about_networks() -> Result<()> {
    needs!(root, busybox, ip, nft, program:curl);
    is_what_happens("network.md")
}

fn the_page_about_ports() -> Result<()> {
    needs!(root, busybox, ip, program:curl);
    harness::need("program:jq");
    harness::need("program:dnsmasq");
    is_what_happens("vps/ports.md")
}

/// One thing to do, and what is to come of it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    /// What it prints; nothing is said about what goes before.
    prints: Option<Vec<String>>,
}

/// The steps of a page.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut run, mut inside) = (true, false);
    for (line, text) in (1..).zip(text.lines()) {
        let comment = |kind: &str| {
            text.strip_prefix("<!-- ")?
                .strip_prefix(kind)?
                .strip_suffix(" -->")
        };
        let step = |command: &str, prints| Step {
            line,
            command: command.to_owned(),
            prints,
        };
        match (inside, text) {
            (false, "```console") => inside = true,
            (true, "```") => (inside, run) = (false, true),
            (true, _) if !run => {}
            (true, _) => match (text.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(step(command, Some(Vec::new()))),
                (None, Some(last)) => last.prints.get_or_insert_default().push(text.to_owned()),
                (None, None) => {}
            },
            (false, _) => {
                steps.extend(comment("before: ").map(|command| step(command, None)));
                run &= comment("not run: ").is_none();
            }
        }
    }
    steps
}

/// A line with every word that begins with a digit, or is an address of IPv6, as `N`; quotes and brackets are no part of it.
fn plain(line: &str) -> String {
    let word = |word: &str| {
        let text = word.trim_start_matches(['"', '(']);
        let end = text.trim_start_matches(|c: char| c.is_alphanumeric() || ".:/%-+".contains(c));
        let is_number = text.starts_with(|c: char| c.is_ascii_digit());
        let address = &text[..text.len() - end.len()];
        let is_address = address.matches(':').count() > 1
            && address.chars().all(|c| c.is_ascii_hexdigit() || ":/".contains(c));
        match is_number || is_address {
            true => format!("{}N{end}", &word[..word.len() - text.len()]),
            false => word.to_owned(),
        }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Whether these lines are those, `…` being any.
fn is_alike(expected: &[String], found: &[String]) -> bool {
    match expected {
        [] => found.is_empty(),
        [first, rest @ ..] if first == "…" => (0..=found.len()).any(|skip| is_alike(rest, &found[skip..])),
        [first, rest @ ..] => {
            let same = found.first().is_some_and(|found| plain(found) == plain(first));
            same && is_alike(rest, &found[1..])
        }
    }
}

fn is_what_happens(page: &str) -> Result<()> {
    let mut house = House::new()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src").join(page);
    let steps = steps(&std::fs::read_to_string(&path)?);
    ensure!(
        steps.iter().any(|step| step.prints.is_some()),
        "{page} shows nothing"
    );
    let dir = home(&house)?;
    for Step {
        line,
        command,
        prints,
    } in &steps
    {
        let mut shell = Command::new("timeout");
        shell
            .args(["60", "sh", "-c", &format!("exec 2>&1; {command}")])
            .current_dir(&dir)
            .env("CONDO_ROOT", &house.root)
            .env("HOME", &dir)
            .env("PATH", path_with(&dir)?)
            .stdin(Stdio::null());
        let output = shell.output().with_context(|| format!("{page}:{line}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some(expected) = prints else {
            ensure!(
                output.status.success(),
                "{page}:{line}: `{command}` failed: {said}"
            );
            continue;
        };
        let found: Vec<String> = said.lines().map(|line| line.trim_end().to_owned()).collect();
        ensure!(
            is_alike(expected, &found),
            "{page}:{line}: `{command}` does not print this:\n{}\nbut this:\n{said}",
            expected.join("\n")
        );
    }
    house.ok("delete --force --all")?;
    // Images that the page has made.
    house.settle_in();
    house.leave()
}

/// A home for whoever types, with the programs that he has.
fn home(house: &House) -> Result<PathBuf> {
    let dir = house.root.with_file_name("home");
    std::fs::create_dir_all(dir.join("bin"))?;
    std::os::unix::fs::symlink(harness::condo(), dir.join("bin/condo"))?;
    Ok(dir)
}

fn path_with(dir: &Path) -> Result<String> {
    let path = std::env::var("PATH").context("no PATH")?;
    Ok(format!("{}:{path}", dir.join("bin").display()))
}
