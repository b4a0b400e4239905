//! The names of what is in a home, those of the original's examples (spec/pktxpmgr.md 2.6).

/// Config file for endpoints that connect to the controller.
pub const CONFIG: &str = "xpmgr.conf";
/// Config file for endpoints that come through a proxy.
pub const PROXY_CONFIG: &str = "xpmgr.proxy.conf";
/// Directory of keys.
pub const KEYS: &str = "keys";
/// Directory of certificates.
pub const CERTIFICATES: &str = "certs";
/// Directory of signing requests.
pub const REQUESTS: &str = "csrs";
/// Directory of monitor programs.
pub const PROGRAMS: &str = "progs";
/// Certificate by which the experimenter lets the controller run experiments.
pub const PUBCMD: &str = "pubcmd_exper_xc.cert";

/// Names of the private keys: experimenter, controller, endpoint operator, endpoint.
pub const KEY_NAMES: [&str; 4] = ["k_exper", "k_xc", "k_eop", "k_ep"];

pub(super) const AGENT_CONTROLLER: &str = "agent_xc_xc.cert";
pub(super) const AGENT_ENDPOINT: &str = "agent_ep_ep.cert";
pub(super) const EXPPRIV: &str = "exppriv_eop_exper.cert";
pub(super) const SUBCMD: &str = "subcmd_eop_ep.cert";
pub(super) const BROKER_ROOT: &str = "broker_root.pub";
pub(super) const PROXY_ROOT: &str = "proxy_root.pub";
