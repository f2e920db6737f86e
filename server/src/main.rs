//! LXD's REST API 1.0 over condo's VPSs.

fn main() -> std::process::ExitCode {
    condo::vps::run::monitor::main().unwrap_or_else(condo_server::main)
}
