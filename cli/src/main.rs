//! pktxpmgr.
fn main() {}
