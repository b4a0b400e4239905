//! How a campaign stands, for whoever looks at it from outside: an owner or a reader.

use std::time::Duration;

use super::create::Lost;
use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, LOOK_MAX};
use crate::asks::{Standing, State};
use crate::database_error::DatabaseError;
use crate::plan::Plan;
use crate::statements::{plan_of, standing_of, state_of};

/// How a campaign stands, and what it was created with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How it stands; `publish` says whether anybody publishes.
    pub standing: Standing,
    /// What was decided of it, which is another if it is over because of that: stopped or halted, and nobody is there.
    pub decided: State,
    /// When it was created, as its managers' folders have it.
    pub created: String,
    /// How long it is at least until all are called again; none while nobody is to be, or waves are called.
    pub next_round: Option<Duration>,
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
    /// Accepted results by the outcomes of their sessions, the most frequent first.
    pub outcomes: Vec<(String, u64)>,
    /// Managers that are or have been there, in the order in which they came.
    pub members: Vec<ManagerStatus>,
}

/// A manager, from its entry to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerStatus {
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
        let (row, outcomes, members) = self.wait(LOOK_MAX, async |client, campaign| {
            migrations::check_to_look(client).await?;
            let row = client
                .query_opt(
                    "SELECT s.state, s.n, s.tries_max, p.mlet_digest, p.argv, p.descriptor, p.snikeys, p.waves, \
                     p.lease_ms, p.lost_again, e.claims, e.done_last_minute, s.round, s.wave, s.managers, \
                     s.places, s.taken, s.done, s.lost, s.released, s.spent, \
                     EXISTS (SELECT 1 FROM pktlab.member m WHERE m.campaign = s.campaign \
                       AND m.id = s.publisher AND m.state = 'live'), \
                     s.decided, pktlab.utc(p.created_at), \
                     (extract(epoch FROM s.next_round_at - clock_timestamp()) * 1000)::bigint \
                     FROM pktlab.standing s JOIN pktlab.plan p USING (campaign) \
                     JOIN pktlab.effort e USING (campaign) WHERE campaign = $1",
                    &[campaign],
                )
                .await?;
            let row = row.ok_or_else(|| AdministrationError::Unknown(campaign.clone()))?;
            let outcomes = client
                .query(
                    "SELECT outcome, endpoints FROM pktlab.outcome WHERE campaign = $1 \
                     ORDER BY endpoints DESC, outcome",
                    &[campaign],
                )
                .await?;
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
            Ok((row, outcomes, members))
        })?;
        let count = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
        let plan = plan_of(&row)?;
        // One that is due begins with a manager's beat.
        let next_round_ms = row.try_get::<_, Option<i64>>(24)?.map(|ms| ms.max(0).unsigned_abs());
        Ok(Status {
            standing: standing_of(&row, row.try_get(21)?)?,
            decided: state_of(&row, "decided")?,
            created: row.try_get(23)?,
            next_round: next_round_ms.map(Duration::from_millis),
            plan: plan.ok_or_else(|| DatabaseError::Other("a campaign has no plan".to_owned()))?,
            waves: row.try_get(7)?,
            tries_max: row.try_get::<_, i32>(2)?.unsigned_abs(),
            lease: Duration::from_millis(count(8)?),
            lost: if row.try_get(9)? { Lost::Again } else { Lost::Skip },
            claims: count(10)?,
            done_last_minute: count(11)?,
            outcomes: outcomes.iter().map(outcome).collect::<Result<_, _>>()?,
            members: members.iter().map(member).collect::<Result<_, _>>()?,
        })
    }
}

fn outcome(row: &tokio_postgres::Row) -> Result<(String, u64), tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()))
}

fn member(row: &tokio_postgres::Row) -> Result<ManagerStatus, AdministrationError> {
    let state = row.try_get::<_, String>(2)?;
    Ok(ManagerStatus {
        host: row.try_get(0)?,
        version: row.try_get(1)?,
        publishes: row.try_get(3)? && state == "live",
        places: u64::from(row.try_get::<_, i32>(4)?.unsigned_abs()),
        claimed: row.try_get::<_, i64>(5)?.unsigned_abs(),
        done: row.try_get::<_, i64>(6)?.unsigned_abs(),
        state,
    })
}
