//! For what somebody waits who administers a campaign, while the database does not answer: a lock, a standby, or a server that
//! stands still. It is told once, and changes nothing; when a call is given up is decided in `owner.rs`.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;

use crate::database::{Database, LOCK_MAX};
use crate::database_error::DatabaseError;

/// After so long a silence it is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// So often it is looked whether there was an answer.
const EVERY: Duration = Duration::from_secs(1);

/// So long whoever tells looks for the reason.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Who hears of it.
pub(super) type Tell = Box<dyn Fn(&str) + Send>;

/// What a call has heard from the server, in whose process. It is what a call is woken by, so that nobody else's wake passes for
/// an answer.
#[derive(Default)]
pub(super) struct Heard {
    answers: AtomicU64,
    /// 0 if it is not known yet.
    server_pid: AtomicI32,
    /// Whoever waits for the call.
    waker: Mutex<Option<Waker>>,
}

impl Wake for Heard {
    fn wake(self: Arc<Self>) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

impl Heard {
    /// How often there was an answer.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn pass_on_to(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// This process of the server answers.
    pub(super) fn is_asked_of(&self, server_pid: i32) {
        self.server_pid.store(server_pid, Ordering::Relaxed);
    }
}

/// What keeps the server.
enum Reason {
    /// A lock of another of its processes; 0 for a transaction that was prepared and has none.
    Lock { pid: i32, role: Option<String>, program: Option<String> },
    /// A standby that has to confirm.
    Standby,
    /// Nobody; what it waits for itself, if that is anything.
    Work(Option<String>),
}

/// Ends when there has been no answer for a while, and then says why.
pub(super) async fn tell_of_silence(
    (heard, silence_max): (&Heard, Duration),
    database: &Database,
    tell: &Tell,
) {
    let (mut silence, mut answers) = (Duration::ZERO, 0);
    while silence < TOLD_AFTER {
        sleep(EVERY).await;
        let now = heard.answers();
        silence = if now == answers { silence + EVERY } else { Duration::ZERO };
        answers = now;
    }
    let server_pid = heard.server_pid.load(Ordering::Relaxed);
    let reason = timeout(LOOK_MAX, reason(database, server_pid)).await;
    let (waited_s, silence_max_s) = (TOLD_AFTER.as_secs(), silence_max.as_secs());
    tell(&match reason {
        Ok(Ok(Reason::Lock { pid: 0, .. })) => format!(
            "the database has waited for {waited_s} s for a lock that a prepared transaction holds (pg_prepared_xacts)"
        ),
        Ok(Ok(Reason::Lock { pid, role, program })) => {
            let [role, program] = [role, program].map(|name| name.unwrap_or_default());
            format!(
                "the database has waited for {waited_s} s for a lock that its process {pid} holds (role {role}, program \
                 \"{program}\"; more is in pg_stat_activity); after {} s it gives up",
                LOCK_MAX.as_secs()
            )
        }
        Ok(Ok(Reason::Standby)) => format!(
            "the database has waited for {waited_s} s for a standby that has to confirm (synchronous_standby_names)"
        ),
        Ok(Ok(Reason::Work(on))) => {
            let on = on.map_or_else(String::new, |on| format!(", now {on}"));
            format!(
                "the database has been at work for {waited_s} s (pg_stat_activity{on}), and no lock is in its way"
            )
        }
        Ok(Err(_)) | Err(_) => format!(
            "the database has not answered for {waited_s} s; it is given up when it is silent for {silence_max_s} s"
        ),
    });
}

async fn reason(database: &Database, server_pid: i32) -> Result<Reason, DatabaseError> {
    let connection = database.connect(LOOK_MAX, LOOK_MAX).await?;
    let rows = connection
        .client
        .query_typed(
            "SELECT p.pid, b.usename::text, b.application_name, w.wait_event FROM pg_stat_activity w \
             LEFT JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p(pid) ON true \
             LEFT JOIN pg_stat_activity b ON b.pid = p.pid WHERE w.pid = $1 ORDER BY p.pid LIMIT 1",
            &[(&server_pid, Type::INT4)],
        )
        .await?;
    let gone = || DatabaseError::Unreachable("its process is gone".to_owned());
    let row = rows.first().ok_or_else(gone)?;
    Ok(match (row.try_get(0)?, row.try_get::<_, Option<String>>(3)?) {
        (Some(pid), _) => Reason::Lock { pid, role: row.try_get(1)?, program: row.try_get(2)? },
        (None, Some(event)) if event == "SyncRep" => Reason::Standby,
        (None, event) => Reason::Work(event),
    })
}
