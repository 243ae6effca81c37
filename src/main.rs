//! Parse, run, exit code.

fn main() {
    std::process::exit(af2::cli::main());
}
