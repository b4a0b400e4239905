//! Whole runs within this process but for `pktxpmgr` and its mlets: real endpoints, real example mlets.

mod mlets;
mod own_home;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 8, 0, 1));
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
