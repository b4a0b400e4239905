//! How many certificates a chain may have, and how long they may be together: what can be said of one before any
//! certificate is decoded.

use guards::{Guard, holds};

use super::error::ChainError;
use super::mode::TrustMode;

/// Most certificates of a chain, those included that do not belong to it. Real chains have two to four
/// (spec/reliability.md 5).
pub const CERTIFICATES_MAX: usize = 10;

/// Longest message of a TLS handshake that rustls takes; the original takes 102,400 bytes.
const HANDSHAKE_MESSAGE_LEN_MAX: usize = 0xffff;

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
    check_count(mode, ders.len())?;
    let len = MESSAGE_OVERHEAD + ders.map(|der| ENTRY_OVERHEAD + der.len()).sum::<usize>();
    if len > HANDSHAKE_MESSAGE_LEN_MAX {
        return Err(ChainError::TooLong { len, max: HANDSHAKE_MESSAGE_LEN_MAX });
    }
    Ok(())
}

fn check_count(mode: TrustMode, count: usize) -> Result<(), ChainError> {
    let (min, max) = match mode {
        TrustMode::ControllerAuthenticatesEndpoint => (1, CERTIFICATES_MAX),
        TrustMode::EndpointAuthenticatesController => (2, CERTIFICATES_MAX),
        TrustMode::Agent => (1, 1),
    };
    if count < min {
        Err(ChainError::TooFew { count, min })
    } else if count > max && holds(Guard::BoundsChain) {
        Err(ChainError::TooMany { count, max })
    } else {
        Ok(())
    }
}
