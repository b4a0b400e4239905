//! Journals put back into the database, after it has lost what it knew. Of several results of an endpoint the one of its
//! latest claim counts; what the database has itself and is not older stays. The order of rows does not matter.

use std::borrow::Cow;
use std::collections::HashSet;

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, CHANGE_MAX, in_transaction, lock_without_managers};
use crate::asks::fit;
use crate::statements::bytes_of;

/// So many rows go to the database at once.
const ROWS_AT_ONCE: usize = 1000;

/// The version of managers to which imported results belong, one for each host.
const IMPORTED: &str = "imported";

/// A result as a manager's journal has it. One that is marked as a duplicate is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalResult {
    /// The id of the endpoint's key.
    pub endpoint: [u8; 32],
    /// The claim of the endpoint that it comes from.
    pub epoch: u32,
    /// The session's number.
    pub session: u64,
    /// The machine of its manager, if that is known.
    pub host: Option<String>,
    /// When it ended, in RFC 3339, if that is known.
    pub at: Option<String>,
    /// How the session ended.
    pub outcome: String,
    /// The record as JSON, to be put back as it was reported first: without U+0000, and one that is longer than
    /// [`crate::RECORD_MAX_BYTES`] not at all.
    pub record: String,
}

impl JournalResult {
    /// As the database takes it.
    pub(super) fn reported(self) -> Self {
        let record = fit(&self.record).map_or_else(|| "null".to_owned(), Cow::into_owned);
        let host = self.host.map(|host| host.replace('\0', ""));
        Self { outcome: self.outcome.replace('\0', ""), host, record, ..self }
    }
}

/// What has come of an import. Counts are of endpoints, however many results there are of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Endpoints of which the database had no result, or one of an older claim.
    pub accepted: u64,
    /// Endpoints of which it had a result that stays.
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
            // Those that are silent are lost. What is put back becomes another's, so that they bring no results to that.
            let silent = "SELECT pktlab.end_managers($1, ARRAY(SELECT id FROM pktlab.manager \
                          WHERE campaign = $1 AND state = 'live'), NULL)";
            transaction.execute(silent, &[campaign]).await?;
            let mut not_accepted = HashSet::new();
            let mut results = results.into_iter().peekable();
            while results.peek().is_some() {
                let rows = results.by_ref().take(ROWS_AT_ONCE).map(|row| row.map(JournalResult::reported));
                let rows = rows.collect::<Result<Vec<_>, _>>();
                let rows = rows.map_err(AdministrationError::Journal)?;
                let accepted = import_rows(transaction, campaign, &rows).await?;
                let endpoints = rows.iter().map(|row| row.endpoint);
                not_accepted.extend(endpoints.filter(|endpoint| !accepted.contains(endpoint)));
            }
            let imported = count(transaction, campaign, &not_accepted).await?;
            // Rows have changed hands, so the counts of all managers are made anew.
            let recount = "UPDATE pktlab.manager m SET claimed = s.claimed, done = s.done FROM ( \
                           SELECT x.id, count(*) FILTER (WHERE o.state = 0) AS claimed, \
                           count(*) FILTER (WHERE o.state = 1) AS done FROM pktlab.manager x \
                           LEFT JOIN pktlab.claim o ON o.campaign = x.campaign AND o.manager = x.id \
                           WHERE x.campaign = $1 GROUP BY x.id) s WHERE m.campaign = $1 AND m.id = s.id";
            transaction.execute(recount, &[campaign]).await?;
            // Of hosts of which the database knew everything.
            let idle = "DELETE FROM pktlab.manager WHERE campaign = $1 AND version = $2 AND done = 0";
            transaction.execute(idle, &[campaign, &IMPORTED]).await?;
            Ok(imported)
            }).await
        })
    }
}

/// What has come of it, when of these endpoints a row at least was not accepted: one before it may have been.
async fn count(
    transaction: &Transaction<'_>,
    campaign: &str,
    not_accepted: &HashSet<[u8; 32]>,
) -> Result<Imported, AdministrationError> {
    let not_accepted = not_accepted.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>();
    let row = transaction
        .query_typed(
            "WITH own AS (SELECT endpoint FROM pktlab.claim WHERE campaign = $1 AND state = 1 \
             AND transaction = pg_current_xact_id()::text::bigint) \
             SELECT (SELECT count(*) FROM own), \
             (SELECT count(*) FROM (SELECT unnest($2) EXCEPT SELECT endpoint FROM own) known)",
            &[(&campaign, Type::TEXT), (&not_accepted, Type::BYTEA_ARRAY)],
        )
        .await?;
    let count = |column| {
        let counted = row.first().map_or(Ok(0), |row| row.try_get::<_, i64>(column));
        counted.map(i64::unsigned_abs)
    };
    Ok(Imported { accepted: count(0)?, known: count(1)? })
}

/// The endpoints of those that were accepted.
async fn import_rows(
    transaction: &Transaction<'_>,
    campaign: &str,
    rows: &[JournalResult],
) -> Result<HashSet<[u8; 32]>, AdministrationError> {
    let keys = rows.iter().map(|row| row.endpoint.as_slice()).collect::<Vec<_>>();
    let epochs = rows.iter().map(|row| row.epoch.cast_signed()).collect::<Vec<_>>();
    let sessions = rows.iter().map(|row| row.session.cast_signed()).collect::<Vec<_>>();
    let outcomes = rows.iter().map(|row| row.outcome.as_str()).collect::<Vec<_>>();
    let records = rows.iter().map(|row| row.record.as_str()).collect::<Vec<_>>();
    let hosts = rows.iter().map(|row| row.host.as_deref().unwrap_or("unknown")).collect::<Vec<_>>();
    let times = rows.iter().map(|row| row.at.as_deref()).collect::<Vec<_>>();
    let managers = "INSERT INTO pktlab.manager(campaign, id, host, version, state, lease_until) \
                    SELECT DISTINCT $1, md5(h)::uuid, h, $2, 'left', clock_timestamp() FROM unnest($3) AS h \
                    ON CONFLICT DO NOTHING";
    transaction
        .query_typed(
            managers,
            &[(&campaign, Type::TEXT), (&IMPORTED, Type::TEXT), (&hosts, Type::TEXT_ARRAY)],
        )
        .await?;
    let accepted = transaction
        .query_typed(
            "INSERT INTO pktlab.claim AS o \
             (campaign, endpoint, epoch, manager, session, state, at, outcome, record, transaction) \
             SELECT DISTINCT ON (x.k) $1, x.k, x.e, md5(x.h)::uuid, x.s, 1, \
             coalesce(x.t::timestamptz, clock_timestamp()), x.o, x.r::json, pg_current_xact_id()::text::bigint \
             FROM unnest($2, $3, $4, $5, $6, $7, $8) AS x(k, e, s, o, r, h, t) ORDER BY x.k, x.e DESC \
             ON CONFLICT ON CONSTRAINT claim_pkey DO UPDATE SET epoch = excluded.epoch, \
             manager = excluded.manager, session = excluded.session, state = 1, at = excluded.at, \
             outcome = excluded.outcome, record = excluded.record, transaction = excluded.transaction \
             WHERE o.epoch < excluded.epoch OR (o.epoch = excluded.epoch AND o.state <> 1) RETURNING endpoint",
            &[
                (&campaign, Type::TEXT),
                (&keys, Type::BYTEA_ARRAY),
                (&epochs, Type::INT4_ARRAY),
                (&sessions, Type::INT8_ARRAY),
                (&outcomes, Type::TEXT_ARRAY),
                (&records, Type::TEXT_ARRAY),
                (&hosts, Type::TEXT_ARRAY),
                (&times, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    Ok(accepted.iter().map(|row| bytes_of(row, 0)).collect::<Result<_, _>>()?)
}
