//! Command lines, output and exit codes: the only rooms that print.

pub mod oci;
