//! `pktcred show`: files decoded, in words or as JSON.
//!
//! Never shows a secret. A file that cannot be decoded does not hide the others.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use cli::secret;
use monitor_module::Kind;
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::key::{Hex, PrivateKey, PublicKey};
use packetlab::name_value::Pair;
use packetlab::program::{Program, ProgramLanguage};
use packetlab::request::SigningRequest;
use packetlab::time::Ticks;
use packetlab::{foreign, pem};

use crate::facts::{Fact, Facts};
use crate::failure::{Exit, Failure, print};
use crate::files::{self, Place};

const EXAMPLES: &str = "\
Examples:
  pktcred show exppriv.cert
  pktcred show --json k_xc.pub k_exper.pub";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// Keys, certificates, signing requests, programs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print a JSON array with one object for each file, or for each section of a file with several
    #[arg(long)]
    json: bool,
    /// Its first line is the passphrase of encrypted keys, which are not opened otherwise
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, place: &Place, now: Ticks) -> Result<Exit, Failure> {
    let mut exit = Exit::Success;
    let mut all = Vec::new();
    for name in &options.files {
        let parts = decode(name, options, place, now);
        let several = parts.len() > 1;
        for (number, part) in (1_u64..).zip(parts) {
            let mut facts = Facts::default();
            facts.add("file", name.to_string_lossy().into_owned());
            if several {
                facts.add("section", number);
            }
            match part {
                Ok((kind, decoded)) => {
                    facts.add("kind", kind);
                    facts.extend(decoded);
                }
                Err(problem) => {
                    exit = Exit::Refuted;
                    facts.add("error", problem);
                }
            }
            all.push(facts);
        }
    }
    if options.json {
        let objects: Vec<_> = all.iter().map(Facts::json).collect();
        print(&format!("[{}]\n", objects.join(",\n")))?;
    } else {
        let texts: Vec<_> = all.iter().map(Facts::text).collect();
        print(&texts.join("\n"))?;
    }
    Ok(exit)
}

/// What is known about one section, or about a file that has none; in words if it cannot be used.
type Part = Result<(&'static str, Facts), String>;

/// Every part of a file: its sections, or what it is as a whole.
fn decode(name: &Path, options: &Options, place: &Place, now: Ticks) -> Vec<Part> {
    let path = find_anywhere(name, place);
    let contents = match files::contents(&path) {
        Ok(contents) if contents.is_empty() => return vec![Err("the file is empty".into())],
        Ok(contents) => contents,
        Err(error) => return vec![Err(error.to_string())],
    };
    // A program may well hold a certificate as data.
    let is_program = path.extension().is_some_and(|suffix| suffix == "wasm" || suffix == "ebpf");
    let sections = if is_program { Vec::new() } else { pem::sections(&contents) };
    if !sections.is_empty() {
        return sections.into_iter().map(|one| section(one, &path, options, now)).collect();
    }
    if !is_program && let Some(foreign) = foreign::recognise(&contents) {
        return vec![Err(foreign.to_string())];
    }
    let found = files::program(&path, &contents).map_err(|problem| match is_program {
        true => problem,
        false => {
            format!("holds no key, certificate or signing request in PEM; as a program: {problem}")
        }
    });
    vec![found.map(|found| ("program", program(&found)))]
}

fn section(section: pem::Section<'_>, path: &Path, options: &Options, now: Ticks) -> Part {
    let text = section.text;
    let part = |kind, facts: Result<Facts, String>| facts.map(|facts| (kind, facts));
    match section.label {
        "CERTIFICATE" => {
            let decoded = Certificate::from_pem(text)
                .map_err(|error| format!("this is no PacketLab certificate: {error}"));
            part("certificate", decoded.map(|found| certificate(&found, now)))
        }
        "CERTIFICATE REQUEST" => {
            let decoded = SigningRequest::from_pem(text).map_err(|error| error.to_string());
            part("signing request", decoded.map(|found| request(&found)))
        }
        "PUBLIC KEY" => {
            let decoded = PublicKey::from_pem(text).map_err(|error| error.to_string());
            part("public key", decoded.map(|found| public_key(&found)))
        }
        "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
            part("private key", private_key(path, text, options.passphrase_file.as_deref()))
        }
        label => Err(match foreign::recognise(text) {
            Some(foreign) => foreign.to_string(),
            None => format!("a PEM section `{label}`, for which PacketLab has no use"),
        }),
    }
}

/// A bare name may lie in any folder of the home.
fn find_anywhere(name: &Path, place: &Place) -> PathBuf {
    use packetlab_home::{CERTIFICATES, KEYS, PROGRAMS, REQUESTS};
    let folders = [KEYS, CERTIFICATES, REQUESTS, PROGRAMS];
    let found = folders.into_iter().find_map(|folder| place.find(folder, name).ok());
    found.unwrap_or_else(|| name.to_owned())
}

/// Everything a certificate says.
pub(crate) fn certificate(certificate: &Certificate, now: Ticks) -> Facts {
    let mut facts = Facts::default();
    facts.add("type", certificate.certificate_type.name());
    facts.add("meaning", meaning(certificate.certificate_type, certificate.delegation));
    add_delegation(&mut facts, certificate.delegation);
    facts.add("subject_key", Hex(&certificate.subject_key.0).to_string());
    facts.add("subject_key_id", certificate.subject_key_id.to_string());
    facts.add("signer_key_id", certificate.authority_key_id.to_string());
    facts.add("serial", Hex(certificate.serial()).to_string());
    facts.add("not_before", certificate.not_before.date().to_string());
    facts.add("not_after", certificate.not_after.date().to_string());
    facts.add("valid_now", certificate.is_valid_at(now));
    if certificate.authority_key_id == certificate.subject_key_id {
        facts.add(
            "self_signed",
            match certificate.verify_signature(&certificate.subject_key) {
                true => Fact::from(true),
                false => Fact::from("its own key is named, but did not sign it"),
            },
        );
    }
    if certificate.certificate_type.signs_certificates() {
        add_path_len(&mut facts, certificate.path_len);
    }
    add_texts(&mut facts, certificate.description(), &certificate.auxiliary());
    add_limits(&mut facts, &certificate.limits());
    facts
}

fn request(request: &SigningRequest) -> Facts {
    let mut facts = Facts::default();
    facts.add("type", request.certificate_type.name());
    facts.add("meaning", meaning(request.certificate_type, request.delegation));
    add_delegation(&mut facts, request.delegation);
    facts.add("subject_key", Hex(&request.subject_key.0).to_string());
    facts.add("subject_key_id", request.subject_key.key_id().to_string());
    if request.certificate_type.signs_certificates() {
        add_path_len(&mut facts, request.path_len);
    }
    add_texts(&mut facts, request.description.as_deref(), &request.auxiliary);
    add_limits(&mut facts, &request.limits);
    facts
}

fn public_key(key: &PublicKey) -> Facts {
    let mut facts = Facts::default();
    facts.add("key", Hex(&key.0).to_string());
    facts.add("key_id", key.key_id().to_string());
    facts
}

/// The public half, if the key is not encrypted or its passphrase was given.
fn private_key(path: &Path, pem: &[u8], passphrase_file: Option<&Path>) -> Result<Facts, String> {
    let mut facts = Facts::default();
    let encryption = PrivateKey::encryption(pem).map_err(|error| error.to_string())?;
    let open = |passphrase: Option<&[u8]>| {
        PrivateKey::from_pem(pem, passphrase).map_err(|error| error.to_string())
    };
    let key = match (&encryption, passphrase_file) {
        (None, _) => Some(open(None)?),
        (Some(_), Some(file)) => {
            let passphrase = secret::passphrase(file).map_err(|error| error.to_string())?;
            Some(open(Some(&passphrase))?)
        }
        (Some(_), None) => None,
    };
    match encryption {
        Some(how) => facts.add("encrypted", how),
        None => facts.add("encrypted", false),
    }
    match key {
        Some(key) => facts.extend(public_key(&key.public_key())),
        None => facts.add("key_id", Fact::Absent("unknown without --passphrase-file")),
    }
    let mode = path.metadata().map_or(0, |found| found.mode() & 0o777);
    if mode & 0o077 != 0 {
        let warning =
            format!("others than its owner may use this file (mode {mode:04o}); chmod 600");
        facts.add_list("warnings", &[warning]);
    }
    Ok(facts)
}

fn program(program: &Program) -> Facts {
    let mut facts = Facts::default();
    facts.add(
        "language",
        match program.language() {
            ProgramLanguage::Ebpf => "eBPF",
            ProgramLanguage::Wasm => "WebAssembly",
        },
    );
    facts.add("encoded_len_bytes", program.encoded().len() as u64);
    facts.add("digest", Hex(program.digest()).to_string());
    // One in eBPF may be a filter, and no endpoint runs it as a monitor.
    if program.language() == ProgramLanguage::Wasm {
        match monitor_module::check(program) {
            Ok(unjudged) => {
                facts.add("can_be_monitor", true);
                let warnings: Vec<_> = unjudged.into_iter().map(Kind::unjudged).collect();
                facts.add_list("warnings", &warnings);
            }
            Err(unfit) => facts.add("can_be_monitor", format!("no: {unfit}")),
        }
    }
    facts
}

/// What the type allows, in words (spec/protocol.md 4.3).
fn meaning(kind: CertificateType, delegation: Delegation) -> &'static str {
    match (kind, delegation.exppriv, delegation.reppriv) {
        (CertificateType::Subcmd, ..) => "the subject, an endpoint, may represent the signer",
        (CertificateType::Pubcmd, ..) => {
            "the subject, a controller, may run the signer's experiments"
        }
        (CertificateType::Exppriv, ..) => {
            "the subject, an experimenter, may use the signer's endpoints"
        }
        (CertificateType::Delpriv, true, true) => {
            "the subject may hand on the signer's experiment privilege, and represent the signer"
        }
        (CertificateType::Delpriv, true, false) => {
            "the subject may use and hand on the signer's experiment privilege"
        }
        (CertificateType::Delpriv, false, _) => {
            "the subject may represent the signer, and let endpoints do so"
        }
        (CertificateType::Agent, ..) => "the subject connects to brokers and proxies under its key",
    }
}

fn add_delegation(facts: &mut Facts, delegation: Delegation) {
    let words = [(delegation.exppriv, "exppriv"), (delegation.reppriv, "reppriv")];
    let words: Vec<_> = words.iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    facts.add_list("delegates", &words);
}

fn add_path_len(facts: &mut Facts, path_len: Option<u32>) {
    match path_len {
        Some(len) => facts.add("path_len", u64::from(len)),
        None => facts.add("path_len", Fact::Absent("any number of delegations below")),
    }
}

fn add_texts(facts: &mut Facts, description: Option<&str>, auxiliary: &[Pair]) {
    if let Some(description) = description {
        facts.add("description", description);
    }
    facts.add_group("information", pairs(auxiliary));
}

fn pairs(pairs: &[Pair]) -> Facts {
    let mut facts = Facts::default();
    for pair in pairs {
        facts.add(&pair.name, pair.value.as_str());
    }
    facts
}

fn add_limits(facts: &mut Facts, found: &CertificateLimits) {
    facts.add_group("limits", limits(found));
    facts.add_list("warnings", &warnings(found));
}

fn limits(limits: &CertificateLimits) -> Facts {
    let mut facts = Facts::default();
    let monitor: Vec<_> = limits.monitor.iter().map(|digest| Hex(digest)).collect();
    facts.add_list("monitor", &monitor);
    for (name, limit) in [
        ("max_num_priority", limits.max_num_priority.map(Fact::Number)),
        ("max_socket_count", limits.max_socket_count.map(Fact::Number)),
        ("max_exp_period", limits.max_exp_period.map(Fact::Time)),
        ("max_send_byte", limits.max_send_byte.map(Fact::Number)),
        ("max_send_pkt", limits.max_send_pkt.map(Fact::Number)),
        ("max_recv_byte", limits.max_recv_byte.map(Fact::Number)),
        ("max_recv_pkt", limits.max_recv_pkt.map(Fact::Number)),
    ] {
        if let Some(limit) = limit {
            facts.add(name, limit);
        }
    }
    facts.add_list("max_burst_rate_byte", &limits.max_burst_rate_byte);
    facts.add_list("max_burst_rate_pkt", &limits.max_burst_rate_pkt);
    facts.add_list("valid_dest", &limits.valid_dest);
    if let Some(allowed) = limits.src_ip_spoofing {
        facts.add("src_ip_spoofing", allowed);
    }
    facts.add_group("own", pairs(&limits.auxiliary));
    facts
}

/// What is odd about limits that can be read.
pub(crate) fn warnings(limits: &CertificateLimits) -> Vec<String> {
    let optional = limits.optional_known_limits.iter().map(|name| {
        format!(
            "{name} is optional (*{name}): original programs crash on this, so have it issued anew"
        )
    });
    let unmatched = limits.valid_dest.iter().filter(|found| found.has_host_bits()).map(|found| {
        format!("valid_dest {found} has bits behind its prefix: original endpoints match nothing")
    });
    optional.chain(unmatched).collect()
}
