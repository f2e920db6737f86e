//! The VPS manager.

fn main() -> std::process::ExitCode {
    condo::vps::run::monitor::main().unwrap_or_else(condo::cli::vps::main)
}
