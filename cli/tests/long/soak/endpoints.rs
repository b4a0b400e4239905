//! Endpoints of a soak, and how each of their sessions ends.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::endpoint::{Dial, End, Endpoint, NDATA, START, message};
use crate::common::manager::PATIENCE;

/// RESULT of a refusal.
const REFUSAL: [u8; 6] = [0x40, 0, 0, 2, 0, 1];
/// The alert of who shows no certificate.
const CERTIFICATE_REQUIRED: u8 = 116;
/// Pause before it is tried again to reach a proxy that is down.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Its mlet exits with 0.
    Good,
    /// Its mlet exits with 3.
    Fails,
    /// A signal ends its mlet.
    Crashes,
    /// Its mlet never ends by itself.
    TooLong,
    /// The endpoint closes first.
    Leaves,
    /// The endpoint ends without close_notify.
    Fin,
    Reset,
    /// The same, with bytes of its mlet on their way.
    ResetInFlood,
    /// START is refused.
    Refuses,
    /// START is not answered.
    Silent,
    /// It leaves when it is to start.
    LeavesEarly,
    /// The handshake is broken by bytes that are no TLS.
    Garbage,
    /// It shows no certificate.
    Nobody,
}

/// How many of a hundred sessions end so.
const MIX: [(Kind, u32); 13] = [
    (Kind::Crashes, 5),
    (Kind::Fails, 5),
    (Kind::TooLong, 1),
    (Kind::Leaves, 10),
    (Kind::Fin, 3),
    (Kind::Reset, 5),
    (Kind::ResetInFlood, 2),
    (Kind::Refuses, 2),
    (Kind::Silent, 1),
    (Kind::LeavesEarly, 2),
    (Kind::Garbage, 2),
    (Kind::Nobody, 2),
    (Kind::Good, 60),
];

impl Kind {
    /// Of the session with this number.
    fn of(number: u32) -> Self {
        // 37 and 100 have no common divisor: all kinds, well mixed.
        let mut place = number * 37 % 100;
        for (kind, share) in MIX {
            if place < share {
                return kind;
            }
            place -= share;
        }
        unreachable!("the shares make a hundred")
    }

    /// The outcomes that its record may have.
    pub(super) fn outcomes(self) -> &'static [&'static str] {
        match self {
            Self::Good => &["ok"],
            Self::Fails => &["mlet_failed"],
            Self::Crashes => &["mlet_signal"],
            Self::TooLong => &["mlet_timeout"],
            Self::Leaves | Self::LeavesEarly => &["endpoint_closed"],
            // The proxy hands on a reset as whatever its kernel makes of a closed socket.
            Self::Fin | Self::Reset => &["endpoint_closed", "endpoint_reset"],
            // All that its mlet wrote may be with the proxy by then.
            Self::ResetInFlood => &["endpoint_closed", "endpoint_reset", "undelivered", "ok"],
            Self::Refuses => &["start_refused"],
            Self::Silent => &["setup_timeout"],
            Self::Garbage => &["tls_failed"],
            Self::Nobody => &["certificate_refused"],
        }
    }

    /// Whether its mlet says which session it is.
    fn has_mlet(self) -> bool {
        self < Self::Refuses
    }
}

/// What an endpoint saw of its session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// Its number, if its mlet could say it.
    pub(super) number: Option<u64>,
    pub(super) end: SeenEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenEnd {
    AsMeant,
    /// The proxy was killed meanwhile.
    CutOff,
    /// It ended before, and nothing had happened to the proxy.
    Otherwise,
}

/// Has the session of this number with the proxy at `nobody`; `faults` counts what happens to it.
pub(super) fn plays(number: u32, known: &[Dial], nobody: &Dial, faults: &AtomicU32) -> Seen {
    let kind = Kind::of(number);
    let dial = match kind {
        Kind::Nobody => nobody,
        _ => &known[number as usize % known.len()],
    };
    let start = Instant::now();
    let (mut endpoint, before) = loop {
        let before = faults.load(Ordering::SeqCst);
        match dial.try_connect() {
            Ok(endpoint) => break (endpoint, before),
            Err(error) => assert!(start.elapsed() < PATIENCE, "the proxy stays away: {error}"),
        }
        thread::sleep(RETRY_PAUSE);
    };
    let mut number = None;
    let played = play(&mut endpoint, kind, &mut number);
    if kind == Kind::Reset || kind == Kind::ResetInFlood {
        endpoint.reset();
    }
    let is_excused = !before.is_multiple_of(2) || faults.load(Ordering::SeqCst) != before;
    let end = match played {
        // That it ended may have another reason than the one that was meant.
        _ if is_excused => SeenEnd::CutOff,
        Ok(()) => SeenEnd::AsMeant,
        Err(end) => {
            eprintln!("soak: {kind:?}, session {number:?}: {end:?} after {:?}", start.elapsed());
            SeenEnd::Otherwise
        }
    };
    Seen { kind, number, end }
}

/// Does what this kind does, as far as to the end; an error is an end that is not meant.
fn play(endpoint: &mut Endpoint, kind: Kind, number: &mut Option<u64>) -> Result<(), End> {
    if kind == Kind::Garbage {
        let hello = endpoint.hello();
        endpoint.tcp.write_all(&hello)?;
        endpoint.second_flight()?;
        endpoint.tcp.write_all(b"\xff\xfe no TLS at all, and long enough for a header")?;
        return endpoint.raw_rest().map(drop);
    }
    endpoint.handshake()?;
    if kind == Kind::Nobody {
        return ends(endpoint, &End::Alert(CERTIFICATE_REQUIRED));
    }
    if !kind.has_mlet() {
        let (message_type, _) = endpoint.receive()?;
        assert_eq!(message_type, START);
        match kind {
            Kind::Refuses => endpoint.try_send(&REFUSAL)?,
            Kind::LeavesEarly => endpoint.close(),
            _ => return ends(endpoint, &End::Fin),
        }
        return ends(endpoint, &End::CloseNotify);
    }
    endpoint.set_up()?;
    let say =
        |endpoint: &mut Endpoint, order: &str| endpoint.try_send(&message(NDATA, order.as_bytes()));
    say(endpoint, "session")?;
    let (_, told) = endpoint.receive()?;
    *number = Some(String::from_utf8(told).unwrap().parse().unwrap());
    match kind {
        Kind::Good => say(endpoint, "exit 0")?,
        Kind::Fails => say(endpoint, "exit 3")?,
        Kind::Crashes => say(endpoint, "signal 11")?,
        Kind::TooLong => say(endpoint, "silent")?,
        Kind::Leaves => endpoint.close(),
        Kind::Fin => endpoint.tcp.shutdown(Shutdown::Write)?,
        Kind::ResetInFlood => {
            say(endpoint, "flood 3 50000")?;
            endpoint.tcp.peek(&mut [0])?;
        }
        _ => {}
    }
    match kind {
        Kind::Reset | Kind::ResetInFlood => return Ok(()),
        Kind::Fin => {}
        _ => ends(endpoint, &End::CloseNotify)?,
    }
    endpoint.close();
    Ok(())
}

/// Reads to the end, which must be this one.
fn ends(endpoint: &mut Endpoint, expected: &End) -> Result<(), End> {
    match endpoint.read_to_end().1 {
        end if end == *expected => Ok(()),
        end => Err(end),
    }
}
