//! The `redweir` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    redweir::cli::main()
}
