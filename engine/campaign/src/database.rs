//! A connection to the database, with time limits on both sides. What is asked over it is in `statements.rs`.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};

use crate::access::Access;
use crate::database_error::DatabaseError;
use crate::tls::VerifiedTls;

/// So long a statement waits for a lock that somebody holds, if it may last that long: what managers do under one takes
/// milliseconds, and what owners do seconds.
pub(crate) const LOCK_MAX: Duration = Duration::from_secs(30);

/// Where to connect, ready made.
#[derive(Clone)]
pub(crate) struct Database {
    /// One for each host, in the order in which they are tried.
    hosts: Vec<Config>,
    tls: VerifiedTls,
}

/// A connection. When it is dropped its socket is closed, whatever is under way.
pub(crate) struct Connection {
    pub(crate) client: Client,
    driver: JoinHandle<()>,
}

impl Database {
    pub(crate) fn new(access: &Access, application: &str) -> Result<Self, DatabaseError> {
        let mut hosts = access.address.hosts().to_vec();
        for host in &mut hosts {
            if let Some(password) = &access.password {
                host.password(password.as_slice());
            }
            host.application_name(application);
        }
        Ok(Self { hosts, tls: VerifiedTls::new(access)? })
    }

    /// Connects within `patience`. The server ends each statement after `statement_max`.
    pub(crate) async fn connect(
        &self,
        statement_max: Duration,
        patience: Duration,
    ) -> Result<Connection, DatabaseError> {
        let connect = async |address: &Config, _| {
            let mut config = address.clone();
            config.tcp_user_timeout(patience);
            let connected = config.connect(self.tls.clone()).await;
            let (client, connection) =
                connected.map_err(|error| DatabaseError::from(error).while_connecting())?;
            // Its end is seen in the next call.
            let driver = tokio::spawn(async move { drop(connection.await) });
            let connection = Connection { client, driver };
            connection.client.batch_execute(&settings(statement_max)).await?;
            Ok(connection)
        };
        let of_one = async |host: &Config, share| {
            let tried = first_reached(&addresses(host).await?, share, connect).await;
            let none = || DatabaseError::Unreachable("its name leads to no address".to_owned());
            tried.map_err(|mut errors| errors.pop().unwrap_or_else(none))
        };
        let tried = first_reached(&self.hosts, patience, of_one).await;
        tried.map_err(|errors| {
            DatabaseError::of_hosts(self.hosts.iter().map(shown_host).zip(errors).collect())
        })
    }
}

/// Tries one after the other until one is reached. Each has its share of the time that is left, so that one that is silent, at
/// whichever step, leaves time for the next. Why each was not, if none was.
async fn first_reached<T>(
    all: &[Config],
    patience: Duration,
    attempt: impl AsyncFn(&Config, Duration) -> Result<T, DatabaseError>,
) -> Result<T, Vec<DatabaseError>> {
    let until = Instant::now() + patience;
    let mut failed = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let left = u32::try_from(all.len() - index).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let tried = timeout(share, attempt(one, share)).await;
        failed.push(match tried {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(error)) => error,
            Err(_) => {
                let seconds = share.as_secs_f32();
                DatabaseError::Unreachable(format!("no connection within {seconds:.1} s"))
            }
        });
    }
    Err(failed)
}

/// As it stands in an address, without the usual port.
fn shown_host(host: &Config) -> String {
    let port = host.get_ports().first().filter(|port| **port != 5432);
    match (host.get_hosts(), port) {
        ([Host::Unix(folder), ..], _) => folder.display().to_string(),
        ([Host::Tcp(name), ..], Some(port)) => format!("{name}:{port}"),
        ([Host::Tcp(name), ..], None) => name.clone(),
        ([], _) => String::new(),
    }
}

/// The addresses to which the name of a host leads, each with the name, which its certificate must have.
async fn addresses(host: &Config) -> Result<Vec<Config>, DatabaseError> {
    let [Host::Tcp(name)] = host.get_hosts() else { return Ok(vec![host.clone()]) };
    if !host.get_hostaddrs().is_empty() {
        return Ok(vec![host.clone()]);
    }
    // The port stands in the configuration.
    let found = tokio::net::lookup_host((name.as_str(), 0)).await;
    let found = found.map_err(|error| DatabaseError::Unreachable(error.to_string()))?;
    let with_address = |address: std::net::SocketAddr| {
        let mut one = host.clone();
        one.hostaddr(address.ip());
        one
    };
    Ok(found.map(with_address).collect())
}

/// A claim must be durable when it is answered, on a standby too where one has to confirm, whatever the database's default is.
fn settings(statement_max: Duration) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')",
        statement_max.as_millis(),
        statement_max.min(LOCK_MAX).as_millis()
    )
}

impl Connection {
    /// Waits for the end of the connection.
    pub(crate) async fn closed(&mut self) {
        let _ = (&mut self.driver).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time is that of a runtime whose clock jumps when nothing else is to be done.
    #[test]
    fn what_is_silent_uses_up_its_share_and_what_refuses_leaves_its_own_to_others() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        let hosts = ["silent", "refuses", "slow", "late"].map(|name| {
            let mut host = Config::new();
            host.host(name);
            host
        });
        let attempt = async |host: &Config, share: Duration| {
            let Host::Tcp(name) = &host.get_hosts()[0] else { panic!("a name") };
            match name.as_str() {
                "silent" => std::future::pending().await,
                "refuses" => Err(DatabaseError::Refused("no".to_owned())),
                _ => {
                    // After a quarter of the time, three quarters are left to two.
                    assert_eq!(share, Duration::from_secs(3));
                    tokio::time::sleep(share - Duration::from_secs(1)).await;
                    Ok(name.clone())
                }
            }
        };
        let patience = Duration::from_secs(8);
        let reached = runtime.block_on(first_reached(&hosts, patience, attempt));
        assert_eq!(reached, Ok("slow".to_owned()));
        let nobody = runtime.block_on(first_reached(&hosts[..2], patience, attempt));
        let silent = DatabaseError::Unreachable("no connection within 4.0 s".to_owned());
        assert_eq!(nobody, Err(vec![silent, DatabaseError::Refused("no".to_owned())]));
        let none = runtime.block_on(first_reached(&[], patience, attempt));
        assert_eq!(none, Err(Vec::new()));
    }
}
