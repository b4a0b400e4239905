//! `pktcred csr` and `pktcred sign`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PublicKey;
use packetlab::request::{self, SigningRequest};
use packetlab::time::Ticks;
use packetlab_home::REQUESTS;

use crate::certificate_options::{CertificateOptions, TypeWord};
use crate::commands::show;
use crate::failure::{Exit, Failure, note};
use crate::files::{self, Output, Place};
use crate::validity::Validity;

/// How long certificates are valid if nothing else is asked for.
const VALID_FOR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Args)]
pub(crate) struct CsrOptions {
    /// Type of the certificate to ask for
    #[arg(value_name = "TYPE")]
    kind: TypeWord,
    /// Private key to ask for: a file, or its name in the home such as k_exper
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// Its first line is the passphrase of the key [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    certificate: CertificateOptions,
}

pub(crate) fn request(options: &CsrOptions, place: &Place) -> Result<Exit, Failure> {
    let mut fields = empty(options.kind.into(), Ticks(0), Ticks::MAX);
    options.certificate.apply(&mut fields, place)?;
    let key = place.private_key(&options.key, options.passphrase_file.as_deref())?;
    let der = request::request(&fields, &key).map_err(Failure::unusable)?;
    let request = SigningRequest::from_der(&der).map_err(Failure::unusable)?;
    options.output.write(&request.to_pem())?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub(crate) struct SignOptions {
    /// Type of the certificate
    #[arg(value_name = "TYPE")]
    kind: TypeWord,
    /// Private key that signs: a file, or its name in the home such as k_eop
    #[arg(long, value_name = "KEY")]
    signer: PathBuf,
    /// Its first line is the passphrase of the key [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Signing request: gives the key, and what options do not say otherwise
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Public key that the certificate is for
    #[arg(long, value_name = "PUBKEY", conflicts_with = "csr")]
    subject: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    validity: Validity,
    #[command(flatten)]
    certificate: CertificateOptions,
}

pub(crate) fn sign(options: &SignOptions, place: &Place, now: Ticks) -> Result<Exit, Failure> {
    let (not_before, not_after) = options.validity.resolve((now, now.saturating_add(VALID_FOR)))?;
    let kind = options.kind.into();
    let (mut fields, subject) = match (&options.csr, &options.subject) {
        (Some(csr), _) => asked_for(csr, kind, place, (not_before, not_after))?,
        (None, Some(subject)) => (empty(kind, not_before, not_after), place.public_key(subject)?),
        (None, None) => return Err(Failure::usage("say for whom: --csr or --subject")),
    };
    options.certificate.apply(&mut fields, place)?;
    let signer = place.private_key(&options.signer, options.passphrase_file.as_deref())?;
    let der = issue(&fields, &subject, &signer).map_err(Failure::unusable)?;
    let certificate = Certificate::from_der(&der).map_err(Failure::unusable)?;
    options.output.write(&certificate.to_pem())?;
    // What was signed, so that nobody signs what a request slips in without seeing it.
    note(show::certificate(&certificate, now).text().trim_end());
    Ok(Exit::Success)
}

fn empty(
    certificate_type: CertificateType,
    not_before: Ticks,
    not_after: Ticks,
) -> CertificateFields {
    CertificateFields {
        certificate_type,
        delegation: Delegation::default(),
        path_len: None,
        not_before,
        not_after,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    }
}

/// What a request asks for, and for whom.
fn asked_for(
    csr: &Path,
    kind: CertificateType,
    place: &Place,
    (not_before, not_after): (Ticks, Ticks),
) -> Result<(CertificateFields, PublicKey), Failure> {
    let path = place.find(REQUESTS, csr)?;
    let request = SigningRequest::from_pem(&files::read(&path)?)
        .map_err(|error| Failure::of_file(&path, error))?;
    if request.certificate_type != kind {
        let asked = request.certificate_type;
        let problem = format!("asks for a certificate of type {asked}, not {kind}");
        return Err(Failure::of_file(&path, problem));
    }
    let mut fields = request.fields(not_before, not_after);
    for name in std::mem::take(&mut fields.limits.optional_known_limits) {
        note(format!(
            "warning: the request wants {name} to be optional, on which original programs crash; \
             it is signed as a plain limit"
        ));
    }
    Ok((fields, request.subject_key))
}
