//! The three kinds of chains, and what can be said of one before any certificate is decoded (spec/protocol.md 4.6).

use super::error::ChainError;
use crate::certificate::{Certificate, CertificateType};

/// Most certificates of a chain, those included that do not belong to it. Real chains have two to four
/// (spec/reliability.md 5).
pub const CERTIFICATES_MAX: usize = 10;

/// Longest message of a TLS handshake that rustls takes; the original takes 102,400 bytes.
const HANDSHAKE_MESSAGE_LEN_MAX: usize = 0xffff;

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

    fn check_count(self, count: usize) -> Result<(), ChainError> {
        let (min, max) = match self {
            Self::ControllerAuthenticatesEndpoint => (1, CERTIFICATES_MAX),
            Self::EndpointAuthenticatesController => (2, CERTIFICATES_MAX),
            Self::Agent => (1, 1),
        };
        if count < min {
            Err(ChainError::TooFew { count, min })
        } else if count > max {
            Err(ChainError::TooMany { count, max })
        } else {
            Ok(())
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

/// Checks what can be said of a chain before any certificate is decoded: how many there are, and how long they are
/// together.
///
/// # Errors
/// The count does not fit the mode, or no peer could receive a TLS Certificate message with all of them.
pub fn check_size<'a>(
    ders: impl ExactSizeIterator<Item = &'a [u8]>,
    mode: TrustMode,
) -> Result<(), ChainError> {
    /// Header of the message, length of the context, length of the list (RFC 8446 4.4.2).
    const MESSAGE_OVERHEAD: usize = 4 + 1 + 3;
    /// Lengths of a certificate and of its extensions.
    const ENTRY_OVERHEAD: usize = 3 + 2;
    mode.check_count(ders.len())?;
    let len = MESSAGE_OVERHEAD + ders.map(|der| ENTRY_OVERHEAD + der.len()).sum::<usize>();
    if len > HANDSHAKE_MESSAGE_LEN_MAX {
        return Err(ChainError::TooLong { len, max: HANDSHAKE_MESSAGE_LEN_MAX });
    }
    Ok(())
}
