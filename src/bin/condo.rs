//! The VPS manager.
fn main() -> std::process::ExitCode {
    condo::cli::vps::main()
}
