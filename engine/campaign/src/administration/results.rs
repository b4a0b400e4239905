//! The results of a campaign, one after the other, also while it runs. Whoever follows gets each exactly once: what a
//! transaction has finished is passed on when no older one is under way, since that could still finish something that
//! sorts before it.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, LOOK_MAX};
use crate::database_error::DatabaseError;

/// So many are asked for at once.
const PAGE: i64 = 1000;

/// So long whoever follows waits before he asks again.
const EVERY: Duration = Duration::from_secs(1);

/// A result that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignResult {
    /// The id of the endpoint's key.
    pub endpoint: [u8; 32],
    /// The claim of the endpoint that it comes from.
    pub epoch: u32,
    /// The machine of the manager.
    pub host: Option<String>,
    /// The session's number there.
    pub session: u64,
    /// How the session ended.
    pub outcome: String,
    /// When the result was accepted: UTC, as `2026-11-30T00:12:00.123456Z`.
    pub at: String,
    /// The record, as JSON.
    pub record: String,
}

/// Up to where results were passed on: transaction and endpoint.
struct Cursor(i64, Vec<u8>);

impl Administration {
    /// Passes on every result until `each` wants no more. With `follow` it goes on with those that come, until the
    /// campaign takes no endpoints any more and no manager is there.
    pub fn results(
        &mut self,
        follow: bool,
        mut each: impl FnMut(CampaignResult) -> ControlFlow<()>,
    ) -> Result<(), AdministrationError> {
        self.wait(LOOK_MAX, async |client, campaign| {
            migrations::check(client).await?;
            let mut cursor = Cursor(-1, Vec::new());
            while follow && goes_on(client, campaign).await? {
                if pages(client, campaign, true, &mut cursor, &mut each).await?.is_break() {
                    return Ok(());
                }
                tokio::time::sleep(EVERY).await;
            }
            if !follow {
                goes_on(client, campaign).await?; // or there is none of that name
            }
            let _ = pages(client, campaign, false, &mut cursor, &mut each).await?; // either way it is the end
            Ok(())
        })
    }
}

async fn goes_on(client: &Client, campaign: &str) -> Result<bool, AdministrationError> {
    let row = client
        .query_opt(
            "SELECT s.state = 'open' OR EXISTS (SELECT 1 FROM pktlab.member m WHERE m.campaign = s.campaign \
             AND m.state = 'live' AND m.lease_until > clock_timestamp()) \
             FROM pktlab.standing s WHERE s.campaign = $1",
            &[&campaign],
        )
        .await?;
    let row = row.ok_or_else(|| AdministrationError::Unknown(campaign.to_owned()))?;
    Ok(row.try_get(0)?)
}

async fn pages(
    client: &Client,
    campaign: &str,
    settled_only: bool,
    cursor: &mut Cursor,
    each: &mut impl FnMut(CampaignResult) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, AdministrationError> {
    loop {
        let rows = client
            .query_typed(
                "SELECT endpoint, epoch, host, session, outcome, record::text, transaction, \
                 to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
                 FROM pktlab.result WHERE campaign = $1 AND (transaction, endpoint) > ($2, $3) \
                 AND (NOT $4 OR transaction < pg_snapshot_xmin(pg_current_snapshot())::text::bigint) \
                 ORDER BY transaction, endpoint LIMIT $5",
                &[
                    (&campaign, Type::TEXT),
                    (&cursor.0, Type::INT8),
                    (&cursor.1, Type::BYTEA),
                    (&settled_only, Type::BOOL),
                    (&PAGE, Type::INT8),
                ],
            )
            .await?;
        for row in &rows {
            let endpoint = row.try_get::<_, Vec<u8>>(0)?;
            let no_key = |_| DatabaseError::Other("a result is of no endpoint".to_owned());
            let result = CampaignResult {
                endpoint: endpoint.as_slice().try_into().map_err(no_key)?,
                epoch: row.try_get::<_, i32>(1)?.unsigned_abs(),
                host: row.try_get(2)?,
                session: row.try_get::<_, i64>(3)?.cast_unsigned(),
                outcome: row.try_get::<_, Option<_>>(4)?.unwrap_or_default(),
                at: row.try_get(7)?,
                record: row.try_get::<_, Option<_>>(5)?.unwrap_or_else(|| "null".to_owned()),
            };
            if each(result).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            *cursor = Cursor(row.try_get(6)?, endpoint);
        }
        if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            return Ok(ControlFlow::Continue(()));
        }
    }
}
