//! condo: VPSs without virtual machines.
//!
//! A physical server is a building; a VPS is a flat in it with its own door and meters. condo builds such flats out of the
//! kernel that is already there: namespaces, cgroups, seccomp, capabilities, user namespaces and veth bridging.
//!
//! # The house
//! A VPS is an OCI bundle that condo writes for itself: both faces, the VPS manager (`condo`) and the OCI runtime
//! (`condo-runtime`), reach the kernel through one [`runtime`]. The module graph is a staircase, kept by `tests/layers`:
//! a module names only modules of lower ranks, and siblings never name each other.
//!
//! ```text
//!  6  bin/condo.rs  bin/condo-monitor.rs  bin/condo-runtime.rs    three-line mains; server/src/main.rs is one more
//!  5  cli api        oci::*, vps::* commands; logging; output; exit codes; reports (anyhow, for `condo`); `api` is server/src
//!  4  vps            record, wire, run, copy, report
//!  3  runtime        bundle, validate, plan, status, state, hooks, console, init/{link,parent,child,exec}
//!  2  namespaces cgroups rootfs seccomp process net image storage figures     one mechanism each
//!  1  host           facts about this kernel and the caller
//!  0  error undo files pace sys              unsafe and libc only in sys
//! ```
//!
//! # Decide, then do
//! A pure plan is computed from spec and host facts before any side effect; parent and init only execute it. Every user
//! error ends before anything needs undoing. Every resource knows how to undo itself ([`undo`]), and every teardown is
//! idempotent: "already gone" is success.

pub mod cgroups;
pub mod cli;
pub mod error;
pub mod figures;
pub mod files;
pub mod host;
pub mod image;
pub mod namespaces;
pub mod net;
pub mod pace;
pub mod process;
pub mod rootfs;
pub mod runtime;
pub mod seccomp;
pub mod storage;
pub mod sys;
pub mod undo;
pub mod vps;
