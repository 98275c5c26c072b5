//! The `infinitystore` binary: everything is in the library, so that tests and embedders reach it
//! too.

fn main() -> std::process::ExitCode {
    infinitystore::cli::main()
}
