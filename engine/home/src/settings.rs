//! What a home shall be like: what whoever makes one chooses.

use std::path::PathBuf;

use packetlab::address::HostPort;
use packetlab::certificate::{CertificateLimits, CertificateType, Delegation};
use packetlab::issue::CertificateFields;
use packetlab::key::PublicKey;
use packetlab::program::Program;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;

/// What a home shall be like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it will be, absolute: the config files name it.
    pub directory: PathBuf,
    /// First moment of validity of its certificates.
    pub not_before: Ticks,
    /// Last moment of validity of its certificates.
    pub not_after: Ticks,
    /// How endpoints choose the experiment; `None` is a random key at every start.
    pub snikey: Option<SniKey>,
    /// A monitor program that the experimenter's privilege demands.
    pub program: Option<ProgramFile>,
    /// To whom experiments are published; `None` publishes nothing.
    pub broker: Option<Broker>,
    /// The key that signs the proxy's certificate; without it the signature is not checked.
    pub proxy_root: Option<PublicKey>,
}

/// One or several brokers, as the config files name them.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Their addresses.
    pub addresses: Vec<HostPort>,
    /// The key that signs their certificates; without it the signature is not checked.
    pub root: Option<PublicKey>,
}

/// A program and the file that holds it.
#[derive(Debug, Clone)]
pub struct ProgramFile {
    /// Name within `progs`.
    pub name: String,
    /// Contents of the file.
    pub contents: Vec<u8>,
    /// The program in it.
    pub program: Program,
}

impl Settings {
    /// A certificate of this home's dates that says nothing but its type.
    #[must_use]
    pub fn fields(&self, certificate_type: CertificateType) -> CertificateFields {
        CertificateFields {
            certificate_type,
            delegation: Delegation::default(),
            path_len: None,
            not_before: self.not_before,
            not_after: self.not_after,
            description: None,
            auxiliary: Vec::new(),
            limits: CertificateLimits::default(),
        }
    }
}
