//! `pktcred verify`: a chain of certificates checked by the rules of protocol.md 4.6, and which
//! certificate breaks which rule.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use engine::home::CERTIFICATES;
use engine::proto::trust::{ChainError, TrustMode, VerifiedChain, verify_chain};
use engine::wire::certificate::{Certificate, CertificateType};
use engine::wire::time::Ticks;

use crate::failure::{Exit, Failure, note, print, shown};
use crate::files::{self, Place};
use crate::show;
use crate::validity::date;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Who presents the chain
    #[arg(long = "as", value_name = "WHO")]
    presenter: Presenter,
    /// Public key that may have signed the last certificate; may be repeated. Without any that
    /// signature is not checked
    #[arg(long, value_name = "PUBKEY")]
    root: Vec<PathBuf>,
    /// Check for this moment instead of now
    #[arg(long, value_name = "DATE", value_parser = date)]
    at: Option<Ticks>,
    /// Certificates; the presenter's own one first, the others in any order
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Whose chain it is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Presenter {
    /// pubcmd, delpriv for each delegation, exppriv: what endpoints check
    Controller,
    /// subcmd, delpriv for each delegation: what controllers check
    Endpoint,
    /// One agent certificate: what brokers, proxies and their clients check
    Agent,
}

impl Presenter {
    fn mode(self) -> TrustMode {
        match self {
            Self::Controller => TrustMode::EndpointAuthenticatesController,
            Self::Endpoint => TrustMode::ControllerAuthenticatesEndpoint,
            Self::Agent => TrustMode::Agent,
        }
    }

    fn leaf(self) -> CertificateType {
        match self {
            Self::Controller => CertificateType::Pubcmd,
            Self::Endpoint => CertificateType::Subcmd,
            Self::Agent => CertificateType::Agent,
        }
    }
}

pub(crate) fn run(options: &Options, place: &Place, now: Ticks) -> Result<Exit, Failure> {
    let roots =
        options.root.iter().map(|name| place.public_key(name)).collect::<Result<Vec<_>, _>>()?;
    let Some(chain) = decode(&options.files, place)? else {
        print("FAILED: every certificate presented must be readable [code 2]\n")?;
        return Ok(Exit::Refuted);
    };
    for (name, certificate) in options.files.iter().zip(&chain) {
        for warning in show::warnings(&certificate.limits) {
            note(format!("warning: {}: {warning}", shown(name)));
        }
    }
    if roots.is_empty() {
        note("warning: without --root the signature of the last certificate is not checked");
    }
    let now = options.at.unwrap_or(now);
    match verify_chain(&chain, &roots, options.presenter.mode(), now) {
        Ok(verified) => {
            print(&verdict(&verified, &chain, options))?;
            Ok(Exit::Success)
        }
        Err(error) => {
            let reason = explain(&error, &options.files);
            let hint = hint(&error, options, &chain, now);
            print(&format!("FAILED: {reason} [code {}]{hint}\n", error.code()))?;
            Ok(Exit::Refuted)
        }
    }
}

/// All certificates, or `None` after telling which of them cannot be read and by which rule.
fn decode(names: &[PathBuf], place: &Place) -> Result<Option<Vec<Certificate>>, Failure> {
    let mut chain = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let path = place.find(CERTIFICATES, name)?;
        match Certificate::from_pem(&files::read(&path)?) {
            Ok(certificate) => chain.push(certificate),
            Err(error) => {
                let (path, code) = (shown(&path), error.code());
                print(&format!("certificate {index} ({path}): {error} [rule code {code}]\n"))?;
            }
        }
    }
    Ok((chain.len() == names.len()).then_some(chain))
}

/// The chain from leaf to root, one line each.
fn verdict(verified: &VerifiedChain, presented: &[Certificate], options: &Options) -> String {
    let mut text = String::from("OK:");
    for certificate in &verified.certificates {
        let index = presented.iter().position(|one| one == certificate);
        let name = index.and_then(|index| options.files.get(index));
        let name = name.map(|name| shown(name)).unwrap_or_default();
        let (kind, subject) = (certificate.certificate_type, certificate.subject_key_id);
        let _ = writeln!(text, " {name}: {kind} for {subject}");
        text.push_str("  <-");
    }
    let root = verified.anchor.and_then(|index| options.root.get(index));
    let _ = match (root, verified.root_key_id()) {
        (Some(root), _) => writeln!(text, " root {}", shown(root)),
        (None, Some(key_id)) => writeln!(text, " root {key_id}, unchecked"),
        (None, None) => writeln!(text, " no root"),
    };
    let unused = presented.len().saturating_sub(verified.certificates.len());
    if unused > 0 {
        let _ = writeln!(text, "{unused} of the certificates are not needed");
    }
    let (start, end) = (verified.not_before.date(), verified.not_after.date());
    let _ = writeln!(text, "valid from {start} to {end}");
    text
}

/// The error with the file's name beside its number.
fn explain(error: &ChainError, names: &[PathBuf]) -> String {
    let text = error.to_string();
    let Some(index) = error.index() else { return text };
    let name = names.get(index).map(|name| shown(name)).unwrap_or_default();
    let number = format!("certificate {index}");
    text.replacen(&number, &format!("{number} ({name})"), 1)
}

/// What would probably help.
fn hint(error: &ChainError, options: &Options, chain: &[Certificate], now: Ticks) -> String {
    let leaf = options.presenter.leaf();
    match error {
        ChainError::UnexpectedType { index: 0, .. }
            if chain.iter().any(|certificate| certificate.certificate_type == leaf) =>
        {
            format!("; put the {leaf} certificate first")
        }
        ChainError::NotValidNow { index, .. } => {
            chain.get(*index).map_or_else(String::new, |certificate| {
                let (start, end) = (certificate.not_before.date(), certificate.not_after.date());
                format!("; it is valid from {start} to {end}, and this is {}", now.date())
            })
        }
        _ => String::new(),
    }
}
