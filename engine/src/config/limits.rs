//! Every deadline, size and count that bounds a run, with its default.
//!
//! Not here: the options that set them (`cli/src/args/limits.rs`), and what happens at one.

use std::time::Duration;

/// Every deadline, size and count that bounds the run (spec/reliability.md 5). All can be set on the
/// command line, none in the config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake. Absolute, so that a trickle does not extend it.
    pub handshake_timeout: Duration,
    /// From the end of the handshake until all programs are answered, then from START to its RESULT, then to the start of
    /// the mlet. A permit is waited for twice as long. Absolute; far endpoints may be slow.
    pub setup_timeout: Duration,
    /// Longest time without progress while the rest of a session's bytes is delivered, and the longest that a mlet may go
    /// on writing whose endpoint has ended.
    pub drain_timeout: Duration,
    /// How long input is discarded after the last byte, so that a close does not reset the tail; how long a mlet whose
    /// endpoint has ended may be silent.
    pub linger_timeout: Duration,
    /// Pause in accepting after the process ran out of fds or memory.
    pub accept_pause: Duration,
    /// Of connecting to one address of the broker, of the handshake with it and of each answer.
    pub broker_timeout: Duration,
    /// Between the end of mlets' sessions and TERM when a run is ended by force: they read that end and write what they
    /// have gathered.
    pub eof_grace: Duration,
    /// Between TERM and KILL when a run, or a mlet, is ended by force.
    pub term_grace: Duration,
    /// How long a mlet may run. Then it gets TERM, with its process group, and KILL after `term_grace`; its session goes on
    /// until it has ended. `None` is no limit: only who writes a mlet knows how long it may take. Not for the one mlet of
    /// all sessions.
    pub mlet_timeout: Option<Duration>,
    /// How long a session may be relayed without a byte in either direction. Then it ends, and its mlet as at a forced
    /// end. `None` is no limit, since a measurement may be silent.
    pub idle_timeout: Option<Duration>,
    /// How long the run may last; then it is ended by force. `None` is no limit.
    pub deadline: Option<Duration>,
    /// How long the run may go on when no new endpoints are taken any more; then it is ended by force. `None` is no limit:
    /// what runs may finish.
    pub drain_limit: Option<Duration>,
    /// Sessions of one shard that may be in set-up at once; beyond it a few thousand wait accepted, and the
    /// kernel's queue behind them. A connection counts from its first byte.
    pub handshakes_max: usize,
    /// Sessions at once, of all shards together; 0 derives it from the limit of open files.
    pub sessions_max: usize,
    /// Sessions that one endpoint key may have at once, of all shards together; beyond it a session ends after the
    /// handshake. 0 is no limit; `None` is a quarter of all sessions, at least 16: one endpoint must not hold all there is
    /// room for, and those of a testbed may share a key. With 0 one key may also hold every place in set-up.
    pub sessions_per_key_max: Option<usize>,
    /// Sessions of one shard in set-up from one source address; beyond it a connection is closed at
    /// once. 0 is no limit.
    pub per_source_max: usize,
    /// Bytes of one LINFO that are logged; the rest is skipped and "truncated" noted.
    pub linfo_max: usize,
    /// LINFOs of one session that are logged in a second; those beyond are lost, and counted.
    pub linfos_per_second: u32,
    /// Bytes of log, escaped, that LINFOs of one session become in a second. Room for one as long as `linfo_max` of
    /// printable text; what is beyond is cut or lost. Escaping is the work of the shard that serves the session, and
    /// the log is written to a disk, or through a terminal.
    pub linfo_rate_max: usize,
    /// The same of all sessions together; those that log more than 1 KiB in a second may use half of it. A thousand
    /// endpoints that start in one second and log some lines each stay below it; it is 90 GB a day at worst.
    pub linfo_rate_total: usize,
}

/// The least that [`Limits::sessions_per_key_max`] is by default.
const SESSIONS_PER_KEY_MIN: usize = 16;

impl Limits {
    /// How many sessions one endpoint key may have where there is room for `sessions_max` in all; `None` is no limit.
    #[must_use]
    pub fn sessions_of_a_key(&self, sessions_max: usize) -> Option<usize> {
        match self.sessions_per_key_max {
            Some(0) => None,
            Some(max) => Some(max),
            None => Some((sessions_max / 4).max(SESSIONS_PER_KEY_MIN)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            setup_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(5),
            accept_pause: Duration::from_millis(100),
            broker_timeout: Duration::from_secs(10),
            eof_grace: Duration::from_millis(500),
            term_grace: Duration::from_secs(2),
            mlet_timeout: None,
            idle_timeout: None,
            deadline: None,
            drain_limit: None,
            handshakes_max: 1024,
            sessions_max: 0,
            sessions_per_key_max: None,
            per_source_max: 0,
            linfo_max: 64 * 1024,
            linfos_per_second: 100,
            linfo_rate_max: 128 * 1024,
            linfo_rate_total: 1024 * 1024,
        }
    }
}
