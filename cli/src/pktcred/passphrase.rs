//! Passphrases of keys that are to be made.
//!
//! Not here: opening existing keys (`cli::secret`).

use std::path::{Path, PathBuf};

use clap::Args;
use cli::prompt::{self, PromptError};
use cli::secret::{self, SecretError};
use packetlab::escape::Escaped;
use zeroize::Zeroizing;

use crate::failure::{Failure, note};

/// How new keys are protected.
#[derive(Debug, Args)]
pub(crate) struct NewPassphrase {
    /// Do not encrypt
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
    /// Its first line is the passphrase [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl NewPassphrase {
    /// One passphrase for each of these keys; `None` leaves the key unencrypted.
    pub(crate) fn obtain(&self, keys: &[&str]) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, Failure> {
        if self.no_passphrase {
            return Ok(keys.iter().map(|_| None).collect());
        }
        if let Some(file) = &self.passphrase_file {
            let passphrase =
                secret::passphrase(file).map_err(|error| Failure::of_secret(file, &error))?;
            if passphrase.is_empty() {
                let problem = "its first line is empty; --no-passphrase makes keys without one";
                return Err(Failure::of_file(file, problem));
            }
            return Ok(keys.iter().map(|_| Some(passphrase.clone())).collect());
        }
        keys.iter().map(|key| ask(key)).collect()
    }
}

/// Asks until the same was typed twice. Nothing typed means no passphrase.
fn ask(key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let shown = Escaped(key.as_bytes()).to_string();
    let ask = |question: String| {
        prompt::ask(&question).map_err(|error| match error {
            PromptError::NoTerminal(cause) => Failure::unusable(format!(
                "there is no terminal to ask for the passphrase of {shown} ({cause}); \
                 give --passphrase-file or --no-passphrase"
            )),
            error => Failure::of_secret(Path::new(key), &SecretError::Prompt(error)),
        })
    };
    loop {
        let first = ask(format!("New passphrase for {shown} (nothing for none): "))?;
        if first.is_empty() {
            return Ok(None);
        }
        if *first == *ask(format!("The same again for {shown}: "))? {
            return Ok(Some(first));
        }
        note("These were two different ones; try again.");
    }
}
