//! The pages of the console are part of the program.

fn main() {
    println!("cargo::rerun-if-changed=ui");
}
