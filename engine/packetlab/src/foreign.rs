//! Files that hold keys or certificates in forms that PacketLab does not read: what they are, and the
//! command that converts them.
//!
//! Not here: reading them. Nothing is decided by this but the words of an error, so a guess by the
//! first few elements is good enough.

use std::fmt;

use super::strict_der::{BIT_STRING, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE};

/// What some editors put in front of text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A form that is known and not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    what: &'static str,
    cure: Cure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cure {
    /// A command with FILE and NEW for the names.
    Convert(&'static str),
    /// As before, for its key and for its certificate.
    TakeOut { key: &'static str, certificate: &'static str },
    /// Converted it still is no Ed25519 key.
    ConvertInVain(&'static str),
    /// Nothing converts it.
    MakeAnew,
}

impl Foreign {
    /// What it is, in words, for somebody who does not want it converted.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}; ", self.what)?;
        match self.cure {
            Cure::Convert(command) => write!(f, "`{command}` converts it"),
            Cure::TakeOut { key, certificate } => {
                write!(f, "`{key}` takes out its key, `{certificate}` its certificate")
            }
            Cure::ConvertInVain(command) => write!(
                f,
                "`{command}` converts it, but PacketLab uses Ed25519 keys alone: `pktcred key NAME` \
                 makes one"
            ),
            Cure::MakeAnew => f.write_str(
                "openssl cannot read it, nor does PacketLab: `pktcred key NAME` makes a key",
            ),
        }
    }
}

/// Sections by the beginnings of their labels.
const SECTIONS: [(&[u8], Foreign); 10] = [
    (
        b"-----BEGIN TRUSTED CERTIFICATE",
        Foreign {
            what: "a certificate with trust settings of openssl (TRUSTED CERTIFICATE)",
            cure: Cure::Convert("openssl x509 -in FILE -out NEW"),
        },
    ),
    (
        b"-----BEGIN X509 CERTIFICATE",
        Foreign {
            what: "a certificate under an old name (X509 CERTIFICATE)",
            cure: Cure::Convert("openssl x509 -in FILE -out NEW"),
        },
    ),
    (
        b"-----BEGIN NEW CERTIFICATE REQUEST",
        Foreign {
            what: "a signing request under an old name (NEW CERTIFICATE REQUEST)",
            cure: Cure::Convert("openssl req -in FILE -out NEW"),
        },
    ),
    (
        b"-----BEGIN PKCS7",
        Foreign {
            what: "a PKCS#7 bundle of certificates",
            cure: Cure::Convert("openssl pkcs7 -in FILE -print_certs -out NEW"),
        },
    ),
    (
        b"-----BEGIN RSA PRIVATE KEY",
        Foreign {
            what: "a traditional RSA key (RSA PRIVATE KEY)",
            cure: Cure::ConvertInVain("openssl pkcs8 -topk8 -in FILE -out NEW"),
        },
    ),
    (
        b"-----BEGIN EC PRIVATE KEY",
        Foreign {
            what: "a traditional key on a Weierstrass curve (EC PRIVATE KEY)",
            cure: Cure::ConvertInVain("openssl pkcs8 -topk8 -in FILE -out NEW"),
        },
    ),
    (
        b"-----BEGIN DSA PRIVATE KEY",
        Foreign {
            what: "a traditional DSA key (DSA PRIVATE KEY)",
            cure: Cure::ConvertInVain("openssl pkcs8 -topk8 -in FILE -out NEW"),
        },
    ),
    (
        b"-----BEGIN RSA PUBLIC KEY",
        Foreign {
            what: "a traditional public RSA key (RSA PUBLIC KEY)",
            cure: Cure::ConvertInVain("openssl rsa -RSAPublicKey_in -in FILE -pubout -out NEW"),
        },
    ),
    (
        b"-----BEGIN OPENSSH PRIVATE KEY",
        Foreign { what: "a private key of OpenSSH", cure: Cure::MakeAnew },
    ),
    (b"ssh-", Foreign { what: "a public key of OpenSSH", cure: Cure::MakeAnew }),
];

const UTF_16: Foreign =
    Foreign { what: "text in UTF-16", cure: Cure::Convert("iconv -f UTF-16 -t UTF-8 FILE > NEW") };
const PKCS12: Foreign = Foreign {
    what: "a PKCS#12 file",
    cure: Cure::TakeOut {
        key: "openssl pkcs12 -in FILE -nocerts -out NEW",
        certificate: "openssl pkcs12 -in FILE -nokeys -out NEW",
    },
};
const PKCS7: Foreign = Foreign {
    what: "a PKCS#7 bundle of certificates in DER, not PEM",
    cure: Cure::Convert("openssl pkcs7 -inform DER -in FILE -print_certs -out NEW"),
};
const CERTIFICATE: Foreign = Foreign {
    what: "a certificate in DER, not PEM",
    cure: Cure::Convert("openssl x509 -inform DER -in FILE -out NEW"),
};
const REQUEST: Foreign = Foreign {
    what: "a signing request in DER, not PEM",
    cure: Cure::Convert("openssl req -inform DER -in FILE -out NEW"),
};
const PRIVATE_KEY: Foreign = Foreign {
    what: "a private key in DER, not PEM",
    cure: Cure::Convert("openssl pkey -inform DER -in FILE -out NEW"),
};
const ENCRYPTED_KEY: Foreign = Foreign {
    what: "an encrypted private key in DER, not PEM",
    cure: Cure::Convert("openssl pkcs8 -topk8 -inform DER -in FILE -out NEW"),
};
const PUBLIC_KEY: Foreign = Foreign {
    what: "a public key in DER, not PEM",
    cure: Cure::Convert("openssl pkey -pubin -inform DER -in FILE -out NEW"),
};
const TRADITIONAL_KEY: Foreign = Foreign {
    what: "a traditional RSA or EC key in DER",
    cure: Cure::ConvertInVain("openssl pkcs8 -topk8 -inform DER -in FILE -out NEW"),
};

/// What a file is, if it is in a known form that is not read.
#[must_use]
pub fn recognise(file: &[u8]) -> Option<Foreign> {
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Some(UTF_16);
    }
    // Without its mark: the five dashes of a section, or the letters of a key's name.
    if file.starts_with(b"-\0-\0") || file.starts_with(b"\0-\0-") {
        return Some(UTF_16);
    }
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    if file.first() == Some(&SEQUENCE) {
        return by_elements(file);
    }
    file.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii).find_map(|line| {
        let (_, found) = SECTIONS.iter().find(|(start, _)| line.starts_with(start))?;
        Some(*found)
    })
}

/// By the tags of its first elements. Each form has one among them that no text has: a program may
/// begin with the digit 0, which is the tag of a SEQUENCE.
fn by_elements(file: &[u8]) -> Option<Foreign> {
    const PKCS7_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
    let (_, inside, _) = element(file)?;
    let (first, within_first, rest) = element(inside)?;
    let second = element(rest).map(|(tag, ..)| tag);
    Some(match (first, second) {
        (INTEGER, Some(SEQUENCE)) if within_first == [3] => PKCS12,
        (INTEGER, Some(SEQUENCE)) => PRIVATE_KEY,
        (INTEGER, Some(INTEGER | OCTET_STRING)) => TRADITIONAL_KEY,
        (OBJECT_ID, _) if within_first.starts_with(PKCS7_DATA) => PKCS7,
        (SEQUENCE, Some(OCTET_STRING)) => ENCRYPTED_KEY,
        (SEQUENCE, Some(BIT_STRING)) => PUBLIC_KEY,
        (SEQUENCE, Some(SEQUENCE)) => match element(within_first)? {
            (0xa0, ..) => CERTIFICATE,
            // A name follows; in a certificate without a version an algorithm would.
            (INTEGER, _, rest) if element(rest)?.1.first() != Some(&OBJECT_ID) => REQUEST,
            (INTEGER, ..) => CERTIFICATE,
            _ => return None,
        },
        _ => return None,
    })
}

/// Tag, content and what follows, as far as there is any of it.
fn element(ber: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = ber.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        0x80 => (rest.len(), rest),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = digits.iter().fold(0_usize, |len, byte| {
                len.saturating_mul(0x100).saturating_add(usize::from(*byte))
            });
            (len, rest)
        }
    };
    let (content, rest) = rest.split_at(len.min(rest.len()));
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests;
