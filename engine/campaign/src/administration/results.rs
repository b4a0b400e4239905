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
use crate::statements::bytes_of;

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
    /// campaign is over.
    pub fn results(
        &mut self,
        follow: bool,
        mut each: impl FnMut(CampaignResult) -> ControlFlow<()>,
    ) -> Result<(), AdministrationError> {
        self.wait(LOOK_MAX, async |client, campaign| {
            migrations::check_to_look(client).await?;
            let mut cursor = Cursor(-1, Vec::new());
            // The transaction that comes next when the campaign is first seen to be over.
            let mut next = None;
            loop {
                let Look { is_over, oldest, next: later } = look(client, campaign).await?;
                if is_over && next.is_none() {
                    next = Some(later);
                }
                // What was under way then may still bring a result, and nothing that has begun since.
                if !follow || next.is_some_and(|next| oldest >= next) {
                    break;
                }
                if pages(client, campaign, true, &mut cursor, &mut each).await?.is_break() {
                    return Ok(());
                }
                tokio::time::sleep(EVERY).await;
            }
            let _ = pages(client, campaign, false, &mut cursor, &mut each).await?; // either way it is the end
            Ok(())
        })
    }
}

/// A campaign at one moment.
struct Look {
    is_over: bool,
    /// The oldest transaction that is under way, or the next if none is.
    oldest: i64,
    /// The one that will come next.
    next: i64,
}

async fn look(client: &Client, campaign: &str) -> Result<Look, AdministrationError> {
    let row = client
        .query_opt(
            "SELECT state = 'over', pg_snapshot_xmin(pg_current_snapshot())::text::bigint, \
             pg_snapshot_xmax(pg_current_snapshot())::text::bigint FROM pktlab.standing WHERE campaign = $1",
            &[&campaign],
        )
        .await?;
    let row = row.ok_or_else(|| AdministrationError::Unknown(campaign.to_owned()))?;
    Ok(Look { is_over: row.try_get(0)?, oldest: row.try_get(1)?, next: row.try_get(2)? })
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
                 pktlab.utc(at) FROM pktlab.result WHERE campaign = $1 AND (transaction, endpoint) > ($2, $3) \
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
            let result = CampaignResult {
                endpoint: bytes_of(row, 0)?,
                epoch: row.try_get::<_, i32>(1)?.unsigned_abs(),
                host: row.try_get(2)?,
                session: row.try_get::<_, i64>(3)?.cast_unsigned(),
                outcome: row.try_get::<_, Option<_>>(4)?.unwrap_or_default(),
                at: row.try_get(7)?,
                record: row.try_get::<_, Option<_>>(5)?.unwrap_or_else(|| "null".to_owned()),
            };
            *cursor = Cursor(row.try_get(6)?, result.endpoint.to_vec());
            if each(result).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            return Ok(ControlFlow::Continue(()));
        }
    }
}
