//! What stays with a running VPS.

fn main() -> std::process::ExitCode {
    condo::vps::run::monitor::alone::main()
}
