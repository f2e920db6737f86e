//! Saving a running container to files and bringing it back, with the help of CRIU (<https://criu.org>).
//!
//! CRIU saves and remakes processes, memory, open files, namespaces and mounts. What the config says about the host is condo's
//! part: the root filesystem, bind mounts, devices, namespaces joined by path, the cgroup with its limits, network devices, the
//! terminal, the standard streams. `criu` speaks with it, [`dump`] and [`restore`] say what is wanted.
//!
//! # What is trusted
//! Images are written by CRIU and read by CRIU as root: they say what processes there will be and what they may do. condo reads
//! one file of its own beside them (`descriptors`), within bounds. At restore everything of the host comes from the bundle's
//! config, checked as at `create`, and never from the images; and before the processes run, `verify` looks whether they are
//! inside of what the config says. That is a second line: only images of a trusted source should be restored.

mod criu;
pub(in crate::runtime) mod descriptors;
pub mod dump;
mod external;
mod lend;
pub mod options;
pub mod restore;
mod rpc;
mod trouble;
mod unlock;
mod verify;
