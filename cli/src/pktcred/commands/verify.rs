//! `pktcred verify`: a chain of certificates checked by the rules of spec/protocol.md 4.6, and which
//! certificate breaks which rule.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use packetlab::certificate::{Certificate, CertificateType};
use packetlab::key::PublicKey;
use packetlab::time::Ticks;
use packetlab::trust::{ChainError, TrustMode, VerifiedChain, verify_chain};
use packetlab_home::CERTIFICATES;

use crate::commands::show;
use crate::failure::{Exit, Failure, note, print, shown};
use crate::files::{self, Place};
use crate::validity::date;

const EXAMPLES: &str = "\
Examples:
  pktcred verify --as controller --root eop.pub pubcmd.cert exppriv.cert
  pktcred verify --as agent agent.cert
  pktcred verify --as endpoint --at 2027-01-01 subcmd.cert";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// Who presents the chain
    #[arg(long = "as", value_name = "WHO")]
    presenter: Presenter,
    /// Public keys that may have signed the last certificate; may be repeated. Without any that
    /// signature is not checked
    #[arg(long, value_name = "PUBKEY")]
    root: Vec<PathBuf>,
    /// Check for this moment instead of now
    #[arg(long, value_name = "DATE", value_parser = date)]
    at: Option<Ticks>,
    /// Certificates, one or several in a file; the presenter's own one first, the others in any order
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

/// Things from files, each with the name of its file.
struct Named<'a, T> {
    names: Vec<&'a Path>,
    things: Vec<T>,
}

impl<'a, T> Named<'a, T> {
    fn new() -> Self {
        Self { names: Vec::new(), things: Vec::new() }
    }

    fn extend(&mut self, name: &'a Path, things: Vec<T>) {
        self.names.extend(things.iter().map(|_| name));
        self.things.extend(things);
    }

    /// The file of the thing with this index.
    fn shown(&self, index: usize) -> String {
        self.names.get(index).map(|name| shown(name)).unwrap_or_default()
    }
}

pub(crate) fn run(options: &Options, place: &Place, now: Ticks) -> Result<Exit, Failure> {
    let mut roots = Named::new();
    for name in &options.root {
        roots.extend(name, place.public_keys(name)?);
    }
    let Some(chain) = decode(&options.files, place)? else {
        print("FAILED: every certificate presented must be readable [code 2]\n")?;
        return Ok(Exit::Refuted);
    };
    for (name, certificate) in chain.names.iter().zip(&chain.things) {
        for warning in show::warnings(&certificate.limits()) {
            note(format!("warning: {}: {warning}", shown(name)));
        }
    }
    if roots.things.is_empty() {
        note("warning: without --root the signature of the last certificate is not checked");
    }
    let now = options.at.unwrap_or(now);
    match verify_chain(&chain.things, &roots.things, options.presenter.mode(), now) {
        Ok(verified) => {
            print(&verdict(&verified, &chain, &roots))?;
            Ok(Exit::Success)
        }
        Err(error) => {
            let reason = explain(&error, &chain);
            let hint = hint(&error, options, &chain.things, now);
            print(&format!("FAILED: {reason} [code {}]{hint}\n", error.code()))?;
            Ok(Exit::Refuted)
        }
    }
}

/// All certificates, or `None` after telling which file cannot be read and by which rule.
fn decode<'a>(
    names: &'a [PathBuf],
    place: &Place,
) -> Result<Option<Named<'a, Certificate>>, Failure> {
    let mut chain = Named::new();
    let mut unreadable = 0;
    for name in names {
        let path = place.find(CERTIFICATES, name)?;
        match Certificate::list_from_pem(&files::read(&path)?) {
            Ok(certificates) => chain.extend(name, certificates),
            Err(error) => {
                let index = chain.things.len() + unreadable;
                unreadable += 1;
                let (path, code) = (shown(&path), error.code());
                print(&format!("certificate {index} ({path}): {error} [rule code {code}]\n"))?;
            }
        }
    }
    Ok((unreadable == 0).then_some(chain))
}

/// The chain from leaf to root, one line each.
fn verdict(
    verified: &VerifiedChain,
    presented: &Named<'_, Certificate>,
    roots: &Named<'_, PublicKey>,
) -> String {
    let mut text = String::from("OK:");
    for certificate in &verified.certificates {
        let index = presented.things.iter().position(|one| one == certificate);
        let name = index.map(|index| presented.shown(index)).unwrap_or_default();
        let (kind, subject) = (certificate.certificate_type, certificate.subject_key_id);
        let _ = writeln!(text, " {name}: {kind} for {subject}");
        text.push_str("  <-");
    }
    let _ = match (verified.anchor, verified.root_key_id()) {
        (Some(root), _) => writeln!(text, " root {}", roots.shown(root)),
        (None, Some(key_id)) => writeln!(text, " root {key_id}, unchecked"),
        (None, None) => writeln!(text, " no root"),
    };
    let unused = presented.things.len().saturating_sub(verified.certificates.len());
    if unused > 0 {
        let _ = writeln!(text, "{unused} of the certificates are not needed");
    }
    let (start, end) = (verified.not_before.date(), verified.not_after.date());
    let _ = writeln!(text, "valid from {start} to {end}");
    text
}

/// The error with the file's name beside its number.
fn explain(error: &ChainError, chain: &Named<'_, Certificate>) -> String {
    let text = error.to_string();
    let Some(index) = error.index() else { return text };
    let number = format!("certificate {index}");
    text.replacen(&number, &format!("{number} ({})", chain.shown(index)), 1)
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
