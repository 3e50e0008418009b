//! x
mod failure;
mod pod;
fn main() {}
