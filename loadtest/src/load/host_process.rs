//! `pktfleet broker` and `pktfleet proxy` as processes of a run.
//!
//! Not here: what they are needed for.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use packetlab::key::PrivateKey;

use super::error::LoadError;
use super::placement;
use crate::pktxpmgr::Pktxpmgr;
use hosts::home::{Agent, Home};

/// Where one listens: a broker for publishers and for subscribers, a proxy for controllers and for endpoints.
pub(super) type Doors = [SocketAddr; 2];

/// Writes what broker and proxy read: key and certificate.
pub(super) fn agent_files(home: &Home, agent: &Agent) -> io::Result<[PathBuf; 2]> {
    let path = |name| home.config_path().with_file_name(name);
    let [key, certificate] = [path("host.key"), path("host.cert")];
    write_private(&key, &agent.key)?;
    fs::write(&certificate, agent.certificate.to_pem())?;
    Ok([key, certificate])
}

fn write_private(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut { file }, key.to_pem().as_bytes())
}

/// Starts one on these cores, with two doors, which it tells in the order they are asked for.
///
/// # Errors
/// It does not get ready.
pub(super) async fn start(
    words: &[&str],
    [key, certificate]: &[PathBuf; 2],
    cores: &[usize],
) -> Result<(Pktxpmgr, Doors), LoadError> {
    let mut words: Vec<OsString> = words.iter().map(OsString::from).collect();
    words.extend(["--key".into(), key.into(), "--agent".into(), certificate.into()]);
    let mut first = None;
    let doors = move |line: &str| {
        let (_, told) = line.split_once("listening on ")?;
        let door = told.split_ascii_whitespace().next()?.parse().ok()?;
        let first = *first.get_or_insert(door);
        (first != door).then_some([first, door])
    };
    let (host, doors) = Pktxpmgr::start(&std::env::current_exe()?, words, doors).await?;
    placement::pin(host.pid(), cores)?;
    Ok((host, doors))
}
