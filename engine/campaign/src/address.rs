//! Where a campaign is: `postgres://user@host:port/database?options#NAME`. A whole address names a database and a
//! campaign in it. It is no place for secrets: one with a password is refused, so that it may be shown.

use std::fmt;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// So long the name of a campaign may be.
const NAME_MAX_BYTES: usize = 64;

/// A database and the name of a campaign in it, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    typed: String,
    campaign: String,
    config: Config,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It does not begin as an address of PostgreSQL does.
    NoDatabase,
    /// Nothing stands behind `#`, or there is no `#`.
    NoName,
    /// The name is longer than 64 characters, or has others than letters, digits, `.`, `_` and `-`.
    Name,
    /// It holds a password.
    Password,
    /// Addresses of the network and unix sockets stand side by side.
    Mixed,
    /// `hostaddr` stands beside a unix socket, and would lead to the network without TLS.
    SocketOnNetwork,
    /// It names no host.
    NoHost,
    /// It asks for less than TLS with a verified name.
    Tls(String),
    /// An option is not known, or has a bad value.
    Options(String),
}

impl Address {
    /// The name of the campaign.
    pub fn campaign(&self) -> &str {
        &self.campaign
    }

    /// Whether the database is reached over the network, and so with TLS.
    pub fn needs_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(typed: &str) -> Result<Self, AddressError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| typed.starts_with(scheme)) {
            return Err(AddressError::NoDatabase);
        }
        let (database, campaign) = typed.rsplit_once('#').ok_or(AddressError::NoName)?;
        let is_known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match campaign {
            "" => return Err(AddressError::NoName),
            name if name.len() > NAME_MAX_BYTES || !name.chars().all(is_known) => {
                return Err(AddressError::Name);
            }
            _ => {}
        }
        let mut config = without_ssl_mode(database)?
            .parse::<Config>()
            .map_err(|error| AddressError::Options(crate::database_error::with_sources(&error)))?;
        if config.get_password().is_some() {
            return Err(AddressError::Password);
        }
        let sockets = config.get_hosts().iter().filter(|host| matches!(host, Host::Unix(_)));
        // Where there is an address in `hostaddr`, the client connects to that and not to the host.
        let has_addresses = !config.get_hostaddrs().is_empty();
        match (sockets.count(), config.get_hosts().len()) {
            (0, 0) => return Err(AddressError::NoHost),
            (0, _) => config.ssl_mode(SslMode::Require),
            _ if has_addresses => return Err(AddressError::SocketOnNetwork),
            (sockets, hosts) if sockets == hosts => config.ssl_mode(SslMode::Disable),
            _ => return Err(AddressError::Mixed),
        };
        Ok(Self { typed: typed.to_owned(), campaign: campaign.to_owned(), config })
    }
}

/// The address without `sslmode=verify-full`, which is what is done anyway. Anything less is refused.
fn without_ssl_mode(database: &str) -> Result<String, AddressError> {
    let Some((before, options)) = database.split_once('?') else { return Ok(database.to_owned()) };
    let mut others = Vec::new();
    for option in options.split('&') {
        match option.split_once('=') {
            Some(("sslmode", "verify-full")) => {}
            Some(("sslmode", mode)) => return Err(AddressError::Tls(mode.to_owned())),
            _ => others.push(option),
        }
    }
    Ok(match others.is_empty() {
        true => before.to_owned(),
        false => format!("{before}?{}", others.join("&")),
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDatabase => f.write_str(
                "a campaign is named postgres://USER@HOST/DATABASE#NAME, and this does not begin with postgres://",
            ),
            Self::NoName => f.write_str("the name of the campaign is missing: it stands behind #"),
            Self::Name => write!(
                f,
                "the name of a campaign has at most {NAME_MAX_BYTES} characters: letters, digits, '.', '_' and '-'"
            ),
            Self::Password => f.write_str(
                "an address must hold no password, since others can read it: put it into a file",
            ),
            Self::Mixed => f.write_str("hosts and unix sockets cannot stand side by side"),
            Self::SocketOnNetwork => f.write_str(
                "hostaddr cannot stand beside a unix socket: name the host instead, so that it is reached with TLS",
            ),
            Self::NoHost => f.write_str(
                "the address names no host; for a unix socket write postgres://USER@/DATABASE?host=FOLDER#NAME",
            ),
            Self::Tls(mode) => write!(
                f,
                "sslmode={mode} is not offered: over the network it is verify-full, over a unix socket there is no TLS"
            ),
            Self::Options(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_database_and_a_campaign_and_is_shown_as_typed() {
        let typed =
            "postgres://pktlab@db.example:5433/pktlab?sslmode=verify-full&connect_timeout=3#eu26";
        let address = typed.parse::<Address>().expect("a good address");
        assert_eq!((address.campaign(), address.needs_tls()), ("eu26", true));
        assert_eq!(address.to_string(), typed);
        assert_eq!(address.config().get_ports(), [5433]);
        let socket = "postgres://pktlab@/pktlab?host=/run/postgresql#a.b_c-1".parse::<Address>();
        assert!(!socket.expect("a good address").needs_tls());
        let standby = "postgresql://p@a.example,b.example/pktlab?target_session_attrs=read-write#x"
            .parse::<Address>();
        assert_eq!(standby.expect("two hosts").config().get_hosts().len(), 2);
    }

    #[test]
    fn an_address_that_would_show_a_secret_or_ask_for_less_than_tls_is_refused() {
        for (typed, why) in [
            ("db.example/pktlab#eu26", AddressError::NoDatabase),
            ("postgres://p@db.example/pktlab", AddressError::NoName),
            ("postgres://p@db.example/pktlab#", AddressError::NoName),
            ("postgres://p@db.example/pktlab#two words", AddressError::Name),
            (&format!("postgres://p@db.example/pktlab#{}", "n".repeat(65)), AddressError::Name),
            ("postgres://p:secret@db.example/pktlab#eu26", AddressError::Password),
            ("postgres://p:@db.example/pktlab#eu26", AddressError::Password),
            ("postgres://p@db.example/pktlab?password=secret#eu26", AddressError::Password),
            (
                "postgres://p@db.example/pktlab?sslmode=prefer#eu26",
                AddressError::Tls("prefer".to_owned()),
            ),
            ("postgres://p@db.example,%2Frun/pktlab#eu26", AddressError::Mixed),
            (
                "postgres://p@/pktlab?host=/run&hostaddr=127.0.0.1#eu26",
                AddressError::SocketOnNetwork,
            ),
            ("postgres://p@%2Frun/pktlab?hostaddr=::1#eu26", AddressError::SocketOnNetwork),
            ("postgres:///pktlab#eu26", AddressError::NoHost),
            ("postgres://p@/pktlab?hostaddr=127.0.0.1#eu26", AddressError::NoHost),
        ] {
            assert_eq!(typed.parse::<Address>(), Err(why.clone()), "{typed}");
            assert!(!why.to_string().contains("secret"));
        }
        // However an option is spelt, what leads to the network has TLS.
        let spelt = "postgres://p@db.example/pktlab?ssl%6Dode=disable&hostaddr=127.0.0.1#eu26";
        assert!(spelt.parse::<Address>().expect("TLS in any case").needs_tls());
        let unknown = "postgres://p@db.example/pktlab?sslrootcert=x#eu26".parse::<Address>();
        assert!(unknown.is_err_and(|error| error.to_string().contains("sslrootcert")));
    }
}
