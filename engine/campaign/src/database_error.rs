//! What keeps a program from its database, sorted by who can mend it and whether it may mend itself.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What keeps a program from its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// There is no trust: no roots, or a certificate that is not right, or no TLS at all.
    Trust(String),
    /// It is not there, or not now.
    Unreachable(String),
    /// It is there, and cannot do this now: too many are connected, a statement took too long, it stood in the way of another.
    Busy(String),
    /// It asks for a password, and there is none.
    NoPassword,
    /// It does not let this user in.
    Refused(String),
    /// It has let this user in, and he may not do this.
    NoRights(String),
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

    /// The same of what comes before a connection is there.
    pub(crate) fn while_connecting(self) -> Self {
        match self {
            Self::NoRights(why) => Self::Refused(why),
            other => other,
        }
    }

    /// What is said of it behind the words of its kind.
    fn why(&self) -> &str {
        match self {
            Self::Trust(why) | Self::Unreachable(why) | Self::Busy(why) => why,
            Self::Refused(why) | Self::NoRights(why) | Self::NoSchema(why) | Self::Other(why) => {
                why
            }
            Self::NoPassword => "it asks for a password",
        }
    }

    /// Why none of these hosts, which are named, is of use: as the last one, which was tried when the others had failed.
    pub(crate) fn of_hosts(mut errors: Vec<(String, Self)>) -> Self {
        let why = errors.iter().map(|(host, error)| format!("{host}: {}", error.why()));
        let why = why.collect::<Vec<_>>().join("; ");
        let is_one = errors.len() == 1;
        match errors.pop() {
            Some((_, Self::Unreachable(_))) | None => Self::Unreachable(why),
            Some((_, error)) if is_one => error,
            Some((_, Self::Trust(_))) => Self::Trust(why),
            Some((_, Self::Busy(_))) => Self::Busy(why),
            Some((_, Self::Refused(_))) => Self::Refused(why),
            Some((_, Self::NoRights(_))) => Self::NoRights(why),
            Some((_, Self::NoSchema(_))) => Self::NoSchema(why),
            Some((_, Self::Other(_))) => Self::Other(why),
            Some((_, Self::NoPassword)) => Self::NoPassword,
        }
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        let Some(told) = error.as_db_error() else {
            let text = with_sources(&error);
            return match tls_error(&error) {
                Some(rustls::Error::AlertReceived(alert)) if is_about_ours(*alert) => {
                    Self::Refused(format!(
                        "{text}; it is about the certificate that was shown, or its key"
                    ))
                }
                Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                    Self::Trust(format!("{text}; none of the roots that were given has signed it"))
                }
                Some(_) => Self::Trust(text),
                None if has_no_tls(&error) => Self::Trust(text),
                None if lacks_password(&error) => Self::NoPassword,
                None => Self::Unreachable(text),
            };
        };
        let code = told.code();
        of_code(code, format!("{} (SQLSTATE {})", told.message(), code.code()))
    }
}

/// What a server has told, by its code (PostgreSQL, Appendix A).
fn of_code(code: &SqlState, text: String) -> DatabaseError {
    use DatabaseError as Told;
    let is_of_class = |classes: &[&str]| classes.iter().any(|class| code.code().starts_with(class));
    let no_schema = [
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    if no_schema.contains(code) {
        Told::NoSchema(text)
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        Told::NoRights(text)
    } else if *code == SqlState::LOCK_NOT_AVAILABLE {
        Told::Busy(format!(
            "somebody holds a lock that this needs, and pg_locks and pg_stat_activity there tell who: {text}"
        ))
    } else if is_of_class(&["28", "3D"]) {
        Told::Refused(text)
    } else if is_of_class(&["08", "57P"]) {
        Told::Unreachable(text)
    } else if is_of_class(&["25", "40", "53", "55", "57", "58"]) {
        Told::Busy(text)
    } else {
        Told::Other(text)
    }
}

/// The error of rustls, if it is one of the socket.
fn tls_error(error: &Error) -> Option<&rustls::Error> {
    error.source()?.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref()
}

/// Alerts of a server that does not take what a client has shown (RFC 8446, 6.2).
fn is_about_ours(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired
    )
}

/// Which the crate tells in words alone.
fn has_no_tls(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

/// The same.
fn lacks_password(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "password missing")
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
            Self::Busy(why) => write!(f, "the database cannot do it now: {why}"),
            Self::NoPassword => f.write_str("the database asks for a password, and none is given"),
            Self::Refused(why) => write!(f, "the database refuses: {why}"),
            Self::NoRights(why) => write!(
                f,
                "the database gives this role no right to it: {why}; a manager's role is a member of pktlab_manager \
                 (`GRANT pktlab_manager TO ROLE` makes one)"
            ),
            Self::NoSchema(why) => write!(
                f,
                "the database has no tables of campaigns, or those of another version of this program: create a \
                 campaign, and use one version for all managers ({why})"
            ),
            Self::Other(why) => write!(f, "the database says: {why}"),
        }
    }
}

impl std::error::Error for DatabaseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_hosts_each_is_told_with_its_own_reason() {
        let refused = || DatabaseError::Unreachable("refused".to_owned());
        let wrong = || DatabaseError::Refused("wrong password".to_owned());
        let told = |errors: &[(&str, DatabaseError)]| {
            let named = errors.iter().map(|(host, error)| ((*host).to_owned(), error.clone()));
            DatabaseError::of_hosts(named.collect()).to_string()
        };
        assert_eq!(told(&[("a", refused())]), "the database is not reached: a: refused");
        assert_eq!(told(&[("a", wrong())]), "the database refuses: wrong password");
        assert_eq!(
            told(&[("a", wrong()), ("b:6", refused())]),
            "the database is not reached: a: wrong password; b:6: refused"
        );
        assert_eq!(
            told(&[("a", refused()), ("b", DatabaseError::NoPassword)]),
            "the database asks for a password, and none is given"
        );
    }

    #[test]
    fn what_a_server_tells_is_called_unreachable_only_when_it_is_not_there() {
        let told = |code| of_code(&SqlState::from_code(code), String::new()).to_string();
        for (codes, begins) in [
            (&["08006", "57P01", "57P03"][..], "the database is not reached"),
            // Deadlock, too many connections, an older connection of ours, a statement that took too long, only reading.
            (&["40P01", "53300", "55000", "57014", "25006"], "the database cannot do it now"),
            (&["28P01", "3D000"], "the database refuses"),
            (&["42501"], "the database gives this role no right to it"),
            (&["55P03"], "the database cannot do it now: somebody holds a lock"),
            (&["42883", "42703"], "the database has no tables of campaigns"),
            (&["22012"], "the database says"),
        ] {
            for code in codes {
                assert!(told(code).starts_with(begins), "{code}: {}", told(code));
            }
        }
    }
}
