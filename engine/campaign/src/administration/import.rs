//! Journals put back into the database, after it has lost what it knew. Of several results of an endpoint the one of its
//! latest claim counts; what the database has itself and is not older stays. The order of rows does not matter.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, CHANGE_MAX, in_transaction, lock_without_managers};
use crate::asks::fit;

/// So many rows go to the database at once.
const ROWS_AT_ONCE: usize = 1000;

/// The manager to which imported results belong.
const IMPORTER: &str = "00000000000000000000000000000000";

/// A result as a manager's journal has it. One that is marked as a duplicate is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalResult {
    /// The id of the endpoint's key.
    pub endpoint: [u8; 32],
    /// The claim of the endpoint that it comes from.
    pub epoch: u32,
    /// The session's number.
    pub session: u64,
    /// How the session ended.
    pub outcome: String,
    /// The record as JSON. One that is longer than [`crate::RECORD_MAX_BYTES`] is left out, as when it was reported first.
    pub record: String,
}

/// What has come of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Results that the database did not have, or had from an older claim.
    pub accepted: u64,
    /// Results that it had, or had better ones of.
    pub known: u64,
}

impl Administration {
    /// Puts results back, all or none; some of them are held at a time. Refused while managers are there, and given up when
    /// a result cannot be read, for the reason that stands in its place.
    pub fn import(
        &mut self,
        results: impl IntoIterator<Item = Result<JournalResult, String>>,
    ) -> Result<Imported, AdministrationError> {
        self.wait(CHANGE_MAX, async |client, campaign| {
            migrations::check(client).await?;
            in_transaction(client, async |transaction| {
            lock_without_managers(transaction, campaign).await?;
            let importer = "INSERT INTO pktlab.manager(campaign, id, host, version, state, lease_until) \
                            VALUES ($1, $2::uuid, 'imported', '', 'left', clock_timestamp()) \
                            ON CONFLICT DO NOTHING";
            let ids = [(campaign as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT), (&IMPORTER, Type::TEXT)];
            transaction.query_typed(importer, &ids).await?;
            let mut imported = Imported::default();
            let mut results = results.into_iter().peekable();
            while results.peek().is_some() {
                let rows = results.by_ref().take(ROWS_AT_ONCE).collect::<Result<Vec<_>, _>>();
                let rows = rows.map_err(AdministrationError::Journal)?;
                let accepted = import_rows(transaction, campaign, &rows).await?;
                imported.accepted += accepted;
                imported.known += (rows.len() as u64).saturating_sub(accepted);
            }
            // Rows have changed hands, so the counts of all managers are made anew.
            let recount = "UPDATE pktlab.manager m SET claimed = s.claimed, done = s.done FROM ( \
                           SELECT x.id, count(*) FILTER (WHERE o.state = 0) AS claimed, \
                           count(*) FILTER (WHERE o.state = 1) AS done FROM pktlab.manager x \
                           LEFT JOIN pktlab.claim o ON o.campaign = x.campaign AND o.manager = x.id \
                           WHERE x.campaign = $1 GROUP BY x.id) s WHERE m.campaign = $1 AND m.id = s.id";
            transaction.execute(recount, &[campaign]).await?;
            Ok(imported)
            }).await
        })
    }
}

/// How many were accepted.
async fn import_rows(
    transaction: &Transaction<'_>,
    campaign: &str,
    rows: &[JournalResult],
) -> Result<u64, AdministrationError> {
    let keys = rows.iter().map(|row| row.endpoint.as_slice()).collect::<Vec<_>>();
    let epochs = rows.iter().map(|row| row.epoch.cast_signed()).collect::<Vec<_>>();
    let sessions = rows.iter().map(|row| row.session.cast_signed()).collect::<Vec<_>>();
    let outcomes = rows.iter().map(|row| row.outcome.replace('\0', "")).collect::<Vec<_>>();
    let records = rows.iter().map(|row| fit(&row.record).unwrap_or("null")).collect::<Vec<_>>();
    let accepted = transaction
        .query_typed(
            "INSERT INTO pktlab.claim AS o \
             (campaign, endpoint, epoch, manager, session, state, outcome, record, transaction) \
             SELECT DISTINCT ON (x.k) $1, x.k, x.e, $2::uuid, x.s, 1, x.o, x.r::json, \
             pg_current_xact_id()::text::bigint \
             FROM unnest($3, $4, $5, $6, $7) AS x(k, e, s, o, r) ORDER BY x.k, x.e DESC \
             ON CONFLICT ON CONSTRAINT claim_pkey DO UPDATE SET epoch = excluded.epoch, \
             manager = excluded.manager, session = excluded.session, state = 1, at = clock_timestamp(), \
             outcome = excluded.outcome, record = excluded.record, transaction = excluded.transaction \
             WHERE o.epoch < excluded.epoch OR (o.epoch = excluded.epoch AND o.state <> 1) RETURNING 1",
            &[
                (&campaign, Type::TEXT),
                (&IMPORTER, Type::TEXT),
                (&keys, Type::BYTEA_ARRAY),
                (&epochs, Type::INT4_ARRAY),
                (&sessions, Type::INT8_ARRAY),
                (&outcomes, Type::TEXT_ARRAY),
                (&records, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    Ok(accepted.len() as u64)
}
