//! A connection to the database, with time limits on both sides. What is asked over it is in `statements.rs`.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config};

use crate::access::Access;
use crate::database_error::DatabaseError;
use crate::tls::VerifiedTls;

/// Where to connect, ready made.
#[derive(Clone)]
pub(crate) struct Database {
    config: Config,
    tls: VerifiedTls,
}

/// A connection. When it is dropped its socket is closed, whatever is under way.
pub(crate) struct Connection {
    pub(crate) client: Client,
    driver: JoinHandle<()>,
}

impl Database {
    pub(crate) fn new(access: &Access, application: &str) -> Result<Self, DatabaseError> {
        let mut config = access.address.config();
        if let Some(password) = &access.password {
            config.password(password.as_slice());
        }
        config.application_name(application);
        Ok(Self { config, tls: VerifiedTls::new(access)? })
    }

    /// Connects within `patience`. The server ends each statement after `statement_max`.
    pub(crate) async fn connect(
        &self,
        statement_max: Duration,
        patience: Duration,
    ) -> Result<Connection, DatabaseError> {
        let connecting = async {
            let mut config = self.config.clone();
            // Each host has its share, so that one that is silent leaves time for the next.
            let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX).max(1);
            config.connect_timeout(patience / hosts).tcp_user_timeout(patience);
            let (client, connection) = config.connect(self.tls.clone()).await?;
            // Its end is seen in the next call.
            let driver = tokio::spawn(async move { drop(connection.await) });
            let connection = Connection { client, driver };
            connection.client.batch_execute(&settings(statement_max)).await?;
            Ok(connection)
        };
        let connected = tokio::time::timeout(patience, connecting).await;
        connected.unwrap_or_else(|_| {
            let seconds = patience.as_secs_f32();
            Err(DatabaseError::Unreachable(format!("no connection within {seconds:.1} s")))
        })
    }
}

/// A claim must be durable when it is answered, whatever the database's default is.
fn settings(statement_max: Duration) -> String {
    format!(
        "SET statement_timeout = {}; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') = 'off'",
        statement_max.as_millis()
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
