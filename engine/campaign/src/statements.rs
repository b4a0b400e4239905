//! The calls of the five functions, and their answers as values. What an answer means is the machine's business.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::address::Address;
use crate::asks::{Refusal, Standing, State};
use crate::database::Connection;
use crate::database_error::DatabaseError;
use crate::join_error::JoinError;
use crate::machine::{Answer, Batch, BeatAnswer, ManagerId, TakeAnswer, TakeVerdict};
use crate::plan::Plan;

/// The version of the five functions, which a database of another refuses.
const PROTOCOL: i32 = 1;

/// What `enter` has told.
#[derive(Clone, Debug)]
pub(crate) struct Entered {
    pub(crate) verdict: String,
    pub(crate) lease: Duration,
    pub(crate) n: Option<u64>,
    /// What the campaign was created with, if there is such a campaign.
    pub(crate) plan: Option<Plan>,
    pub(crate) waves: Vec<String>,
    /// When the campaign was created, if it was entered.
    pub(crate) created: String,
    /// What tells it from others of its name, and from itself with another plan, if it was entered.
    pub(crate) identity: String,
}

impl Entered {
    /// Why it is no entry.
    pub(crate) fn refusal(&self, ours: &Plan, address: &Address) -> JoinError {
        let name = || address.campaign().to_owned();
        match self.verdict.as_str() {
            "unknown" => JoinError::Unknown(name()),
            "different" => JoinError::Different(
                self.plan.as_ref().map(|theirs| ours.differences(theirs)).unwrap_or_default(),
            ),
            "another" => JoinError::Another(name()),
            "protocol" => JoinError::Protocol,
            state => JoinError::Ended(state.to_owned()),
        }
    }
}

pub(crate) struct Entry<'a> {
    pub(crate) campaign: &'a str,
    pub(crate) manager: ManagerId,
    pub(crate) host: &'a str,
    pub(crate) version: &'a str,
    pub(crate) plan: &'a Plan,
    /// The identity of the campaign that alone is entered, if it is known.
    pub(crate) identity: Option<&'a str>,
}

impl fmt::Display for ManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::plan::hex(&self.0))
    }
}

pub(crate) async fn enter(
    connection: &Connection,
    entry: &Entry<'_>,
) -> Result<Entered, DatabaseError> {
    let plan = entry.plan;
    let manager = entry.manager.to_string();
    let rows = connection
        .client
        .query_typed(
            // All columns, as one of another version, which refuses, has others.
            "SELECT * FROM pktlab.enter($1, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                (&entry.campaign, Type::TEXT),
                (&manager, Type::TEXT),
                (&entry.host, Type::TEXT),
                (&entry.version, Type::TEXT),
                (&PROTOCOL, Type::INT4),
                (&plan.mlet_digest.as_slice(), Type::BYTEA),
                (&plan.argv, Type::TEXT_ARRAY),
                (&plan.descriptor, Type::TEXT),
                (&plan.sorted_snikeys(), Type::TEXT_ARRAY),
                (&entry.identity, Type::TEXT),
            ],
        )
        .await?;
    let row = rows.first().ok_or_else(|| DatabaseError::Other("enter told nothing".to_owned()))?;
    let lease_ms = row.try_get::<_, Option<i64>>(1)?.unwrap_or_default();
    let verdict = row.try_get::<_, String>(0)?;
    let (created, identity) = match verdict.as_str() {
        "entered" => (row.try_get(8)?, row.try_get(9)?),
        _ => Default::default(),
    };
    Ok(Entered {
        verdict,
        created,
        identity,
        lease: Duration::from_millis(lease_ms.unsigned_abs()),
        n: row.try_get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
        plan: plan_of(row)?,
        waves: row.try_get::<_, Option<_>>(7)?.unwrap_or_default(),
    })
}

/// The plan of a campaign, from columns 3 to 6: digest, arguments, text, snikeys.
pub(crate) fn plan_of(row: &Row) -> Result<Option<Plan>, DatabaseError> {
    if row.try_get::<_, Option<&[u8]>>(3)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Plan {
        mlet_digest: bytes_of(row, 3)?,
        argv: row.try_get(4)?,
        descriptor: row.try_get(5)?,
        snikeys: row.try_get(6)?,
    }))
}

/// The id of a key, or a digest.
pub(crate) fn bytes_of(row: &Row, index: usize) -> Result<[u8; 32], DatabaseError> {
    let bytes = row.try_get::<_, &[u8]>(index)?.try_into();
    bytes.map_err(|_| DatabaseError::Other("a key or a digest is not of 32 bytes".to_owned()))
}

/// Sends all of a batch at once; the database does one after the other, each durable by itself. `line` is the number of
/// the connection.
pub(crate) async fn send(
    connection: &Connection,
    campaign: &str,
    line: i64,
    batch: &Batch,
) -> Result<Answer, DatabaseError> {
    let (given_back, accepted, verdicts) = tokio::try_join!(
        give_back(connection, campaign, line, batch),
        finish(connection, campaign, batch),
        take(connection, campaign, line, batch)
    )?;
    let () = given_back;
    Ok(Answer { accepted, verdicts })
}

async fn give_back(
    connection: &Connection,
    campaign: &str,
    line: i64,
    batch: &Batch,
) -> Result<(), DatabaseError> {
    if batch.give_back.is_empty() {
        return Ok(());
    }
    let all = || batch.give_back.iter();
    let keys = all().map(|given_back| given_back.endpoint.as_slice()).collect::<Vec<_>>();
    let sessions = all().map(|given_back| given_back.session.cast_signed()).collect::<Vec<_>>();
    let begun = all().map(|given_back| given_back.has_begun).collect::<Vec<_>>();
    let statement = "SELECT pktlab.give_back($1, $2::uuid, $3, $4, $5, $6)";
    called(
        connection,
        statement,
        campaign,
        batch.manager,
        &[
            (&line, Type::INT8),
            (&keys, Type::BYTEA_ARRAY),
            (&sessions, Type::INT8_ARRAY),
            (&begun, Type::BOOL_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

async fn finish(
    connection: &Connection,
    campaign: &str,
    batch: &Batch,
) -> Result<Vec<([u8; 32], u32)>, DatabaseError> {
    let Some(first) = batch.finish.first() else { return Ok(Vec::new()) };
    let all = || batch.finish.iter();
    let keys = all().map(|result| result.endpoint.as_slice()).collect::<Vec<_>>();
    let epochs = all().map(|result| result.epoch.cast_signed()).collect::<Vec<_>>();
    let outcomes = all().map(|result| &*result.outcome).collect::<Vec<_>>();
    let records = all().map(|result| &*result.record).collect::<Vec<_>>();
    let statement = "SELECT endpoint, epoch FROM pktlab.finish($1, $2::uuid, $3, $4, $5, $6)";
    let rows = called(
        connection,
        statement,
        campaign,
        first.manager,
        &[
            (&keys, Type::BYTEA_ARRAY),
            (&epochs, Type::INT4_ARRAY),
            (&outcomes, Type::TEXT_ARRAY),
            (&records, Type::TEXT_ARRAY),
        ],
    )
    .await?;
    let accepted =
        rows.iter().map(|row| Ok((bytes_of(row, 0)?, row.try_get::<_, i32>(1)?.cast_unsigned())));
    accepted.collect()
}

async fn take(
    connection: &Connection,
    campaign: &str,
    line: i64,
    batch: &Batch,
) -> Result<Vec<TakeAnswer>, DatabaseError> {
    if batch.take.is_empty() {
        return Ok(Vec::new());
    }
    let (sessions, keys) = columns(&batch.take);
    let statement = "SELECT session, verdict, epoch FROM pktlab.take($1, $2::uuid, $3, $4, $5)";
    let rows = called(
        connection,
        statement,
        campaign,
        batch.manager,
        &[(&line, Type::INT8), (&keys, Type::BYTEA_ARRAY), (&sessions, Type::INT8_ARRAY)],
    )
    .await?;
    let verdicts = rows.iter().map(|row| {
        let epoch = row.try_get::<_, i32>(2)?.cast_unsigned();
        let verdict = match row.try_get::<_, &str>(1)? {
            "won" => TakeVerdict::Won(epoch),
            "done" => TakeVerdict::Refused(Refusal::Done),
            "busy" => TakeVerdict::Refused(Refusal::Busy),
            "full" => TakeVerdict::Refused(Refusal::Full),
            "stop" => TakeVerdict::Refused(Refusal::Stop),
            "spent" => TakeVerdict::Refused(Refusal::Spent),
            "fenced" => TakeVerdict::Fenced,
            other => return Err(DatabaseError::Other(format!("take answered {other}"))),
        };
        Ok(TakeAnswer { session: row.try_get::<_, i64>(0)?.cast_unsigned(), verdict })
    });
    verdicts.collect()
}

/// Calls one of the functions, which all begin with campaign and manager.
async fn called(
    connection: &Connection,
    statement: &str,
    campaign: &str,
    manager: ManagerId,
    others: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, DatabaseError> {
    let manager = manager.to_string();
    let both: [(&(dyn ToSql + Sync), Type); 2] = [(&campaign, Type::TEXT), (&manager, Type::TEXT)];
    let all = [&both, others].concat();
    Ok(connection.client.query_typed(statement, &all).await?)
}

pub(crate) async fn beat(
    connection: &Connection,
    campaign: &str,
    manager: ManagerId,
    (places, is_leaving, has_missed): (u32, bool, bool),
) -> Result<BeatAnswer, DatabaseError> {
    let places = i32::try_from(places).unwrap_or(i32::MAX);
    let statement = "SELECT alive, publish, state, n, round, wave, managers, places, taken, done, lost, \
                     released, spent FROM pktlab.beat($1, $2::uuid, $3, $4, $5)";
    let rows = called(
        connection,
        statement,
        campaign,
        manager,
        &[(&places, Type::INT4), (&is_leaving, Type::BOOL), (&has_missed, Type::BOOL)],
    )
    .await?;
    // No row: the campaign has been removed.
    let Some(row) = rows.first() else { return Ok(BeatAnswer { is_alive: false, standing: None }) };
    let standing = standing_of(row, row.try_get(1)?)?;
    Ok(BeatAnswer { is_alive: row.try_get(0)?, standing: Some(standing) })
}

/// How a campaign stands, from the columns of the view of that name.
pub(crate) fn standing_of(row: &Row, publish: bool) -> Result<Standing, DatabaseError> {
    let count = |column: &str| row.try_get::<_, i64>(column).map(i64::unsigned_abs);
    let number = |column: &str| row.try_get::<_, i32>(column).map(i32::unsigned_abs);
    Ok(Standing {
        state: state_of(row, "state")?,
        n: row.try_get::<_, Option<i64>>("n")?.map(i64::unsigned_abs),
        round: number("round")?,
        wave: number("wave")?,
        publish,
        managers: u32::try_from(count("managers")?).unwrap_or(u32::MAX),
        places: count("places")?,
        taken: count("taken")?,
        done: count("done")?,
        lost: count("lost")?,
        released: count("released")?,
        spent: count("spent")?,
    })
}

/// The column of that name.
pub(crate) fn state_of(row: &Row, column: &str) -> Result<State, DatabaseError> {
    let state = row.try_get::<_, &str>(column)?;
    State::named(state).ok_or_else(|| DatabaseError::Other(format!("the campaign is {state}")))
}

/// Sessions and endpoints as two arrays. A session's number is kept with the same bits.
fn columns(rows: &[(u64, [u8; 32])]) -> (Vec<i64>, Vec<&[u8]>) {
    rows.iter().map(|(session, endpoint)| (session.cast_signed(), endpoint.as_slice())).unzip()
}
