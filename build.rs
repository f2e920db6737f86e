//! Where `condo-runtime` begins: see `entry/src/lib.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |what: &str, value| std::env::var(what).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        for option in ["undefined", "entry"] {
            println!("cargo::rustc-link-arg-bin=condo-runtime=-Wl,--{option}=condo_runtime_entry");
        }
    }
}
