//! What a certificate is for: its type, and what it delegates (spec/protocol.md 4.3).

use std::fmt;

/// What a certificate entitles its subject to (spec/protocol.md 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateType {
    /// An endpoint may represent its endpoint operator.
    Subcmd,
    /// A controller may run the experimenter's experiments.
    Pubcmd,
    /// Experiment privilege, given by an endpoint operator to an experimenter.
    Exppriv,
    /// Delegation of a privilege; [`Delegation`] says of which.
    Delpriv,
    /// Identity for connections to broker and proxy.
    Agent,
}

impl CertificateType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Subcmd, Self::Pubcmd, Self::Exppriv, Self::Delpriv, Self::Agent];

    /// The word of `cert_type` (spec/protocol.md 4.3).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Subcmd => "subcmd",
            Self::Pubcmd => "pubcmd",
            Self::Exppriv => "exppriv",
            Self::Delpriv => "delpriv",
            Self::Agent => "agent",
        }
    }

    /// Whether the subject may sign further certificates: `exppriv` and `delpriv`.
    #[must_use]
    pub fn signs_certificates(self) -> bool {
        matches!(self, Self::Exppriv | Self::Delpriv)
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for CertificateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a `delpriv` certificate delegates, its `del_type` (spec/protocol.md 4.3). Neither bit in all
/// other types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Delegation {
    /// The experiment privilege; not to be confused with the certificate type of that name.
    pub exppriv: bool,
    /// The right to represent an endpoint operator.
    pub reppriv: bool,
}
