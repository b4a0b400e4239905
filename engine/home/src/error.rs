//! Why there is no home.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use packetlab::certificate::CertificateError;
use packetlab::escape::Escaped;
use packetlab::issue::IssueError;
use packetlab::key::KeyError;
use packetlab::request::RequestError;

/// Why there is no home.
#[derive(Debug)]
pub enum HomeError {
    /// A file or directory cannot be made.
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Something is in its place, and is not overwritten.
    Occupied(PathBuf),
    /// A path such as `..` that ends in no name.
    Nameless(PathBuf),
    /// A path that the config file cannot express.
    Inexpressible(PathBuf),
    /// A key cannot be made.
    Key(KeyError),
    /// A certificate cannot be made.
    Issue(IssueError),
    /// A request cannot be made.
    Request(RequestError),
    /// A certificate that was made cannot be read.
    Certificate(CertificateError),
}

impl HomeError {
    pub(super) fn file(path: &Path, cause: io::Error) -> Self {
        Self::File { path: path.to_owned(), cause }
    }
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| Escaped(path.as_os_str().as_encoded_bytes()).to_string();
        match self {
            Self::File { path, cause } => {
                write!(f, "cannot make the home: {}: {cause}", shown(path))
            }
            Self::Occupied(path) => write!(
                f,
                "{} is there already and is not overwritten; move it away or choose another place",
                shown(path)
            ),
            Self::Nameless(path) => {
                write!(f, "{} does not end in the name of a directory; write it out", shown(path))
            }
            Self::Inexpressible(path) => write!(
                f,
                "a config file cannot name {}; choose a path of plain text without ',', ':' and line ends",
                shown(path)
            ),
            Self::Key(cause) => write!(f, "no key can be made: {cause}"),
            Self::Issue(cause) => write!(f, "no certificate can be issued: {cause}"),
            Self::Request(cause) => write!(f, "no request can be made: {cause}"),
            Self::Certificate(cause) => write!(f, "an issued certificate is unusable: {cause}"),
        }
    }
}

impl std::error::Error for HomeError {}

impl From<KeyError> for HomeError {
    fn from(cause: KeyError) -> Self {
        Self::Key(cause)
    }
}

impl From<IssueError> for HomeError {
    fn from(cause: IssueError) -> Self {
        Self::Issue(cause)
    }
}

impl From<RequestError> for HomeError {
    fn from(cause: RequestError) -> Self {
        Self::Request(cause)
    }
}

impl From<CertificateError> for HomeError {
    fn from(cause: CertificateError) -> Self {
        Self::Certificate(cause)
    }
}
