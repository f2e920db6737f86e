//! Requests made of the OpenAPI document by schemathesis, where `CONDO_TEST_CLIENTS` names what `scripts/clients` made.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::clients;
use super::reception::Reception;
use crate::harness;

tests![
    what_the_document_allows_breaks_nothing: 180,
];

const SCRIPT: &str = include_str!("../../data/clients/with_schemathesis.py");

/// No 5xx, nothing of another project, an answer soon; the script says of what it was not so.
fn what_the_document_allows_breaks_nothing() -> Result<()> {
    let python = clients::folder("schemathesis")?.join("bin/python3");
    let all = Reception::new()?;
    let own = harness::tempdir();
    let mut program = Command::new(python);
    program
        .args(["-c", SCRIPT])
        .arg(all.house.root.join("run/api.socket"))
        .arg("60")
        .env("HOME", &own)
        .current_dir(&own);
    let said = harness::run(&mut program)?;
    let (tried, rest) = said.split_once(" of ").context("no count")?;
    let (operations, answers) = rest.split_once(" operations, answers ").context("no answers")?;
    ensure!(tried == operations && operations.parse::<u32>()? > 90, "{said}");
    for status in ["200: ", "202: ", "400: ", "404: "] {
        ensure!(answers.contains(status), "{said}");
    }
    all.leave()
}
