//! Where a campaign is: `postgres://user@host:port/database?options#NAME`. A whole address names a database and a
//! campaign in it. It is no place for secrets: one with a password is refused, so that it may be shown.

use std::fmt;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};

/// So long the name of a campaign may be.
const NAME_MAX_BYTES: usize = 64;

/// A database and the name of a campaign in it, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    typed: String,
    campaign: String,
    /// One for each host, in the order in which they are tried.
    hosts: Vec<Config>,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It does not begin as an address of PostgreSQL does.
    NoDatabase,
    /// Nothing stands behind `#`, or there is no `#`.
    NoName,
    /// There is more than one `#`.
    Hashes,
    /// The name is longer than 64 characters, has others than letters, digits, `.`, `_` and `-`, or begins with `.` or `-`,
    /// as options and hidden files do.
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
        self.hosts.iter().any(|host| host.get_ssl_mode() == SslMode::Require)
    }

    pub(crate) fn hosts(&self) -> &[Config] {
        &self.hosts
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(typed: &str) -> Result<Self, AddressError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| typed.starts_with(scheme)) {
            return Err(AddressError::NoDatabase);
        }
        let (database, campaign) = typed.rsplit_once('#').ok_or(AddressError::NoName)?;
        if database.contains('#') {
            return Err(AddressError::Hashes);
        }
        let is_known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match campaign {
            "" => return Err(AddressError::NoName),
            name if name.len() > NAME_MAX_BYTES || !name.chars().all(is_known) => {
                return Err(AddressError::Name);
            }
            name if name.starts_with(['.', '-']) => return Err(AddressError::Name),
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
        refuse_what_is_ours(&config)?;
        let hosts = config.get_hosts().iter().enumerate();
        let hosts = hosts.map(|(index, host)| of_host(&config, index, host)).collect();
        Ok(Self { typed: typed.to_owned(), campaign: campaign.to_owned(), hosts })
    }
}

/// Hosts are tried here and not by the library, which bounds no more than the time until a host takes a connection.
fn refuse_what_is_ours(config: &Config) -> Result<(), AddressError> {
    let hosts = config.get_hosts().len();
    let ours = [
        ("connect_timeout", config.get_connect_timeout().is_some()),
        ("tcp_user_timeout", config.get_tcp_user_timeout().is_some()),
        ("load_balance_hosts", config.get_load_balance_hosts() != LoadBalanceHosts::Disable),
    ];
    let why = match ours.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => format!(
            "{option} is not offered: hosts are tried in their order, and each has its share of the time that there is"
        ),
        None if ![0, hosts].contains(&config.get_hostaddrs().len()) => {
            "hostaddr is one for each host, or not given".to_owned()
        }
        None if ![0, 1, hosts].contains(&config.get_ports().len()) => {
            "a port is one for each host, or one for all".to_owned()
        }
        None => return Ok(()),
    };
    Err(AddressError::Options(why))
}

/// The same for one of the hosts alone.
fn of_host(all: &Config, index: usize, host: &Host) -> Config {
    let mut one = Config::new();
    match host {
        Host::Tcp(name) => one.host(name),
        Host::Unix(folder) => one.host_path(folder),
    };
    if let Some(address) = all.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    if let Some(port) = all.get_ports().get(index).or_else(|| all.get_ports().first()) {
        one.port(*port);
    }
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs())
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle());
    one
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
            Self::Hashes => f.write_str(
                "an address has one #, behind which the name of the campaign stands: what stands before it has %23 for #",
            ),
            Self::Name => write!(
                f,
                "the name of a campaign has at most {NAME_MAX_BYTES} characters: letters, digits, '.', '_' and '-', and \
                 begins with neither '.' nor '-'"
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
            "postgres://pktlab@db.example:5433/pktlab?sslmode=verify-full&keepalives_idle=3#eu26";
        let address = typed.parse::<Address>().expect("a good address");
        assert_eq!((address.campaign(), address.needs_tls()), ("eu26", true));
        assert_eq!(address.to_string(), typed);
        assert_eq!(address.hosts()[0].get_ports(), [5433]);
        let socket = "postgres://pktlab@/pktlab?host=/run/postgresql#a.b_c-1".parse::<Address>();
        assert!(!socket.expect("a good address").needs_tls());
        let standby = "postgresql://p@a.example,b.example/pktlab?target_session_attrs=read-write#x"
            .parse::<Address>();
        assert_eq!(standby.expect("two hosts").hosts().len(), 2);
    }

    #[test]
    fn each_host_of_an_address_is_reached_as_the_whole_address_says() {
        let typed = "postgres://p@a.example:1,b.example:2/d?hostaddr=10.0.0.1,10.0.0.2&options=-ca%3D1\
                     &target_session_attrs=read-write&keepalives=1&keepalives_idle=3&keepalives_interval=4\
                     &keepalives_retries=5&channel_binding=disable&sslnegotiation=direct#x";
        let address = typed.parse::<Address>().expect("a good address");
        for (index, host) in address.hosts().iter().enumerate() {
            // What the library makes of the same with one host.
            let one = ["a.example:1,b.example:2", "10.0.0.1,10.0.0.2"];
            let mut alone = typed.replace("#x", "");
            for all in one {
                alone = alone.replace(all, all.split(',').nth(index).expect("two"));
            }
            let mut alone = alone.parse::<Config>().expect("one host");
            assert_eq!(host, alone.ssl_mode(SslMode::Require), "{index}");
        }
    }

    #[test]
    fn an_address_that_would_show_a_secret_or_ask_for_less_than_tls_is_refused() {
        for (typed, why) in [
            ("db.example/pktlab#eu26", AddressError::NoDatabase),
            ("postgres://p@db.example/pktlab", AddressError::NoName),
            ("postgres://p@db.example/pktlab#", AddressError::NoName),
            ("postgres://p@db.example/pktlab#two words", AddressError::Name),
            (&format!("postgres://p@db.example/pktlab#{}", "n".repeat(65)), AddressError::Name),
            ("postgres://p@db.example/pktlab#.", AddressError::Name),
            ("postgres://p@db.example/pktlab#..", AddressError::Name),
            ("postgres://p@db.example/pktlab#-x", AddressError::Name),
            ("postgres://p@db.example/pktlab#a#b", AddressError::Hashes),
            ("postgres://p:sec#ret@db.example/pktlab#eu26", AddressError::Hashes),
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
        for (typed, option) in [
            ("postgres://p@a.example/d?connect_timeout=3#x", "connect_timeout"),
            ("postgres://p@a.example/d?tcp_user_timeout=3#x", "tcp_user_timeout"),
            (
                "postgres://p@a.example,b.example/d?load_balance_hosts=random#x",
                "load_balance_hosts",
            ),
            ("postgres://p@a.example,b.example/d?hostaddr=10.0.0.1#x", "hostaddr"),
            ("postgres://p@a.example:1,b.example:2,c.example/d?port=7#x", "port"),
        ] {
            let refused = typed.parse::<Address>().expect_err(typed).to_string();
            assert!(refused.contains(option), "{typed}: {refused}");
        }
        // However an option is spelt, what leads to the network has TLS.
        let spelt = "postgres://p@db.example/pktlab?ssl%6Dode=disable&hostaddr=127.0.0.1#eu26";
        assert!(spelt.parse::<Address>().expect("TLS in any case").needs_tls());
        let unknown = "postgres://p@db.example/pktlab?sslrootcert=x#eu26".parse::<Address>();
        assert!(unknown.is_err_and(|error| error.to_string().contains("sslrootcert")));
    }
}
