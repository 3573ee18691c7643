//! Entry point of the binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    aftercall::cli::main()
}
