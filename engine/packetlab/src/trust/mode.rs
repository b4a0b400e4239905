//! The three kinds of chains (spec/protocol.md 4.6).
//!
//! Not here: how many certificates a chain may have (`chain_size.rs`).

use crate::certificate::{Certificate, CertificateType};

/// Who is being judged (spec/protocol.md 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustMode {
    /// A controller judges an endpoint: `subcmd`, then any number of `delpriv` of the
    /// representation kind.
    ControllerAuthenticatesEndpoint,
    /// An endpoint judges a controller: `pubcmd`, any number of `delpriv` of the experiment kind,
    /// `exppriv`.
    EndpointAuthenticatesController,
    /// Either side of a connection to broker or proxy: one `agent`.
    Agent,
}

/// One step of a chain.
pub(super) struct Phase {
    pub(super) certificate_type: CertificateType,
    /// Any number, also none, of this step's certificates may follow one another.
    pub(super) repeats: bool,
    /// The chain may be complete after a certificate of this step.
    pub(super) may_end: bool,
}

impl TrustMode {
    pub(super) fn phases(self) -> &'static [Phase] {
        use CertificateType::{Agent, Delpriv, Exppriv, Pubcmd, Subcmd};
        const fn once(certificate_type: CertificateType, may_end: bool) -> Phase {
            Phase { certificate_type, repeats: false, may_end }
        }
        const fn repeated(certificate_type: CertificateType, may_end: bool) -> Phase {
            Phase { certificate_type, repeats: true, may_end }
        }
        match self {
            Self::ControllerAuthenticatesEndpoint => {
                const { &[once(Subcmd, true), repeated(Delpriv, true)] }
            }
            Self::EndpointAuthenticatesController => {
                const { &[once(Pubcmd, false), repeated(Delpriv, false), once(Exppriv, true)] }
            }
            Self::Agent => const { &[once(Agent, true)] },
        }
    }

    pub(super) fn delegates(self, certificate: &Certificate) -> bool {
        match self {
            Self::ControllerAuthenticatesEndpoint => certificate.delegation.reppriv,
            Self::EndpointAuthenticatesController => certificate.delegation.exppriv,
            Self::Agent => false,
        }
    }
}
