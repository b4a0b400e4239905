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

use crate::certificate_options::{CertificateCommand, Issuing};
use crate::commands::show;
use crate::failure::{Exit, Failure, note};
use crate::files::{self, Output, Place};
use crate::validity::Validity;

/// How long certificates are valid if nothing else is asked for.
const VALID_FOR: Duration = Duration::from_secs(365 * 86_400);

/// Of `pktcred csr`.
pub(crate) const CSR_EXAMPLES: &str = "\
Examples:
  pktcred csr exppriv --key k_exper -o exppriv.csr
  pktcred csr agent --key k_xc -o agent.csr";

/// Of `pktcred sign`.
pub(crate) const SIGN_EXAMPLES: &str = "\
Examples:
  pktcred sign exppriv --signer k_eop --csr their.csr -o their.cert
  pktcred sign agent --signer k_group --subject their.pub -o agent.cert";

#[derive(Debug, Args)]
pub(crate) struct CsrOptions {
    /// Private key to ask for: a file, or its name in the home such as k_exper
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// Its first line is the passphrase of the key [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Issuing for CsrOptions {
    fn examples(certificate_type: CertificateType) -> &'static str {
        match certificate_type {
            CertificateType::Subcmd => "Examples:\n  pktcred csr subcmd --key k_ep -o subcmd.csr",
            CertificateType::Pubcmd => "Examples:\n  pktcred csr pubcmd --key k_xc -o pubcmd.csr",
            CertificateType::Exppriv => {
                "Examples:\n  \
                 pktcred csr exppriv --key k_exper -o exppriv.csr\n  \
                 pktcred csr exppriv --key k_exper --valid-dest 192.0.2.0/24 -o exppriv.csr"
            }
            CertificateType::Delpriv => {
                "Examples:\n  pktcred csr delpriv --key k_exper --delegate exppriv -o delpriv.csr"
            }
            CertificateType::Agent => "Examples:\n  pktcred csr agent --key k_xc -o agent.csr",
        }
    }
}

pub(crate) fn request(
    command: &CertificateCommand<CsrOptions>,
    place: &Place,
) -> Result<Exit, Failure> {
    let (kind, options, contents) = command.parts();
    let mut fields = empty(kind, Ticks(0), Ticks::MAX);
    contents.apply(&mut fields, place)?;
    let key = place.private_key(&options.key, options.passphrase_file.as_deref())?;
    let der = request::request(&fields, &key).map_err(Failure::unusable)?;
    let request = SigningRequest::from_der(&der).map_err(Failure::unusable)?;
    options.output.write(&request.to_pem())?;
    Ok(Exit::Success)
}

#[derive(Debug, Args)]
pub(crate) struct SignOptions {
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
}

impl Issuing for SignOptions {
    fn examples(certificate_type: CertificateType) -> &'static str {
        match certificate_type {
            CertificateType::Subcmd => {
                "Examples:\n  pktcred sign subcmd --signer k_eop --subject k_ep.pub -o subcmd.cert"
            }
            CertificateType::Pubcmd => {
                "Examples:\n  pktcred sign pubcmd --signer k_exper --subject k_xc.pub -o pubcmd.cert"
            }
            CertificateType::Exppriv => {
                "Examples:\n  \
                 pktcred sign exppriv --signer k_eop --csr their.csr -o their.cert\n  \
                 pktcred sign exppriv --signer k_eop --csr their.csr --max-send-byte 1000000"
            }
            CertificateType::Delpriv => {
                "Examples:\n  \
                 pktcred sign delpriv --signer k_exper --subject their.pub --delegate exppriv\n  \
                 pktcred sign delpriv --signer k_exper --csr their.csr --path-len 0"
            }
            CertificateType::Agent => {
                "Examples:\n  pktcred sign agent --signer k_xc --subject k_xc.pub -o agent.cert"
            }
        }
    }
}

pub(crate) fn sign(
    command: &CertificateCommand<SignOptions>,
    place: &Place,
    now: Ticks,
) -> Result<Exit, Failure> {
    let (kind, options, contents) = command.parts();
    let (not_before, not_after) = options.validity.resolve((now, now.saturating_add(VALID_FOR)))?;
    let (mut fields, subject) = match (&options.csr, &options.subject) {
        (Some(csr), _) => asked_for(csr, kind, place, (not_before, not_after))?,
        (None, Some(subject)) => (empty(kind, not_before, not_after), place.public_key(subject)?),
        (None, None) => return Err(Failure::usage("say for whom: --csr or --subject")),
    };
    contents.apply(&mut fields, place)?;
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
