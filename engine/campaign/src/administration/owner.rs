//! The connection of somebody who administers a campaign: its owner, or for what only reads, a reader. What can be done
//! with it is in the files beside this one; what he is told while he waits, in `waiting.rs`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio_postgres::{Client, Transaction};

use super::error::AdministrationError;
use super::waiting::{Heard, Tell, tell_of_silence};
use crate::access::Access;
use crate::database::{Connection, Database};
use crate::database_error::DatabaseError;
use crate::runtime::Runtime;

/// Whoever administers waits for large tables as long as this: so long the server lets a statement last.
const STATEMENT_MAX: Duration = Duration::from_secs(600);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A server that is silent for so long is given up: by whoever changes something after a statement would have ended, by
/// whoever only looks a good deal earlier.
pub(super) const CHANGE_MAX: Duration = Duration::from_secs(620);
pub(super) const LOOK_MAX: Duration = Duration::from_secs(60);

/// A connection of somebody who administers the campaign that his address names.
pub struct Administration {
    runtime: Runtime,
    database: Database,
    connection: Connection,
    campaign: String,
    tell: Tell,
}

impl Administration {
    /// Connects.
    pub fn open(access: &Access) -> Result<Self, AdministrationError> {
        let database = Database::new(access, "pktxpmgr campaign")?;
        let runtime = Runtime::new().map_err(|error| DatabaseError::Other(error.to_string()))?;
        let connection = runtime.block_on(database.connect(STATEMENT_MAX, CONNECT_MAX))?;
        let campaign = access.address.campaign().to_owned();
        Ok(Self { runtime, database, connection, campaign, tell: Box::new(|_| {}) })
    }

    /// From now on a call that has waited for five seconds without an answer says, once and in a sentence, for what it waits.
    pub fn tell_waits(&mut self, tell: impl Fn(&str) + Send + 'static) {
        self.tell = Box::new(tell);
    }

    /// Does something with the database, which is told the campaign's name. This is the only way to it, so that nothing
    /// waits for ever: a server is given up that is silent for `silence_max`.
    pub(super) fn wait<T>(
        &mut self,
        silence_max: Duration,
        body: impl AsyncFnOnce(&mut Client, &String) -> Result<T, AdministrationError>,
    ) -> Result<T, AdministrationError> {
        let Self { runtime, database, connection, campaign, tell } = self;
        let heard = Arc::new(Heard::default());
        runtime.block_on(async {
            let client = &mut connection.client;
            let body = async {
                let server_pid =
                    client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
                heard.is_asked_of(server_pid);
                body(client, campaign).await
            };
            let mut body = pin!(while_it_answers(silence_max, &heard, body));
            tokio::select! {
                biased;
                done = &mut body => return done,
                () = tell_of_silence((&heard, silence_max), database, tell) => {}
            }
            body.await
        })
    }
}

#[cfg(test)]
impl Administration {
    /// From now on time jumps to whatever is waited for when nothing else is to be done.
    pub(super) fn jump_in_time(&mut self) {
        self.runtime.block_on(async { tokio::time::pause() });
    }
}

/// Each time `body` is woken, an answer has come, or a pause of its own is over. Twice half of the time must pass without
/// that: a process that was stopped itself must not take the first look at its clock for the server's silence.
pub(super) async fn while_it_answers<T>(
    silence_max: Duration,
    heard: &Arc<Heard>,
    body: impl Future<Output = Result<T, AdministrationError>>,
) -> Result<T, AdministrationError> {
    let half = silence_max / 2;
    let mut body = pin!(body);
    let mut silence = pin!(tokio::time::sleep(half));
    let waker = Waker::from(Arc::clone(heard));
    let (mut was_silent, mut answers) = (false, 0);
    poll_fn(|context| {
        heard.pass_on_to(context.waker());
        // Looked at first, as whoever hears results may take his time.
        let is_silent = silence.as_mut().poll(context).is_ready();
        if let Poll::Ready(done) = body.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Poll::Ready(done);
        }
        let before = std::mem::replace(&mut answers, heard.answers());
        if !is_silent && before == answers {
            return Poll::Pending; // somebody else was woken
        }
        if is_silent && was_silent {
            return Poll::Ready(Err(AdministrationError::Silent(silence_max)));
        }
        was_silent = is_silent;
        silence.set(tokio::time::sleep(half));
        let _ = silence.as_mut().poll(context); // so that it wakes
        Poll::Pending
    })
    .await
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

/// Locks the campaign and all managers that there have been: what one of them has under way is over, and what another begins
/// waits. Refused while managers are there.
pub(super) async fn lock_without_managers(
    transaction: &Transaction<'_>,
    campaign: &str,
) -> Result<(), AdministrationError> {
    let locked = transaction
        .query_opt("SELECT 1 FROM pktlab.campaign WHERE id = $1 FOR UPDATE", &[&campaign])
        .await?;
    locked.ok_or_else(|| AdministrationError::Unknown(campaign.to_owned()))?;
    let all = "SELECT 1 FROM pktlab.manager WHERE campaign = $1 ORDER BY id FOR UPDATE";
    transaction.execute(all, &[&campaign]).await?;
    refuse_managers(transaction, Some(campaign)).await
}

/// Refuses while managers are there: of this campaign, or of any.
pub(super) async fn refuse_managers(
    transaction: &Transaction<'_>,
    campaign: Option<&str>,
) -> Result<(), AdministrationError> {
    let managers = transaction
        .query_one(
            "SELECT coalesce(array_agg(host ORDER BY host), '{}'), \
             coalesce(extract(epoch FROM max(lease_until) - clock_timestamp()), 0)::float8 FROM pktlab.manager \
             WHERE ($1::text IS NULL OR campaign = $1) AND state = 'live' AND lease_until > clock_timestamp()",
            &[&campaign],
        )
        .await?;
    let (hosts, left_s): (Vec<String>, f64) = (managers.try_get(0)?, managers.try_get(1)?);
    match hosts.is_empty() {
        true => Ok(()),
        false => Err(AdministrationError::ManagersThere {
            hosts,
            lease_left: Duration::try_from_secs_f64(left_s).unwrap_or_default(),
        }),
    }
}
