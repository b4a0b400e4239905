//! PacketLab's messages, keys, certificates and rules of trust, and TLS as it uses it: what a program needs to be an
//! endpoint, a controller, a broker or a tool, and nothing that runs one.
//!
//! Pure: no socket, no clock, no thread, no file. Whoever uses it brings the bytes and the time.
//!
//! Without the feature `credentials`, which is on by default, there are messages and what they hold, and no dependency:
//! enough for a mlet, which leaves keys, certificates, trust and TLS to its manager.
//!
//! # Messages
//!
//! A stream of messages (spec/protocol.md 1.1), as an endpoint might read it:
//!
//! ```
//! use packetlab::frame::Framer;
//! use packetlab::message::Message;
//! use packetlab::time::Ticks;
//!
//! let mut framer = Framer::new(1 << 16);
//! framer.push(b"\x23\0\0\x08\0\0\0\0\0\0\0\x07\x21\0"); // YIELD, and the front of a START
//! let (message_type, payload) = framer.next()?.expect("one is whole");
//! assert_eq!(Message::decode(message_type, payload), Message::Yield { resume: Ticks(7) });
//! assert!(framer.next()?.is_none());
//! # Ok::<(), packetlab::frame::FrameError>(())
//! ```
//!
//! # Chains
//!
//! An endpoint operator lets an endpoint represent it, and a controller that trusts the operator believes that endpoint
//! (spec/protocol.md 4.6):
//!
//! ```
//! use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
//! use packetlab::issue::{CertificateFields, issue};
//! use packetlab::key::PrivateKey;
//! use packetlab::time::Ticks;
//! use packetlab::trust::{TrustMode, verify_chain};
//!
//! let (operator, endpoint) = (PrivateKey::generate()?, PrivateKey::generate()?);
//! let fields = CertificateFields {
//!     certificate_type: CertificateType::Subcmd,
//!     delegation: Delegation::default(),
//!     path_len: None,
//!     not_before: Ticks(0),
//!     not_after: Ticks::MAX,
//!     description: Some("an endpoint in a library".into()),
//!     auxiliary: Vec::new(),
//!     limits: CertificateLimits::default(),
//! };
//! let der = issue(&fields, &endpoint.public_key(), &operator)?;
//! let chain = [Certificate::from_der(&der)?];
//!
//! let (mode, now) = (TrustMode::ControllerAuthenticatesEndpoint, Ticks(1_700_000_000_000_000_000));
//! let verified = verify_chain(&chain, &[operator.public_key()], mode, now)?;
//! assert_eq!(verified.root_key_id(), Some(operator.public_key().key_id()));
//!
//! let stranger = PrivateKey::generate()?;
//! assert!(verify_chain(&chain, &[stranger.public_key()], mode, now).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod address;
#[cfg(feature = "credentials")]
pub mod certificate;
pub mod channel;
pub mod cut;
pub mod escape;
#[cfg(feature = "credentials")]
pub mod foreign;
pub mod frame;
#[cfg(feature = "credentials")]
pub mod issue;
#[cfg(feature = "credentials")]
pub mod key;
pub mod message;
pub mod name_value;
#[cfg(feature = "credentials")]
pub mod pem;
pub mod program;
#[cfg(feature = "credentials")]
pub mod record;
#[cfg(feature = "credentials")]
pub mod request;
pub mod snikey;
#[cfg(feature = "credentials")]
pub mod strict_der;
pub mod time;
#[cfg(feature = "credentials")]
pub mod tls;
#[cfg(feature = "credentials")]
pub mod trust;
pub mod words;

// So that `golden` reads the same here and in the tests of the engine.
#[cfg(test)]
extern crate self as packetlab;
#[cfg(test)]
#[path = "../../testdata/golden.rs"]
pub(crate) mod golden;
