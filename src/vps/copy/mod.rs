//! Copies of VPSs in time and space. All of them are of a VPS's own layer: the image below is shared and never changes.
//!
//! ```text
//!  migrate    a VPS on another host
//!  backup     archives in a folder, the old ones removed
//!  export     a VPS into an archive
//!  import     a VPS out of archives
//!  archive    what is in such a file
//!  publish    an image made of a VPS
//!  clone      a VPS made of another
//!  snapshot   a VPS as it was
//!  capture    a layer, read as of one moment
//!  whole      disks that are no layer, and what is not for them
//! ```
//! Whoever copies holds the VPS's lock of copies, and the VPS's own lock only for the moment that counts: meanwhile the VPS can be
//! stopped, entered and looked at.

pub mod archive;
pub mod backup;
mod capture;
pub mod clone;
pub mod export;
pub mod import;
pub mod migrate;
mod publish;
pub mod snapshot;
mod whole;
