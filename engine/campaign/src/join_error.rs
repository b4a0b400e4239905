//! Why a manager cannot be a member of a campaign.

use std::fmt;

use crate::address::Address;
use crate::database_error::DatabaseError;
use crate::plan::Plan;
use crate::statements::Entered;

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
    /// The database is one for another version of the program.
    Protocol,
    /// The operating system starts no thread.
    Thread(String),
}

impl JoinError {
    /// What an answer to `enter` that is no entry means.
    pub(crate) fn of(entered: &Entered, ours: &Plan, address: &Address) -> Self {
        match entered.verdict.as_str() {
            "unknown" => Self::Unknown(address.campaign().to_owned()),
            "different" => Self::Different(
                entered.plan.as_ref().map(|theirs| ours.differences(theirs)).unwrap_or_default(),
            ),
            "protocol" => Self::Protocol,
            state => Self::Ended(state.to_owned()),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Unknown(name) => write!(f, "there is no campaign {name} in the database: create it first"),
            Self::Different(differences) => {
                write!(f, "the campaign was created with something else: {}", differences.join("; "))
            }
            Self::Ended(state) => write!(f, "the campaign is {state}: it takes no managers any more"),
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
