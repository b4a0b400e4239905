//! The controller key, which may take a passphrase.
//!
//! Not here: whose secret files are taken, and the prompt (`cli::secret`).

use std::path::PathBuf;
use std::sync::Arc;

use cli::prompt::PromptError;
use cli::secret::{KeyFile, SecretError};
use nix::sys::signal::Signal;
use packetlab::key::{KeyError, PrivateKey};

use super::{Loader, Purpose};
use crate::conf::Located;
use crate::exit::{Exit, Failure};
use crate::init_system;

impl Loader<'_> {
    /// That others may use its file is a finding of its own: for a check the key is read nevertheless.
    pub(super) fn controller_key(
        &mut self,
        path: &Located<PathBuf>,
    ) -> Result<Option<Arc<PrivateKey>>, Failure> {
        let file = KeyFile::read(&path.value).map_err(|error| self.key_failure(path, &error));
        let Some(mut file) = self.findings.keep(file) else { return Ok(None) };
        for refusal in file.take_refusals() {
            self.findings.add(self.key_failure(path, &refusal));
        }
        if self.has_failed() {
            return Ok(None);
        }
        if let Some(key) = self.kept.key_of(&file) {
            return Ok(Some(key));
        }
        let passphrase_file =
            self.args.passphrase_file.clone().or_else(init_system::passphrase_file);
        if self.purpose == Purpose::Reload && passphrase_file.is_none() && file.is_encrypted() {
            let problem = "the controller key is encrypted, and not the one of the start";
            let advice = "a reload asks nobody for its passphrase; give that with --passphrase-file, or as \
                          the credential `passphrase` of the service";
            self.findings.add(self.fail(&path.complain(problem, advice)));
            return Ok(None);
        }
        let key = file.open(passphrase_file.as_deref());
        match key.map_err(|error| self.key_failure(path, &error)) {
            Err(signal) if signal.exit != Exit::Config => Err(signal),
            key => {
                let key = self.findings.keep(key).map(Arc::new);
                if let Some(key) = &key {
                    self.kept.keep_key(file, key);
                }
                Ok(key)
            }
        }
    }

    fn key_failure(&self, path: &Located<PathBuf>, error: &SecretError) -> Failure {
        let exit = match error {
            SecretError::Prompt(PromptError::Interrupted(Signal::SIGINT)) => Exit::Interrupted,
            SecretError::Prompt(PromptError::Interrupted(_)) => Exit::Terminated,
            _ => Exit::Config,
        };
        let problem = format!("the controller key cannot be used: {error}");
        if error.is_of_the_passphrase() {
            let hint = match error {
                SecretError::Prompt(PromptError::NoTerminal(_)) => {
                    "; give it with --passphrase-file"
                }
                _ => "",
            };
            return Failure::new(exit, problem + hint);
        }
        let advice = match error {
            SecretError::Key(KeyError::WrongPassphrase) => {
                "try again; of --passphrase-file the first line counts, blanks included"
            }
            _ => "ControllerPrivkeyPath is a PKCS#8 PEM file with an Ed25519 key, encrypted or not",
        };
        Failure::new(exit, self.source.with_caret(&path.complain(problem, advice)))
    }
}
