//! Conditions without which a promise of docs/reliability.md would be broken. Where one is tested, `holds` stands beside
//! it, so that `.ci/sabotage` can take it out and see whether its test fails (spec/reliability.md 8, "Against false green").
//!
//! In every program that is shipped each guard holds, which the compiler knows: what stands beside a condition costs
//! nothing. With the feature `sabotage` a process runs without the one that the environment names: it is for the tests of
//! `.ci/sabotage` and the programs that these start, and no optimised program can be built with it.
//!
//! Which test misses which guard is in `tests.csv`.

#![forbid(unsafe_code)]

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!(
    "the feature `sabotage` is for .ci/sabotage alone: no optimised program may lack a guard"
);

/// The guards, with their names.
macro_rules! guards {
    ($($(#[$meaning:meta])+ $guard:ident,)+) => {
        /// A condition that must hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Guard {
            $($(#[$meaning])+ $guard,)+
        }

        impl Guard {
            /// All there are, each once.
            pub const ALL: &[Self] = &[$(Self::$guard,)+];

            /// What it is called in `tests.csv` and in the environment.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$guard => stringify!($guard),)+
                }
            }
        }
    };
}

guards! {
    // Of a shard, which its simulation misses. Each stands for a defect that was there once.
    /// A turn takes only the completions that were there when it began.
    TurnEnds,
    /// What is under way on a session that is over is cancelled once, not at every completion.
    CancelsOnce,
    /// Whoever found no buffer is helped when one is back.
    WakesForBuffers,
    /// A socket is closed only when no operation is under way on it.
    ClosesWhenQuiet,
    /// A message is for the session that it names, and not for whatever is in its slot.
    KnowsSessions,
    /// A look at sockets on which nothing moves is not due again in the same turn.
    ProbesLater,
    /// What a mlet writes when its endpoint has ended is read though that endpoint takes nothing more.
    ReadsBesideSends,

    // Of trust and TLS.
    /// A certificate counts only between its dates.
    ChecksDates,
    /// Each certificate of a chain is signed by the key above it.
    ChecksSignatures,
    /// A delegation is of the kind that the chain needs.
    ChecksDelegations,
    /// Below a certificate are no more delegations than it allows.
    ChecksPathLen,
    /// A chain has no more certificates than may be.
    BoundsChain,
    /// Where a signature was wrong, what is above it is not checked again for each end that the chain may have.
    BoundsSignatures,
    /// A peer has signed the handshake with the key of its certificate.
    ChecksPossession,
    /// Only so many records in a row may bring no data.
    BoundsEmptyRecords,
    /// Only so many KeyUpdates may come without data.
    BoundsKeyUpdates,

    // Of a session.
    /// A handshake that is not over in time ends its session.
    EndsLateHandshakes,
    /// A START that is not answered in time ends its session.
    EndsLateStarts,
    /// An endpoint that does not close in time is closed.
    EndsLateCloses,
    /// A session ends when nobody takes the last bytes of a peer that is gone.
    EndsUntaken,
    /// A session in which nothing passes for too long ends.
    EndsIdle,
    /// An endpoint is not closed before it has closed, as what it still sends would make TCP reset the connection.
    Lingers,
    /// What an endpoint sent before it ended is delivered before the mlet reads the end.
    DeliversToMlet,
    /// While a mlet takes nothing, nothing more is read of its endpoint.
    StopsEndpoint,
    /// No TLS record holds bytes of two messages.
    CutsRecords,
    /// A LINFO does not reach the mlet.
    TakesOutLinfos,
    /// So many LINFOs a second are logged, and no more.
    BoundsLinfos,
    /// What an endpoint has logged steers no terminal.
    EscapesLinfos,
    /// No key has more sessions than its share.
    BoundsSessionsOfKey,
    /// An endpoint that was measured is not measured again where each is to be measured once.
    MeasuresOnce,
    /// At the first signal, sessions past START go on.
    DrainsSessions,
    /// A session keeps what it began with when files are read again.
    KeepsExperiments,
    /// An endpoint that speaks before it is asked is dropped.
    RefusesUnasked,
    /// No START is sent under a chain of ours that has expired.
    ChecksOwnChain,
    /// What a proxy announces to be longer than its answer can be is refused before it comes.
    BoundsAnswers,

    // Of a shard's admission.
    /// No more are in set-up than there are places.
    BoundsSetUps,
    /// No more sessions are open than may be.
    BoundsSessions,
    /// Whoever does not go on with its set-up makes room for those who wait.
    MakesRoom,
    /// Those who wait for a place take turns by address.
    TakesTurns,
    /// No address has more in set-up than it may.
    BoundsAddress,
    /// Who has more places in set-up than the share of a key makes room for those who wait.
    SharesPlaces,
    /// At the first signal, new connections are refused.
    ClosesListeners,
    /// Where descriptors are short, accepting pauses.
    PausesAccepting,
    /// Beside sessions that relay, a turn takes one costly step of a handshake.
    PacesHandshakes,
    /// Where relayed bytes keep coming, handshakes have no more than their share of the time.
    SharesTime,
    /// A handshake whose time is over, or whose peer has left before its ClientHello was looked at, costs no key exchange.
    DropsVainHandshakes,
    /// Who has lost the lease ends the sessions that it permitted.
    Fences,

    // Of permits.
    /// A session that fails before its mlet begins gives back its part of `-n`.
    GivesBackPermits,
    /// No more permits are out than attempts are left.
    BoundsPermits,
    /// No key holds all permits.
    SharesPermits,

    // Of the control thread.
    /// A mlet that runs too long is ended.
    EndsLongMlets,
    /// A run ends at its deadline.
    EndsRunInTime,
    /// What still runs when a run has drained for too long is ended.
    EndsDrainInTime,
    /// A peer that fails is not tried again at once.
    BacksOff,
    /// A shard that makes no turn is told of.
    NoticesStandstill,
    /// Of one kind only so many warnings are written in a second.
    BoundsWarnings,

    // Of processes.
    /// Descriptors that come to the supervisor are not for every mlet.
    ClosesOnExec,
    /// One SIGCHLD may stand for many children, and all that have ended are reaped.
    ReapsAll,
    /// Orphans of mlets are adopted.
    AdoptsOrphans,
    /// Mlets end with their manager.
    EndsMletsOfGone,
    /// Mlets end when their supervisor is gone.
    EndsMletsOfLost,
    /// What a mlet leaves in its process group is killed with it.
    KillsWholeGroups,
    /// Who does not heed TERM is killed.
    KillsAfterGrace,
    /// Whether a mlet can be started is tried before anybody is let in.
    TriesToStart,
    /// Memory with keys is hidden from other processes.
    HidesMemory,
    /// The key is kept out of swap and dumps.
    HoldsKey,
    /// A secret file that others may read or write is refused.
    ChecksSecretFiles,
    /// A secret file in a folder that anybody may change is refused.
    ChecksSecretFolders,
    /// Output that ends on a full disk is not taken for whole.
    DoubtsFullDisks,
    /// Of a mlet's output no more is kept than its limit.
    BoundsOutput,

    // Of what is written.
    /// A line that was torn is ended before the next.
    EndsTornLines,
    /// A record is in its file before a copy of it is elsewhere.
    WritesBeforeCopy,
    /// A result whose record could not be written is none.
    WritesBeforeResult,
    /// What waits to be logged is bounded.
    BoundsWaitingLog,
    /// Only so many have places at the control socket.
    BoundsClients,
}

/// Whether it holds: in every program, but not in a process that `.ci/sabotage` runs without it.
#[cfg(not(feature = "sabotage"))]
#[inline]
#[must_use]
pub const fn holds(_guard: Guard) -> bool {
    true
}

/// Whether it holds: unless PKTXPMGR_SABOTAGE has named it since this process began.
///
/// # Panics
/// PKTXPMGR_SABOTAGE names no guard.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn holds(guard: Guard) -> bool {
    use std::sync::OnceLock;
    static TAKEN_OUT: OnceLock<Option<Guard>> = OnceLock::new();
    let taken_out = TAKEN_OUT.get_or_init(|| {
        let name = std::env::var("PKTXPMGR_SABOTAGE").ok()?;
        let named = Guard::ALL.iter().find(|guard| guard.name() == name);
        Some(*named.unwrap_or_else(|| panic!("no guard is called {name}")))
    });
    *taken_out != Some(guard)
}
