//! The OCI runtime with runc's command line.

fn main() -> std::process::ExitCode {
    condo::cli::oci::main()
}
