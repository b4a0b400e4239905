//! Why an operator's wish is not done.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::database_error::DatabaseError;

/// Why an operator's wish is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdministrationError {
    /// The database is not reached or refuses.
    Database(DatabaseError),
    /// The database is reached, and has said nothing for so long.
    Silent(Duration),
    /// There is no campaign of that name.
    Unknown(String),
    /// There is one of that name.
    Exists(String),
    /// A new campaign has no text for endpoints.
    NoText,
    /// A count is zero, or larger than the database keeps.
    Count,
    /// The lease is shorter or longer than one may be.
    Lease,
    /// It is to have been created later than now.
    Created,
    /// Managers are there, or were until a short time ago, which only their leases tell.
    ManagersThere {
        /// Their hosts.
        hosts: Vec<String>,
        /// Until the last of their leases has run out, if none is renewed.
        lease_left: Duration,
    },
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
    /// This user may not look at campaigns, as a manager's may not.
    NoReader,
    /// This user may not create or change campaigns; perhaps look at them.
    NoOwner,
    /// The database is too old, or does not keep text as UTF-8.
    Server(String),
    /// A result of a journal could not be read, for this reason.
    Journal(String),
}

impl fmt::Display for AdministrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Silent(silence) => write!(
                f,
                "the database is reached, and has not answered for {} s: it stands still, or waits for what \
                 pg_stat_activity and pg_locks there tell",
                silence.as_secs()
            ),
            Self::Unknown(name) => write!(f, "there is no campaign {name} in the database"),
            Self::Exists(name) => write!(
                f,
                "there is a campaign {name} already: take another name, or remove it with `forget`"
            ),
            Self::NoText => f.write_str("a campaign needs the experiment's text"),
            Self::Count => f.write_str("a number of endpoints or tries must be at least 1, and not enormous"),
            Self::Lease => f.write_str("a lease is at least a second and at most a day"),
            Self::Created => f.write_str(
                "a campaign that is to be the one that it was cannot have been created later than it is now by the \
                 database's clock: give the time that stands in run.json of its managers' folders",
            ),
            Self::ManagersThere { hosts, lease_left } => write!(
                f,
                "managers are there ({}): end each by a signal, or all for good by `stop`, and wait until they have left; \
                 one that was killed is there until its lease has run out, which takes {:.0} s at most from now",
                hosts.join(", "),
                lease_left.as_secs_f64().ceil()
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
            Self::NoReader => f.write_str(
                "this user may not look at campaigns, and a manager's role may not either: take a reader's, \
                 which is a member of pktlab_reader, or the owner's (`GRANT pktlab_reader TO ROLE` makes one)",
            ),
            Self::NoOwner => f.write_str(
                "this user may not create or change campaigns: take the role that created them and owns their tables, \
                 or for the first of all the one that owns the database",
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
        match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::NoOwner,
            _ => Self::Database(error.into()),
        }
    }
}
