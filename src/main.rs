//! Parse, run, exit code.

fn main() {
    let code = af2::cli::main();
    if af2::dist::left() {
        af2::screen::close();
        af2::ffi::exit_at_once(code);
    }
    std::process::exit(code);
}
