//! The connection of somebody who administers a campaign: its owner, or for what only reads, a reader. What can be done
//! with it is in the files beside this one.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Transaction};

use super::error::AdministrationError;
use crate::access::Access;
use crate::database::{Connection, Database};
use crate::database_error::DatabaseError;

/// Whoever administers waits for large tables as long as this.
const STATEMENT_MAX: Duration = Duration::from_secs(600);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A connection of somebody who administers the campaign that his address names.
pub struct Administration {
    pub(super) runtime: Runtime,
    pub(super) connection: Connection,
    pub(super) campaign: String,
}

impl Administration {
    /// Connects.
    pub fn open(access: &Access) -> Result<Self, AdministrationError> {
        let database = Database::new(access, "pktxpmgr campaign")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| DatabaseError::Other(error.to_string()))?;
        let connection = runtime.block_on(database.connect(STATEMENT_MAX, CONNECT_MAX))?;
        Ok(Self { runtime, connection, campaign: access.address.campaign().to_owned() })
    }
}

/// Does all of something or nothing. A transaction that is merely dropped is rolled back by the next call, and keeps its
/// locks until then.
pub(super) async fn in_transaction<T>(
    client: &mut Client,
    body: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, AdministrationError>,
) -> Result<T, AdministrationError> {
    let transaction = client.transaction().await?;
    let done = body(&transaction).await;
    match done {
        Ok(_) => transaction.commit().await?,
        Err(_) => transaction.rollback().await?,
    }
    done
}

/// Locks the campaign, so that no manager takes anything in it. Refused while managers are there.
pub(super) async fn lock_without_managers(
    transaction: &Transaction<'_>,
    campaign: &str,
) -> Result<(), AdministrationError> {
    let locked = transaction
        .query_opt("SELECT 1 FROM pktlab.campaign WHERE id = $1 FOR UPDATE", &[&campaign])
        .await?;
    locked.ok_or_else(|| AdministrationError::Unknown(campaign.to_owned()))?;
    let managers = transaction
        .query(
            "SELECT host FROM pktlab.manager WHERE campaign = $1 AND state = 'live' \
             AND lease_until > clock_timestamp() ORDER BY host",
            &[&campaign],
        )
        .await?;
    let hosts = managers.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    match hosts.is_empty() {
        true => Ok(()),
        false => Err(AdministrationError::ManagersThere(hosts)),
    }
}
