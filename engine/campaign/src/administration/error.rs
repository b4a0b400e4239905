//! Why an operator's wish is not done.

use std::fmt;

use crate::database_error::DatabaseError;

/// Why an operator's wish is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdministrationError {
    /// The database is not reached or refuses.
    Database(DatabaseError),
    /// There is no campaign of that name.
    Unknown(String),
    /// There is one of that name.
    Exists(String),
    /// A new campaign has no text for endpoints.
    NoText,
    /// A count is zero, or larger than the database keeps.
    Count,
    /// The lease is shorter than a second.
    Lease,
    /// Managers are there; their hosts.
    ManagersThere(Vec<String>),
    /// The tables are of a newer program.
    NewerSchema {
        /// The version of the tables.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// The tables are of an older program.
    OlderSchema {
        /// The version of the tables.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// The roles of managers and readers are not there, and this user may not make them.
    Roles,
    /// The database is too old, or does not keep text as UTF-8.
    Server(String),
    /// A result of a journal could not be read, for this reason.
    Journal(String),
}

impl fmt::Display for AdministrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Unknown(name) => write!(f, "there is no campaign {name} in the database"),
            Self::Exists(name) => write!(
                f,
                "there is a campaign {name} already: take another name, or remove it with `forget`"
            ),
            Self::NoText => f.write_str("a campaign needs the experiment's text"),
            Self::Count => f.write_str("a number of endpoints or tries must be at least 1, and not enormous"),
            Self::Lease => f.write_str("a lease must be at least a second"),
            Self::ManagersThere(hosts) => write!(
                f,
                "managers are there ({}): stop the campaign first, and wait until they have left",
                hosts.join(", ")
            ),
            Self::NewerSchema { found, known } => write!(
                f,
                "the tables of campaigns are of version {found}, and this program knows {known}: \
                 use a newer program"
            ),
            Self::OlderSchema { found, known } => write!(
                f,
                "the tables of campaigns are of version {found}, and this program needs {known}: \
                 creating a campaign brings them there"
            ),
            Self::Roles => f.write_str(
                "the roles pktlab_manager and pktlab_reader are missing, and this user may not make them: \
                 let an administrator of the database run \
                 `CREATE ROLE pktlab_manager NOLOGIN; CREATE ROLE pktlab_reader NOLOGIN`",
            ),
            Self::Server(why) | Self::Journal(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for AdministrationError {}

impl From<DatabaseError> for AdministrationError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl From<tokio_postgres::Error> for AdministrationError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}
