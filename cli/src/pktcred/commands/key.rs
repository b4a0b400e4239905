//! `pktcred key`: a key pair.

use std::path::PathBuf;

use clap::Args;
use packetlab::key::PrivateKey;
use packetlab_home::KEYS;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure, print, shown};
use crate::files::{self, Place};
use crate::passphrase::NewPassphrase;

const EXAMPLES: &str = "\
Examples:
  pktcred key k_ep2                   ~/.pktlab/keys/k_ep2 and k_ep2.pub
  pktcred key broker --dir . --no-passphrase";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// Name of the private key file; the public key gets the suffix .pub
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to put both files [default: the home's folder of keys]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    passphrase: NewPassphrase,
}

pub(crate) fn run(options: &Options, place: &Place) -> Result<Exit, Failure> {
    let name = &options.name;
    if name.contains('/') || name.starts_with('.') || name.is_empty() {
        return Err(Failure::usage("NAME is a plain file name; --dir says where to put it"));
    }
    let directory = match &options.dir {
        Some(directory) => directory.clone(),
        None => place.home()?.join(KEYS),
    };
    let (private, public) = (directory.join(name), directory.join(format!("{name}.pub")));
    // Better before the user has thought of a passphrase.
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::of_file(path, "exists already and is not overwritten"));
        }
    }
    let passphrase = options.passphrase.obtain(&[name])?.pop().flatten();
    let key = PrivateKey::generate().map_err(Failure::unusable)?;
    let pem = match passphrase {
        Some(passphrase) => {
            Zeroizing::new(key.to_encrypted_pem(&passphrase).map_err(Failure::unusable)?)
        }
        None => key.to_pem(),
    };
    files::create(&private, pem.as_bytes())?;
    if let Err(failure) = files::create(&public, key.public_key().to_pem().as_bytes()) {
        // Half a pair is of no use.
        let _ = std::fs::remove_file(&private);
        return Err(failure);
    }
    let key_id = key.public_key().key_id();
    print(&format!("{} and {} written; key id {key_id}\n", shown(&private), shown(&public)))?;
    Ok(Exit::Success)
}
