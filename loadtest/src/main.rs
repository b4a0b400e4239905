//! pktfleet.
fn main() {}
