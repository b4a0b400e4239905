//! Why a manager cannot be a member of a campaign.

use std::fmt;

use crate::database_error::DatabaseError;

/// Why a manager cannot be a member of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The database is not reached or refuses.
    Database(DatabaseError),
    /// There is no campaign of that name.
    Unknown(String),
    /// The campaign was created with something else; a sentence for each difference.
    Different(Vec<String>),
    /// The campaign goes on no more; how it stands.
    Ended(String),
    /// The campaign of which this manager was a member has been removed, and another of its name, or with another plan, is there.
    Another(String),
    /// The database is one for another version of the program.
    Protocol,
    /// The operating system starts no thread.
    Thread(String),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Unknown(name) => write!(f, "there is no campaign {name} in the database: create it first"),
            Self::Different(differences) => {
                write!(f, "the campaign was created with something else: {}", differences.join("; "))
            }
            Self::Another(name) => write!(
                f,
                "the campaign {name} has been removed, and another of that name is in its place: start this manager anew, \
                 with a folder of its own, to be of that one"
            ),
            Self::Ended(state) => {
                // Whoever looks may find it over by now, and why.
                let how = match state.as_str() {
                    "draining" => "was stopped",
                    "halted" => "was halted",
                    _ => "is over",
                };
                write!(f, "the campaign {how}: it takes no managers any more")
            }
            Self::Protocol => f.write_str(
                "the database's campaigns are of another version: use the same program for all managers",
            ),
            Self::Thread(why) => write!(f, "no thread for the campaign: {why}"),
        }
    }
}

impl std::error::Error for JoinError {}

impl From<DatabaseError> for JoinError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}
