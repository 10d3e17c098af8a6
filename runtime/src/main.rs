//! The command `skeg`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: skeg_allocator::Allocator = skeg_allocator::Allocator;

fn main() -> ExitCode {
    skeg_runtime::main()
}
