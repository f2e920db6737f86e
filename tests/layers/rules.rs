//! The rules, each on one file's text.

use std::collections::BTreeMap;
use std::path::Path;

use crate::lexer::{Token, tokens};

/// Lines outside of tests at which a file is to be cut in two.
const MAX_LINES: usize = 400;
/// Names that say nothing about what is behind the door.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "types", "misc",
];
/// Modules from this rank on talk to people.
const EDGE: u32 = 5;
/// The rank of the programs.
const PROGRAMS: u32 = 6;

/// The staircase: every top-level module's rank.
pub(crate) struct House {
    ranks: BTreeMap<String, u32>,
}

impl House {
    /// Reads it off the picture in the documentation of `lib.rs`: rank, module names, two spaces, remarks.
    pub(crate) fn of(lib: &str) -> Self {
        let mut ranks = BTreeMap::new();
        for line in lib.lines().filter_map(|l| l.strip_prefix("//!")) {
            let Some((rank, rest)) = line.trim().split_once("  ") else {
                continue;
            };
            let Ok(rank) = rank.parse() else { continue };
            let names = rest.trim_start().split("  ").next().unwrap_or_default();
            ranks.extend(names.split(' ').map(|n| (n.to_owned(), rank)));
        }
        Self { ranks }
    }

    /// What is wrong with `src/<name>` of this text; `only_tests` are the modules that [`test_modules`] found.
    pub(crate) fn check(&self, name: &str, text: &str, only_tests: &[String]) -> Vec<String> {
        let mut file = File::new(name, text);
        file.only_tests = only_tests
            .iter()
            .any(|m| Path::new(name).with_extension("").starts_with(m));
        let mut complaints = Vec::new();
        match self.rank_of(&file) {
            Some(rank) => {
                complaints.extend(self.staircase(&file, rank));
                complaints.extend(edge(&file, rank));
            }
            // lib.rs is the picture itself.
            None if name == "lib.rs" => {}
            None => complaints.push(format!(
                "src/{name}: `{}` has no rank in the picture of src/lib.rs",
                file.module()
            )),
        }
        complaints.extend(kernel(&file));
        complaints.extend(names(&file));
        complaints.extend(size(&file, text));
        complaints
    }

    fn rank_of(&self, file: &File) -> Option<u32> {
        match file.module() {
            "bin" => Some(PROGRAMS),
            module => self.ranks.get(module).copied(),
        }
    }

    /// Names go down only; `error` is what all of rank 0 may name.
    fn staircase(&self, file: &File, rank: u32) -> Vec<String> {
        let mut complaints = Vec::new();
        for (module, line) in file.modules_named() {
            let Some(&other) = self.ranks.get(module) else {
                continue;
            };
            let down = other < rank || (rank == 0 && module == "error");
            if module != file.module() && !down {
                let what = if other == rank {
                    "its sibling"
                } else {
                    "the higher"
                };
                complaints.push(format!(
                    "src/{}:{line}: `{}` names {what} `{module}`",
                    file.name,
                    file.module()
                ));
            }
        }
        complaints
    }
}

/// The modules in files of their own that `src/<name>` declares for tests only, as paths below `src` without extension.
pub(crate) fn test_modules(name: &str, text: &str) -> Vec<String> {
    let file = File::new(name, text);
    let folder = name.trim_end_matches(".rs").trim_end_matches("/mod");
    let declared = file
        .test_modules()
        .into_iter()
        .filter(|(_, at)| file.is(at + 2, ";"));
    declared
        .map(|(_, at)| format!("{folder}/{}", file.tokens[at + 1].text))
        .collect()
}

/// `anyhow` and printing are for the edge.
fn edge(file: &File, rank: u32) -> Vec<String> {
    let mut complaints = Vec::new();
    for (i, token) in file
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| rank < EDGE && !file.in_tests(t.line))
    {
        let is_macro = file.is(i + 1, "!");
        match token.text.as_str() {
            "anyhow" => {
                complaints.push(file.complain(token, "`anyhow` is for `cli`; return `crate::error::Error`"));
            }
            "println" | "eprintln" | "print" | "eprint" | "dbg" if is_macro => {
                complaints.push(file.complain(token, "only `cli` prints; return it, or use `log`"));
            }
            _ => {}
        }
    }
    complaints
}

/// The kernel's raw interface is behind one door.
fn kernel(file: &File) -> Vec<String> {
    if file.module() == "sys" {
        return Vec::new();
    }
    let raw = file
        .tokens
        .iter()
        .filter(|t| matches!(t.text.as_str(), "unsafe" | "libc"));
    raw.map(|t| file.complain(t, &format!("`{}` belongs into `sys`", t.text)))
        .collect()
}

fn names(file: &File) -> Vec<String> {
    let parts = file.name.trim_end_matches(".rs").split('/');
    let of_files = parts.filter(|p| EMPTY_NAMES.contains(p));
    let mut complaints: Vec<String> = of_files
        .map(|p| format!("src/{}: `{p}` says nothing", file.name))
        .collect();
    for (i, token) in file.tokens.iter().enumerate() {
        if token.text == "mod" && EMPTY_NAMES.iter().any(|n| file.is(i + 1, n)) {
            complaints.push(file.complain(token, "a module's name says what is in it"));
        }
    }
    complaints
}

fn size(file: &File, text: &str) -> Option<String> {
    let lines = (1..=text.lines().count()).filter(|l| !file.in_tests(*l)).count();
    (lines > MAX_LINES).then(|| {
        format!(
            "src/{}: {lines} lines; look for the missing name at {MAX_LINES}",
            file.name
        )
    })
}

/// One source file.
struct File<'a> {
    /// Its path below `src`.
    name: &'a str,
    tokens: Vec<Token>,
    /// Whether all of it is compiled for tests only.
    only_tests: bool,
    /// First and last lines of its `#[cfg(test)] mod … { … }`.
    tests: Vec<(usize, usize)>,
}

impl<'a> File<'a> {
    fn new(name: &'a str, text: &str) -> Self {
        let mut file = Self {
            name,
            tokens: tokens(text),
            only_tests: false,
            tests: Vec::new(),
        };
        file.tests = file.find_tests();
        file
    }

    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        self.name
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
    }

    /// How many modules deep the file is.
    fn depth(&self) -> usize {
        let parts = Path::new(self.name).with_extension("");
        parts.iter().filter(|p| *p != "mod").count()
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|t| t.text == text)
    }

    fn are(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(i, text)| self.is(at + i, text))
    }

    fn in_tests(&self, line: usize) -> bool {
        self.only_tests
            || self
                .tests
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&line))
    }

    fn complain(&self, token: &Token, what: &str) -> String {
        format!("src/{}:{}: {what}", self.name, token.line)
    }

    fn find_tests(&self) -> Vec<(usize, usize)> {
        let bodies = self
            .test_modules()
            .into_iter()
            .filter(|(_, at)| self.is(at + 2, "{"));
        bodies
            .map(|(mark, at)| (self.tokens[mark].line, self.tokens[self.closing(at + 2)].line))
            .collect()
    }

    /// Where each `#[cfg(test)] mod …` begins and where its `mod` is, whatever attributes and visibility stand between.
    fn test_modules(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for mark in 0..self.tokens.len() {
            if !self.are(mark, &["#", "[", "cfg", "(", "test", ")", "]"]) {
                continue;
            }
            let mut at = mark + 7;
            while self.are(at, &["#", "["]) || self.is(at, "pub") || self.is(at, "(") {
                at = match self.tokens[at].text.as_str() {
                    "#" => self.closing(at + 1) + 1,
                    "(" => self.closing(at) + 1,
                    _ => at + 1,
                };
            }
            if self.is(at, "mod") {
                found.push((mark, at));
            }
        }
        found
    }

    /// Where the brace, bracket or parenthesis that opens at `at` is closed.
    fn closing(&self, at: usize) -> usize {
        let mut depth = 0;
        for i in at..self.tokens.len() {
            match self.tokens[i].text.as_str() {
                "{" | "[" | "(" => depth += 1,
                "}" | "]" | ")" => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                return i;
            }
        }
        self.tokens.len() - 1
    }

    /// The top-level modules it names and where: `crate::a`, `condo::a`, `use crate::{a, b::c}`, `super::super::a`.
    fn modules_named(&self) -> Vec<(&str, usize)> {
        let mut found = Vec::new();
        let mut inner: Vec<usize> = Vec::new();
        for i in 0..self.tokens.len() {
            inner.retain(|end| i < *end);
            if self.is(i, "mod") && self.is(i + 2, "{") {
                inner.push(self.closing(i + 2));
            }
            if let Some(after) = self.root_path(i, self.depth() + inner.len()) {
                found.extend(self.first_names(after));
            }
        }
        found
    }

    /// If a path from the crate's root begins at `at`: where it goes on.
    fn root_path(&self, at: usize, depth: usize) -> Option<usize> {
        let continues = |i: usize| self.are(i, &[":", ":"]);
        let begins = at < 2 || !continues(at - 2);
        if self.is(at, "crate") || (self.is(at, "condo") && begins) {
            return continues(at + 1).then_some(at + 3);
        }
        if !self.is(at, "super") || !begins {
            return None;
        }
        let mut end = at;
        let mut climbed = 0;
        while self.is(end, "super") && continues(end + 1) {
            climbed += 1;
            end += 3;
        }
        (climbed >= depth).then_some(end)
    }

    /// The name at `at`, or the first names of each path in a group.
    fn first_names(&self, at: usize) -> Vec<(&str, usize)> {
        if !self.is(at, "{") {
            return self
                .tokens
                .get(at)
                .map(|t| (t.text.as_str(), t.line))
                .into_iter()
                .collect();
        }
        let mut names = Vec::new();
        let mut depth = 0;
        for i in at..=self.closing(at) {
            match self.tokens[i].text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                name if depth == 1 && (self.is(i - 1, "{") || self.is(i - 1, ",")) => {
                    names.push((name, self.tokens[i].line));
                }
                _ => {}
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! ```text\n//!  6  bin/x.rs  mains\n//!  5  cli   oci::*, vps::*\n//!  2  net image     one\n//!  1  host  facts\n//!  0  error files sys\n//! ```\n";

    fn complaints(name: &str, text: &str) -> Vec<String> {
        House::of(LIB).check(name, text, &[])
    }

    #[track_caller]
    fn refused(name: &str, text: &str, part: &str) {
        let all = complaints(name, text);
        assert!(all.len() == 1 && all[0].contains(part), "{all:?}");
    }

    #[track_caller]
    fn fine(name: &str, text: &str) {
        assert_eq!(complaints(name, text), [""; 0]);
    }

    #[test]
    fn ranks_are_read_off_the_picture() {
        let house = House::of(LIB);
        assert_eq!(house.ranks["net"], 2);
        assert_eq!(house.ranks["image"], 2);
        assert_eq!(house.ranks["error"], 0);
        assert!(!house.ranks.contains_key("one"));
        assert!(!house.ranks.contains_key("facts"));
        assert!(!house.ranks.contains_key("vps::*"));
    }

    #[test]
    fn names_go_down() {
        fine(
            "net/mod.rs",
            "use crate::{host::Host, files};\nfn f() { crate::error::x(); super::super::host::y() }",
        );
        fine("bin/x.rs", "fn main() { condo::cli::main() }");
        refused(
            "host.rs",
            "use crate::net::Link;",
            "src/host.rs:1: `host` names the higher `net`",
        );
        refused("host.rs", "fn f() {\n  crate::cli::run()\n}", "src/host.rs:2:");
        refused(
            "net/mod.rs",
            "use crate::{host, cli::{self, image}};",
            "higher `cli`",
        );
        refused("net/mod.rs", "pub use super::cli;", "higher `cli`");
        refused("net/a/b.rs", "use super::super::super::cli;", "higher `cli`");
        refused(
            "net/a.rs",
            "mod t { use super::super::super::cli; }",
            "higher `cli`",
        );
        fine("net/a.rs", "mod t { use super::super::cli; }\nuse super::image;");
        fine(
            "net/mod.rs",
            "// crate::cli\nconst A: &str = \"crate::cli\"; pub(crate) fn cli() {}",
        );
    }

    #[test]
    fn siblings_do_not_name_each_other() {
        refused("net/mod.rs", "use crate::image::Image;", "its sibling `image`");
        refused(
            "net/mod.rs",
            "use crate::{\n  error,\n  image,\n};",
            "src/net/mod.rs:3:",
        );
        fine("net/a.rs", "use crate::net::b::B;");
        fine("files.rs", "use crate::error::Error;");
        refused("files.rs", "use crate::sys;", "its sibling `sys`");
        refused("error.rs", "use crate::files;", "its sibling `files`");
    }

    #[test]
    fn every_module_has_a_rank() {
        refused("attic.rs", "", "`attic` has no rank");
        fine("lib.rs", "pub mod net;");
    }

    #[test]
    fn the_raw_kernel_is_behind_one_door() {
        refused(
            "net/mod.rs",
            "fn f() { unsafe { g() } }",
            "`unsafe` belongs into `sys`",
        );
        refused("net/mod.rs", "use nix::libc;", "`libc` belongs into `sys`");
        refused(
            "net/mod.rs",
            "fn f() -> libc::c_int { 0 }",
            "`libc` belongs into `sys`",
        );
        fine("sys/mod.rs", "fn f() -> libc::c_int { unsafe { g() } }");
        fine(
            "net/mod.rs",
            "// unsafe\nfn f() -> unsafe_code::X { libc_magic() }",
        );
    }

    #[test]
    fn the_edge_is_the_edge() {
        refused("net/mod.rs", "use anyhow::Result;", "`anyhow` is for `cli`");
        refused("net/mod.rs", "fn f() { println!() }", "only `cli` prints");
        refused("net/mod.rs", "fn f() { dbg!(1) }", "only `cli` prints");
        fine("cli/mod.rs", "use anyhow::Result; fn f() { println!() }");
        fine(
            "net/mod.rs",
            "fn print() {}\n#[cfg(test)]\nmod tests {\n fn f() -> anyhow::Result<()> { println!() }\n}",
        );
        refused(
            "net/mod.rs",
            "#[cfg(test)]\nmod tests {\n}\nfn f() { println!() }",
            "src/net/mod.rs:4:",
        );
    }

    #[test]
    fn modules_for_tests_are_found() {
        let text = "#[cfg(test)]\nmod oracle;\nmod real;\n#[cfg(test)]\n#[allow(x)]\npub(crate) mod more;\n#[cfg(test)] mod tests {}";
        assert_eq!(test_modules("net/mod.rs", text), ["net/oracle", "net/more"]);
        assert_eq!(test_modules("net.rs", "#[cfg(test)] mod tests;"), ["net/tests"]);
        let house = House::of(LIB);
        let long = "fn f() { println!() }\n".repeat(500);
        assert_eq!(
            house.check("net/oracle.rs", &long, &["net/oracle".into()]),
            [""; 0]
        );
        assert_eq!(
            house.check("net/oracle2.rs", &long, &["net/oracle".into()]).len(),
            501
        );
        fine(
            "net/mod.rs",
            "#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn f() { println!() }\n}",
        );
    }

    #[test]
    fn doors_have_names() {
        refused("net/utils.rs", "", "`utils` says nothing");
        refused("net/common/mod.rs", "", "`common` says nothing");
        refused("net/mod.rs", "mod helpers { }", "says what is in it");
    }

    #[test]
    fn files_are_short_but_for_their_tests() {
        refused("net/mod.rs", &"fn f() {}\n".repeat(401), "401 lines");
        fine("net/mod.rs", &"fn f() {}\n".repeat(400));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(500));
        fine("net/mod.rs", &format!("{}{tests}", "fn f() {}\n".repeat(400)));
    }
}
