//! Who may reach the database of a campaign: its address, the password and the roots, which are in files.
//!
//! Not here: what TLS demands (the crate `campaign`).

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use campaign::{Access, Address};
use clap::Args;
use cli::secret;
use packetlab::escape::Escaped;
use packetlab_home::file;

use crate::exit::{Exit, Failure};

/// Largest file of roots.
const ROOTS_LEN_MAX: u64 = 1 << 20;

/// How the database is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessArgs {
    /// First line: the database's password
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign_password_file: Option<PathBuf>,

    /// Certificates that signed the database's
    #[arg(long, value_name = "FILE")]
    pub(crate) campaign_root: Option<PathBuf>,
}

impl AccessArgs {
    /// Reads the files; the database is at this address.
    ///
    /// # Errors
    /// A file cannot be read, or others can.
    pub(crate) fn access(&self, address: Address) -> Result<Access, Failure> {
        let password = self.campaign_password_file.as_deref().map(|path| {
            secret::passphrase(path)
                .map_err(|error| unusable("--campaign-password-file", path, &error))
        });
        let roots = self.campaign_root.as_deref().map(|path| {
            file::read(path, ROOTS_LEN_MAX)
                .map_err(|error| unusable("--campaign-root", path, &error))
        });
        Ok(Access {
            address,
            password: password.transpose()?,
            roots: roots.transpose()?.map(|roots| roots.to_vec()),
            certificate: None,
        })
    }
}

/// An address as it was typed. What is wrong with it is told without it, for it may hold a password.
///
/// # Errors
/// It names no database and campaign.
pub(crate) fn address(typed: &str) -> Result<Address, Failure> {
    typed.parse().map_err(|error| Failure::new(Exit::Usage, format!("URL#NAME: {error}")))
}

fn unusable(option: &str, path: &Path, error: &dyn Display) -> Failure {
    let shown = Escaped(path.as_os_str().as_bytes());
    Failure::new(Exit::Config, format!("{option} {shown}: {error}"))
}
