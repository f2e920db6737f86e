//! The staircase of src/lib.rs holds: to be written.
