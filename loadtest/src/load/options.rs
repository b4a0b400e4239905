//! What `pktfleet load` can be told.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use packetlab::escape::Escaped;
use packetlab::message::PAYLOAD_LEN_MAX;
use serde::{Serialize, Serializer};

use super::attack::options::AttackOptions;
use super::mode::Mode;
use super::relays::Relay;

/// What `pktfleet load` can be told; as JSON, what it was told.
#[derive(Debug, Args, Serialize)]
pub(crate) struct Options {
    /// What the endpoints do
    #[arg(value_enum)]
    pub(super) mode: Mode,
    /// Endpoints at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) endpoints: usize,
    /// Payload bytes of a message (echo, up, down)
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=PAYLOAD_LEN_MAX as i64))]
    #[serde(rename = "size_bytes")]
    pub(super) size: u32,
    /// How long to measure (short, idle, echo, up, down)
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(super) seconds: u64,
    /// Cores for pktxpmgr: a count, or a list such as 0,2-3
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) cores: String,
    /// The core this program runs on [default: any]
    #[arg(long, value_name = "CORE")]
    pub(super) own_core: Option<usize>,
    /// The core that mlet-load runs on [default: any]
    #[arg(long, value_name = "CORE")]
    pub(super) mlet_core: Option<usize>,
    /// What stands between endpoints and mlets
    #[arg(long, value_enum, default_value = "pktxpmgr")]
    pub(super) relay: Relay,
    /// One mlet for all sessions (storm, idle, echo with pktxpmgr)
    #[arg(long)]
    pub(super) singleton: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    #[serde(skip)]
    pub(super) json: bool,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    #[serde(serialize_with = "path")]
    pub(super) pktxpmgr: Option<PathBuf>,
    /// The mlet to run [default: mlet-load beside this program; for short one without libc]
    #[arg(long, value_name = "PATH")]
    #[serde(serialize_with = "path")]
    pub(super) mlet: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip_serializing_if = "AttackOptions::is_none")]
    pub(super) attack: AttackOptions,
}

/// As its user would see it: a path need not be text.
fn path<S: Serializer>(path: &Option<PathBuf>, json: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => json.collect_str(&Escaped(path.as_os_str().as_bytes())),
        None => json.serialize_none(),
    }
}
