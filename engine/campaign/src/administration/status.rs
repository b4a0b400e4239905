//! How a campaign stands, for whoever looks at it from outside: an owner or a reader.

use std::time::Duration;

use super::create::Lost;
use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, LOOK_MAX};
use crate::asks::Standing;
use crate::database_error::DatabaseError;
use crate::plan::Plan;
use crate::statements::{plan_of, standing_of};

/// How a campaign stands, and what it was created with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How it stands; `publish` says whether anybody publishes.
    pub standing: Standing,
    /// What managers must bring.
    pub plan: Plan,
    /// What is added to the text for each wave.
    pub waves: Vec<String>,
    /// How often an endpoint is taken at most.
    pub tries_max: u32,
    /// So long a manager may be silent.
    pub lease: Duration,
    /// What becomes of lost endpoints.
    pub lost: Lost,
    /// Claims that there have been, of all endpoints together.
    pub claims: u64,
    /// Results that were accepted within the last minute.
    pub done_last_minute: u64,
    /// Managers that are or have been there, in the order in which they came.
    pub members: Vec<Member>,
}

/// A manager, from its entry to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The machine.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// `live`, `left` or `lost`; `silent` if its lease has run out and nobody has noticed.
    pub state: String,
    /// Whether it publishes.
    pub publishes: bool,
    /// So many sessions it can have at once.
    pub places: u64,
    /// Sessions that it has now.
    pub claimed: u64,
    /// Results of it that were accepted.
    pub done: u64,
}

impl Administration {
    /// How the campaign stands.
    pub fn status(&mut self) -> Result<Status, AdministrationError> {
        let (row, members) = self.wait(LOOK_MAX, async |client, campaign| {
            migrations::check(client).await?;
            let row = client
                .query_opt(
                    "SELECT s.state, s.n, s.tries_max, p.mlet_digest, p.argv, p.descriptor, p.snikeys, p.waves, \
                     p.lease_ms, p.lost_again, e.claims, e.done_last_minute, s.round, s.wave, s.managers, \
                     s.places, s.taken, s.done, s.lost, s.released, s.spent, \
                     EXISTS (SELECT 1 FROM pktlab.member m WHERE m.campaign = s.campaign \
                       AND m.id = s.publisher AND m.state = 'live') \
                     FROM pktlab.standing s JOIN pktlab.plan p USING (campaign) \
                     JOIN pktlab.effort e USING (campaign) WHERE campaign = $1",
                    &[campaign],
                )
                .await?;
            let row = row.ok_or_else(|| AdministrationError::Unknown(campaign.clone()))?;
            let members = client
                .query(
                    "SELECT m.host, m.version, CASE WHEN m.state = 'live' AND m.lease_until <= clock_timestamp() \
                     THEN 'silent' ELSE m.state END, m.id IS NOT DISTINCT FROM s.publisher, m.places, \
                     m.claimed, m.done \
                     FROM pktlab.member m JOIN pktlab.standing s USING (campaign) WHERE campaign = $1 \
                     ORDER BY m.entered_at, m.id",
                    &[campaign],
                )
                .await?;
            Ok((row, members))
        })?;
        let count = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
        let plan = plan_of(&row)?;
        Ok(Status {
            standing: standing_of(&row, row.try_get(21)?)?,
            plan: plan.ok_or_else(|| DatabaseError::Other("a campaign has no plan".to_owned()))?,
            waves: row.try_get(7)?,
            tries_max: row.try_get::<_, i32>(2)?.unsigned_abs(),
            lease: Duration::from_millis(count(8)?),
            lost: if row.try_get(9)? { Lost::Again } else { Lost::Skip },
            claims: count(10)?,
            done_last_minute: count(11)?,
            members: members.iter().map(member).collect::<Result<_, _>>()?,
        })
    }
}

fn member(row: &tokio_postgres::Row) -> Result<Member, AdministrationError> {
    let state = row.try_get::<_, String>(2)?;
    Ok(Member {
        host: row.try_get(0)?,
        version: row.try_get(1)?,
        publishes: row.try_get(3)? && state == "live",
        places: u64::from(row.try_get::<_, i32>(4)?.unsigned_abs()),
        claimed: row.try_get::<_, i64>(5)?.unsigned_abs(),
        done: row.try_get::<_, i64>(6)?.unsigned_abs(),
        state,
    })
}
