//! The `redweir` command.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The C library keeps what was freed between what is still held: in one run of three 140 MiB that slow readers had cost stayed
/// for good. This one gives pages back ten seconds after nobody needed them, by a thread of its own.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    redweir::cli::main()
}
