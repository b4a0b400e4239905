//! mlet.
fn main() {}
