//! The tables' versions: each is made from the one before by a file of `sql/`, and the last is what this program knows. An
//! older program does nothing with newer tables. A file that has been in a release is never changed.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::error::AdministrationError;
use super::owner::{in_transaction, refuse_managers};

const MIGRATIONS: [&str; 3] = [
    include_str!("../../sql/0001_tables.sql"),
    include_str!("../../sql/0002_functions.sql"),
    include_str!("../../sql/0003_rights.sql"),
];

/// Versions of PostgreSQL as it tells them itself: 15.0 is the first with all that is used.
const SERVER_MIN: i32 = 150_000;

/// Of the lock under which versions change: "pktlab" in ASCII.
const LOCK: i64 = 0x706b_746c_6162;

/// Brings the tables to this program's version; makes them if there are none. Refused while managers are there that speak
/// an older version's language.
pub(super) async fn migrate(client: &mut Client) -> Result<(), AdministrationError> {
    check_server(client).await?;
    in_transaction(client, async |transaction| {
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let found = version(transaction).await?;
    if found == 0 {
        transaction
            .batch_execute(
                "CREATE SCHEMA IF NOT EXISTS pktlab; CREATE TABLE IF NOT EXISTS pktlab.schema_version( \
                 version int PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT clock_timestamp())",
            )
            .await?;
    }
    refuse_newer(found)?;
    if (1..known()).contains(&found) {
        refuse_managers(transaction, None).await?;
    }
    let missing = (1..).zip(MIGRATIONS).skip_while(|(version, _)| *version <= found);
    for (version, statements) in missing {
        make_roles(transaction).await?;
        transaction.batch_execute("SET LOCAL search_path = pktlab, pg_temp").await?;
        transaction.batch_execute(statements).await?;
        transaction
            .execute("INSERT INTO pktlab.schema_version(version) VALUES ($1)", &[&version])
            .await?;
    }
    Ok(())
    }).await
}

/// For those who only look: as [`check`], and a reader's role will do.
pub(super) async fn check_to_look(client: &Client) -> Result<(), AdministrationError> {
    check(client).await.map_err(|error| match error {
        AdministrationError::NoOwner => AdministrationError::NoReader,
        other => other,
    })
}

/// For all who do not migrate: the tables must be of this program's version.
pub(super) async fn check(client: &Client) -> Result<(), AdministrationError> {
    let newest = "SELECT coalesce(max(version), 0) FROM pktlab.schema_version";
    let found = client.query_one(newest, &[]).await?.try_get(0)?;
    refuse_newer(found)?;
    match found < known() {
        true => Err(AdministrationError::OlderSchema { found, known: known() }),
        false => Ok(()),
    }
}

fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

fn refuse_newer(found: i32) -> Result<(), AdministrationError> {
    match found > known() {
        true => Err(AdministrationError::NewerSchema { found, known: known() }),
        false => Ok(()),
    }
}

/// 0 if there are no tables.
async fn version(transaction: &Transaction<'_>) -> Result<i32, AdministrationError> {
    let is_there = "SELECT to_regclass('pktlab.schema_version') IS NOT NULL";
    if !transaction.query_one(is_there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM pktlab.schema_version";
    Ok(transaction.query_one(newest, &[]).await?.try_get(0)?)
}

async fn check_server(client: &Client) -> Result<(), AdministrationError> {
    let told = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), \
                current_setting('server_encoding')";
    let row = client.query_one(told, &[]).await?;
    let (number, version, encoding) =
        (row.try_get::<_, i32>(0)?, row.try_get::<_, &str>(1)?, row.try_get::<_, &str>(2)?);
    if number < SERVER_MIN {
        let why = format!("the database is PostgreSQL {version}, and campaigns need 15 or later");
        return Err(AdministrationError::Server(why));
    }
    if encoding != "UTF8" {
        let why = format!("the database keeps text as {encoding}, and campaigns need UTF8");
        return Err(AdministrationError::Server(why));
    }
    Ok(())
}

/// Roles belong to all databases of a server, so they may be there before the tables.
async fn make_roles(transaction: &Transaction<'_>) -> Result<(), AdministrationError> {
    for role in ["pktlab_manager", "pktlab_reader"] {
        let is_there = "SELECT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)";
        if transaction.query_one(is_there, &[&role]).await?.try_get::<_, bool>(0)? {
            continue;
        }
        let made = transaction.batch_execute(&format!("CREATE ROLE {role} NOLOGIN")).await;
        made.map_err(|error| match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => AdministrationError::Roles,
            _ => error.into(),
        })?;
    }
    Ok(())
}
