//! Why TLS failed, in words, for streams of tokio-rustls, which give it wrapped into an `io::Error`.
//!
//! Not here: the words (`packetlab::tls`).

use std::io;

use packetlab::tls;

/// What a TLS stream failed with; of an error that is not of TLS, its own text.
pub fn reason(cause: &io::Error) -> String {
    let inner = cause.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or_else(|| cause.to_string(), tls::reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, Error};

    #[test]
    fn a_failure_of_tls_is_told_in_words_and_another_as_it_is() {
        let alert = Error::AlertReceived(AlertDescription::CertificateUnknown);
        let reason = |error| reason(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(reason(alert), "the peer sent the alert 46, certificate_unknown");
        let plain = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(super::reason(&plain), plain.to_string());
    }
}
