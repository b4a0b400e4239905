//! Who may reach the database of a campaign: its address, and what is in files: a password, roots, a certificate with its key.
//!
//! Not here: what TLS demands (the crate `campaign`).

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use campaign::{Access, Address, ClientCertificate, ClientCertificateError, DatabaseError, Roots};
use clap::Args;
use cli::secret;
use packetlab::escape::Escaped;
use packetlab_home::file;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// Largest file of certificates.
const CERTIFICATES_LEN_MAX: u64 = 1 << 20;

const PASSWORD: &str = "--campaign-password-file";

/// How the database is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessArgs {
    /// First line: the database's password
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign_password_file: Option<PathBuf>,

    /// Certificates that signed the database's
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign_root: Option<PathBuf>,

    /// Certificate that the database is shown
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign_cert: Option<PathBuf>,

    /// The private key of that certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign_key: Option<PathBuf>,
}

impl AccessArgs {
    /// Reads the files; the database is at this address.
    ///
    /// # Errors
    /// A file cannot be read, or others can; a password is empty; a certificate has no key, or a key no certificate.
    pub(crate) fn access(&self, address: Address) -> Result<Access, Failure> {
        Ok(Access {
            password: self.password()?,
            roots: self.roots(&address)?,
            certificate: self.certificate()?,
            address,
        })
    }

    fn password(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let Some(path) = self.campaign_password_file.as_deref() else {
            return Ok(None);
        };
        let read = secret::read(path).map(file::first_line);
        let password = read.map_err(|error| unusable(PASSWORD, path, &error))?;
        match password.is_empty() {
            true => Err(unusable(PASSWORD, path, &"its first line is empty")),
            false => Ok(Some(password)),
        }
    }

    fn roots(&self, address: &Address) -> Result<Option<Roots>, Failure> {
        let Some(path) = self.campaign_root.as_deref() else {
            let problem = "over the network the database must prove who it is: give --campaign-root FILE, with the \
                           certificate that has signed the database's";
            return match address.needs_tls() {
                true => Err(Failure::new(Exit::Usage, problem)),
                false => Ok(None),
            };
        };
        let roots = Roots::from_pem(&certificates("--campaign-root", path)?);
        roots.map(Some).map_err(|error| unusable("--campaign-root", path, &error))
    }

    fn certificate(&self) -> Result<Option<ClientCertificate>, Failure> {
        let (cert, key) = match (self.campaign_cert.as_deref(), self.campaign_key.as_deref()) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return Ok(None),
            _ => {
                let problem = "the database is shown a certificate by whoever has its key";
                let both = format!("--campaign-cert and --campaign-key go together: {problem}");
                return Err(Failure::new(Exit::Usage, both));
            }
        };
        let chain = certificates("--campaign-cert", cert)?;
        let pem = secret::read(key).map_err(|error| unusable("--campaign-key", key, &error))?;
        let certificate = ClientCertificate::from_pem(&chain, &pem);
        certificate.map(Some).map_err(|error| match &error {
            ClientCertificateError::Certificate(_) => unusable("--campaign-cert", cert, &error),
            ClientCertificateError::Key(_) | ClientCertificateError::Mismatch => {
                unusable("--campaign-key", key, &error)
            }
        })
    }
}

fn certificates(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let read = file::read(path, CERTIFICATES_LEN_MAX);
    read.map(|pem| pem.to_vec()).map_err(|error| unusable(option, path, &error))
}

/// An address as it was typed. What is wrong with it is told without it, for it may hold a password.
///
/// # Errors
/// It names no database and campaign.
pub(crate) fn address(typed: &str) -> Result<Address, Failure> {
    typed.parse().map_err(|error| Failure::new(Exit::Usage, format!("URL#NAME: {error}")))
}

/// What keeps us from the database, with the option that helps.
pub(crate) fn shown(error: &DatabaseError) -> String {
    match error {
        DatabaseError::NoPassword => format!("{error}: {PASSWORD} FILE"),
        _ => Escaped(error.to_string().as_bytes()).to_string(),
    }
}

fn unusable(option: &str, path: &Path, error: &dyn Display) -> Failure {
    let shown = Escaped(path.as_os_str().as_bytes());
    Failure::new(Exit::Config, format!("{option} {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_for_a_password_is_told_how_to_give_one() {
        let told = shown(&DatabaseError::NoPassword);
        let expected =
            "the database asks for a password, and none is given: --campaign-password-file FILE";
        assert_eq!(told, expected);
    }
}
