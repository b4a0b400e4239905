//! Where things are: the home, what is looked for in it, and where results go.
//!
//! A name on the command line is a path; one without a slash that is no file here is looked for in
//! the home.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use cli::secret;
use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::program::{Program, ProgramLanguage};
use packetlab_home::{self as home, CERTIFICATES, KEYS, file};
use zeroize::Zeroizing;

use crate::failure::{Failure, print, shown};

/// Largest file: a program of two million eBPF instructions with some comment stays below it.
const FILE_LEN_MAX: u64 = 128 << 20;

/// The home.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The home, where names without a slash are looked for [default: ~/.pktlab]
    #[arg(long, value_name = "DIR", global = true)]
    home: Option<PathBuf>,
}

impl Place {
    /// The home's directory, which need not exist.
    pub(crate) fn home(&self) -> Result<PathBuf, Failure> {
        match (&self.home, std::env::var_os("HOME")) {
            (Some(home), _) => Ok(home.clone()),
            (None, Some(home)) => {
                // Appended, not joined: an empty HOME means /.pktlab, as for pktxpmgr.
                let mut path: OsString = home;
                path.push("/.pktlab");
                Ok(path.into())
            }
            (None, None) => Err(Failure::usage("HOME is not set; say where with --home")),
        }
    }

    /// The path meant by `name`, which may lie in this folder of the home.
    pub(crate) fn find(&self, folder: &str, name: &Path) -> Result<PathBuf, Failure> {
        let is_name = name.components().count() == 1 && name.file_name().is_some();
        if name.exists() || !is_name {
            return Ok(name.to_owned());
        }
        let within = self.home()?.join(folder).join(name);
        if within.exists() {
            return Ok(within);
        }
        Err(Failure::of_file(name, format!("no such file here, nor as {}", shown(&within))))
    }

    /// A private key, by path or by its name in the home.
    pub(crate) fn private_key(
        &self,
        name: &Path,
        passphrase_file: Option<&Path>,
    ) -> Result<PrivateKey, Failure> {
        let path = self.find(KEYS, name)?;
        secret::private_key(&path, passphrase_file)
            .map_err(|error| Failure::of_secret(&path, &error))
    }

    /// The one public key of a file, by path or by its name in the home.
    pub(crate) fn public_key(&self, name: &Path) -> Result<PublicKey, Failure> {
        let path = self.find(KEYS, name)?;
        PublicKey::from_pem(&read(&path)?).map_err(|error| Failure::of_file(&path, error))
    }

    /// Every public key of a file, by path or by its name in the home.
    pub(crate) fn public_keys(&self, name: &Path) -> Result<Vec<PublicKey>, Failure> {
        let path = self.find(KEYS, name)?;
        PublicKey::list_from_pem(&read(&path)?).map_err(|error| Failure::of_file(&path, error))
    }

    /// Every certificate of a file, by path or by its name in the home.
    pub(crate) fn certificates(&self, name: &Path) -> Result<Vec<Certificate>, Failure> {
        let path = self.find(CERTIFICATES, name)?;
        Certificate::list_from_pem(&read(&path)?).map_err(|error| Failure::of_file(&path, error))
    }

    /// A program, by path or by its name in the home.
    pub(crate) fn program(&self, name: &Path) -> Result<Program, Failure> {
        let path = self.find(home::PROGRAMS, name)?;
        program(&path, &read(&path)?).map_err(|problem| Failure::of_file(&path, problem))
    }
}

/// A program from the contents of its file.
pub(crate) fn program(path: &Path, contents: &[u8]) -> Result<Program, String> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let language = ProgramLanguage::from_file_name(name).map_err(|_| {
        "not a program by its name; eBPF text ends in .ebpf or has no suffix, WebAssembly in .wasm"
    })?;
    Program::from_file(language, contents).map_err(|error| error.to_string())
}

/// Reads a file that may hold a secret.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    contents(path).map_err(|error| Failure::of_file(path, error))
}

/// The same, for who names the file himself.
pub(crate) fn contents(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    file::read(path, FILE_LEN_MAX)
}

/// Where a result goes.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write to this file, which must not exist [default: standard output]
    #[arg(short = 'o', long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Output {
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
        match &self.out {
            Some(path) => create(path, text.as_bytes()),
            None => print(text),
        }
    }
}

/// Makes a file for its owner alone; an existing one is never overwritten.
pub(crate) fn create(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    file::create(path, contents).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::of_file(path, "exists already and is not overwritten")
        }
        _ => Failure::of_file(path, format!("cannot be written: {error}")),
    })
}
