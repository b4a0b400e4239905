//! What a campaign is, and which results it has accepted: for whoever holds the journals of its managers against it. Not the
//! records, of which a digest tells which one was accepted: a million results fit into the memory of whoever asks.

use aws_lc_rs::digest::{SHA256, digest};
use tokio_postgres::types::Type;

use super::error::AdministrationError;
use super::import::JournalResult;
use super::migrations;
use super::owner::{Administration, LOOK_MAX};
use crate::statements::bytes_of;

/// So many are asked for at once.
const PAGE: i64 = 10_000;

/// By what a campaign is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// When it was created: UTC, as `2026-11-30T00:12:00.123456Z`. It tells it from others of its name.
    pub created: String,
    /// SHA-256 of the mlet.
    pub mlet_digest: [u8; 32],
    /// The mlet's arguments, without its name.
    pub argv: Vec<String>,
}

/// A result that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The id of the endpoint's key.
    pub endpoint: [u8; 32],
    /// The claim of the endpoint that it comes from.
    pub epoch: u32,
    /// The machine of the manager.
    pub host: Option<String>,
    /// [`JournalResult::digest`] of what was reported.
    pub digest: [u8; 32],
}

impl JournalResult {
    /// SHA-256 of outcome and record as they are reported.
    #[must_use]
    pub fn digest(self) -> [u8; 32] {
        let Self { outcome, record, .. } = self.reported();
        let digest = digest(&SHA256, format!("{outcome}\n{record}").as_bytes());
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

impl Administration {
    /// What the campaign is.
    pub fn origin(&mut self) -> Result<Origin, AdministrationError> {
        let row = self.wait(LOOK_MAX, async |client, campaign| {
            migrations::check_to_look(client).await?;
            let statement =
                "SELECT mlet_digest, pktlab.utc(created_at), argv FROM pktlab.plan WHERE campaign = $1";
            let row = client.query_opt(statement, &[campaign]).await?;
            row.ok_or_else(|| AdministrationError::Unknown(campaign.clone()))
        })?;
        Ok(Origin {
            mlet_digest: bytes_of(&row, 0)?,
            created: row.try_get(1)?,
            argv: row.try_get(2)?,
        })
    }

    /// Passes on what has been accepted of each endpoint.
    pub fn accepted(&mut self, mut each: impl FnMut(Accepted)) -> Result<(), AdministrationError> {
        self.wait(LOOK_MAX, async |client, campaign| {
            migrations::check_to_look(client).await?;
            let mut last = Vec::new();
            loop {
                let rows = client
                    .query_typed(
                        "SELECT endpoint, epoch, host, sha256(convert_to(coalesce(outcome, '') || chr(10) || \
                         coalesce(record::text, 'null'), 'UTF8')) FROM pktlab.result \
                         WHERE campaign = $1 AND endpoint > $2 ORDER BY endpoint LIMIT $3",
                        &[(&campaign, Type::TEXT), (&last, Type::BYTEA), (&PAGE, Type::INT8)],
                    )
                    .await?;
                for row in &rows {
                    let endpoint = bytes_of(row, 0)?;
                    last = endpoint.to_vec();
                    each(Accepted {
                        endpoint,
                        epoch: row.try_get::<_, i32>(1)?.cast_unsigned(),
                        host: row.try_get(2)?,
                        digest: bytes_of(row, 3)?,
                    });
                }
                if rows.is_empty() {
                    return Ok(());
                }
            }
        })
    }
}
