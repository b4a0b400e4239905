//! The two config files of a home (spec/pktxpmgr.md 2.4, 2.6).

use std::path::Path;

use super::caida;
use super::error::HomeError;
use super::names::{
    AGENT_CONTROLLER, BROKER_ROOT, CERTIFICATES, EXPPRIV, KEYS, PROGRAMS, PROXY_ROOT, PUBCMD,
};
use super::settings::Settings;

/// How long an experiment is published, in nanoseconds: 365 days.
const PUBLICATION_PERIOD: u64 = 365 * 86_400 * 1_000_000_000;

/// One `ExpExec` line without its line end: the chain in any order, then the operator's public key
/// (spec/pktxpmgr.md 2.5).
///
/// # Errors
/// A path that such a line cannot hold.
pub fn experiment_line(
    is_default: bool,
    snikey: &str,
    chain: &[&Path],
    operator: &Path,
) -> Result<String, HomeError> {
    let chain = chain.iter().map(|path| text_of(path)).collect::<Result<Vec<_>, _>>()?.join(",");
    let is_default = u8::from(is_default);
    Ok(format!("ExpExec {is_default}:{snikey}:{chain}:{}::", text_of(operator)?))
}

/// The texts of `xpmgr.conf` and `xpmgr.proxy.conf`.
pub(super) fn texts(settings: &Settings) -> Result<(String, String), HomeError> {
    let directory = &settings.directory;
    let home = text_of(directory)?;
    let certificates = directory.join(CERTIFICATES);
    let snikey = settings.snikey.as_ref().map_or("", |key| key.as_str());
    let experiment = experiment_line(
        true,
        snikey,
        &[&certificates.join(EXPPRIV), &certificates.join(PUBCMD)],
        &directory.join(KEYS).join("k_eop.pub"),
    )?;
    let publication = publication(settings, home);
    let passive = format!(
        "{publication}\
         ControllerPrivkeyPath {home}/{KEYS}/k_xc\n\
         ProgramDirPath {home}/{PROGRAMS}\n\
         # IS_DEFAULT:SNIKEY:EXPPRIVCHAIN_PATH:TRUSTEDEOP_PATH:PUB_CHANNEL:OVERRIDE_XDESCRNVP\n\
         {experiment}\n"
    );
    let root = match settings.proxy_root {
        Some(_) => format!("ProxyCertRootPath {home}/{KEYS}/{PROXY_ROOT}\n"),
        None => unchecked("ProxyCertRootPath", "proxy"),
    };
    let proxy = format!(
        "{passive}\
         EnableProxyMode 1\n\
         BacklogConnAgentCertPath {home}/{CERTIFICATES}/{AGENT_CONTROLLER}\n\
         {root}\
         TargetBacklogConn 2\n\
         BacklogConnTimeout 2000000000\n\
         BootstrapBacklogTimeout 5000000000\n"
    );
    Ok((passive, proxy))
}

fn publication(settings: &Settings, home: &str) -> String {
    let Some(broker) = &settings.broker else {
        return "EnableExpPublication 0\n".to_owned();
    };
    let addresses: Vec<_> = broker.addresses.iter().map(ToString::to_string).collect();
    let root = match broker.root {
        Some(root) => {
            let is_caidas = root == caida::broker_operator();
            let file = if is_caidas { caida::BROKER_OPERATOR_FILE } else { BROKER_ROOT };
            format!("BrokerCertRootPath {home}/{KEYS}/{file}\n")
        }
        None => unchecked("BrokerCertRootPath", "broker"),
    };
    format!(
        "EnableExpPublication 1\n\
         BrokerAddr {}\n\
         PubAgentCertPath {home}/{CERTIFICATES}/{AGENT_CONTROLLER}\n\
         {root}\
         PubPeriod {PUBLICATION_PERIOD}\n",
        addresses.join(",")
    )
}

/// Why a line is missing, in its place.
fn unchecked(key: &str, peer: &str) -> String {
    format!(
        "# {key} is left out, as the public key of the {peer}'s operator was not given: the signature\n\
         # of the {peer}'s certificate is not checked. With that key in a PEM file, write:\n\
         #{key} FILE\n"
    )
}

/// The path as a config file names it: lists have no way to quote (spec/pktxpmgr.md 2.5), and lines end
/// at control characters.
pub(super) fn text_of(path: &Path) -> Result<&str, HomeError> {
    let is_awkward = |c: char| matches!(c, ',' | ':') || c.is_control();
    match path.to_str() {
        Some(text) if !text.contains(is_awkward) && text.trim_ascii() == text => Ok(text),
        _ => Err(HomeError::Inexpressible(path.to_owned())),
    }
}
