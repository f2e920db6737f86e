//! The VPS manager.
fn main() {}
