//! The `skeg` command.

fn main() {}
