//! What keeps a program from its database, sorted by who can mend it and whether it may mend itself.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What keeps a program from its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// There is no trust: no roots, or a certificate that is not right, or no TLS at all.
    Trust(String),
    /// It is not there, or not now.
    Unreachable(String),
    /// It does not let this user in, or lets him not do this.
    Refused(String),
    /// There are no tables of campaigns, or not those that this program knows.
    NoSchema(String),
    /// Something else, in the database's words.
    Other(String),
}

impl DatabaseError {
    /// It is silent.
    pub(crate) fn no_answer(patience: Duration) -> Self {
        Self::Unreachable(format!("no answer within {:.1} s", patience.as_secs_f32()))
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        let Some(told) = error.as_db_error() else {
            return match is_about_trust(&error) {
                true => Self::Trust(with_sources(&error)),
                false => Self::Unreachable(with_sources(&error)),
            };
        };
        let code = told.code();
        let text = format!("{} (SQLSTATE {})", told.message(), code.code());
        let is_of_class =
            |classes: &[&str]| classes.iter().any(|class| code.code().starts_with(class));
        let no_schema = [
            SqlState::UNDEFINED_FUNCTION,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
        ];
        if no_schema.contains(code) {
            Self::NoSchema(text)
        } else if is_of_class(&["28", "3D"]) || *code == SqlState::INSUFFICIENT_PRIVILEGE {
            Self::Refused(text)
        } else if is_of_class(&["08", "25", "40", "53", "55", "57", "58"]) {
            Self::Unreachable(text)
        } else {
            Self::Other(text)
        }
    }
}

/// The crate tells of TLS errors in words alone: its own, or those of rustls within an error of the socket.
fn is_about_trust(error: &Error) -> bool {
    let Some(cause) = error.source() else { return false };
    let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<rustls::Error>())
        || cause.to_string() == "server does not support TLS"
}

/// What an error says, with what is behind it.
pub(crate) fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(why) => write!(f, "the database is not trusted: {why}"),
            Self::Unreachable(why) => write!(f, "the database is not reached: {why}"),
            Self::Refused(why) => write!(f, "the database refuses: {why}"),
            Self::NoSchema(why) => write!(
                f,
                "the database has no tables of campaigns, or older ones than this program: \
                 create a campaign with a program of this version first ({why})"
            ),
            Self::Other(why) => write!(f, "the database says: {why}"),
        }
    }
}

impl std::error::Error for DatabaseError {}
