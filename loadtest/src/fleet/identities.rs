//! The identities of a fleet in a directory, so that one that is started again has the same endpoints.
//!
//! ```text
//! DIR/identities.pem   of each endpoint, the first first: its private key, its agent certificate, its operator's
//! ```
//!
//! Not here: what an identity is (`hosts::home`), and the endpoints' addresses and attributes, which are options. Invariant:
//! the file is replaced whole, and read by one fleet at a time; one that holds anything else is left as it is.

use std::fs::{DirBuilder, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use packetlab::key::PrivateKey;
use packetlab::pem::{Section, sections};
use packetlab_home::file;
use zeroize::Zeroizing;

use hosts::home::EndpointIdentity;
use hosts::hosting::HostError;

const NAME: &str = "identities.pem";
/// Largest file that is read: a hundred thousand identities.
const LEN_MAX: u64 = 256 << 20;

/// The directory, for one fleet alone as long as this lives.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    _hold: Flock<File>,
}

impl Kept {
    /// Opens a directory, or makes one.
    ///
    /// # Errors
    /// It cannot be made, or another fleet has it.
    pub(super) fn open(directory: &Path) -> Result<Self, HostError> {
        let shown = directory.display();
        let refused = |cause: io::Error| io::Error::other(format!("--identities {shown}: {cause}"));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        let folder = made.and_then(|()| File::open(directory)).map_err(refused)?;
        let hold = Flock::lock(folder, FlockArg::LockExclusiveNonblock);
        let hold = hold.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => HostError::Kept(format!(
                "--identities {shown}: another fleet runs with these; name another directory"
            )),
            errno => refused(errno.into()).into(),
        })?;
        Ok(Self { path: directory.join(NAME), _hold: hold })
    }

    /// The first endpoints, at these addresses: those that are kept, and new ones of `operator` if there are more
    /// addresses, which are kept from now on. How many are new.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub(super) fn identities(
        &self,
        addresses: impl ExactSizeIterator<Item = IpAddr>,
        operator: &PrivateKey,
    ) -> Result<(Vec<EndpointIdentity>, usize), HostError> {
        let file = self.read()?;
        let kept = self.sections(file.as_deref().map(Vec::as_slice))?;
        let operators = [operator.public_key()];
        let mut all = Vec::with_capacity(addresses.len());
        for (index, address) in addresses.enumerate() {
            all.push(match kept.get(index) {
                Some(pem) => EndpointIdentity::from_pem(address, *pem, &operators)
                    .map_err(|error| self.broken(&format!("endpoint {}: {error}", index + 1)))?,
                None => EndpointIdentity::new(address, operator)
                    .map_err(|error| HostError::Usage(error.to_string()))?,
            });
        }
        let new = all.get(kept.len()..).unwrap_or_default();
        let new_count = new.len();
        if !new.is_empty() {
            self.write(file.as_deref().map_or(&[], Vec::as_slice), new)?;
        }
        Ok((all, new_count))
    }

    /// What is in the file; nothing if there is none.
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, HostError> {
        let opened = match file::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened,
        };
        let read = opened.and_then(|file| {
            let len = file.metadata()?.len().min(LEN_MAX);
            // One more byte than it has, to see its end.
            file::read_secret(file.into(), usize::try_from(len).unwrap_or(usize::MAX) + 1)
        });
        let shown = self.path.display();
        read.map(Some).map_err(|error| HostError::Kept(format!("{shown}: {error}")))
    }

    /// The sections of each endpoint.
    fn sections<'f>(&self, file: Option<&'f [u8]>) -> Result<Vec<[Section<'f>; 3]>, HostError> {
        let Some(file) = file else { return Ok(Vec::new()) };
        let sections = sections(file);
        let (endpoints, rest) = sections.as_chunks::<3>();
        if endpoints.is_empty() || !rest.is_empty() {
            return Err(
                self.broken("it does not hold a key and two certificates for each endpoint")
            );
        }
        Ok(endpoints.to_vec())
    }

    fn write(&self, before: &[u8], new: &[EndpointIdentity]) -> Result<(), HostError> {
        let new: Vec<_> = new.iter().map(EndpointIdentity::to_pem).collect();
        // Room for all at once: growing would leave copies behind that nobody wipes.
        let len = before.len() + new.iter().map(|pem| pem.len()).sum::<usize>();
        let mut contents = Zeroizing::new(Vec::with_capacity(len));
        contents.extend_from_slice(before);
        new.iter().for_each(|pem| contents.extend_from_slice(pem.as_bytes()));
        file::put(&self.path, &contents).map_err(|cause| {
            let shown = self.path.display();
            io::Error::other(format!("{shown}: the identities cannot be kept: {cause}")).into()
        })
    }

    fn broken(&self, problem: &str) -> HostError {
        let shown = self.path.display();
        HostError::Kept(format!(
            "{shown}: these are no identities of this operator's fleet: {problem}; name another directory for \
             --identities"
        ))
    }
}
