//! What sessions relay, as it is shown to whoever asked for it: a thread of its own takes it to the log (`--trace`), to a
//! file of lines for each session (`--capture`), and to one file for Wireshark (`--pcap`).
//!
//! Not here: how it comes to be shown (`proto/tee.rs`). Invariant: a session never waits for this thread, nor the end of the
//! run for longer than [`LAST_MESSAGES`]; a place that takes no more is told of once, and the others go on.

mod capture;
mod log;
mod pcap;
mod place;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::{error, warn};

use crate::config::{Messages, RunId};
use crate::proto::tee::{Showing, Tees};
use crate::run_error::{RunError, lack};
use packetlab::escape::Escaped;
use packetlab::words::counted;

pub(crate) use self::capture::OPEN_MAX as CAPTURE_FILES_MAX;
use self::place::Place;
pub use self::place::TRACE_TARGET;

/// How long the end of the run waits for the last messages to be shown.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// For [`lack`].
const THREAD: &str = "start the thread that shows messages (clone3)";

/// A place and its name, for messages.
type Named = (String, Box<dyn Place>);

/// The thread that shows messages.
pub(crate) struct Trace {
    over: Receiver<bool>,
    has_files: bool,
}

impl Trace {
    /// Begins it; what it is to show comes from sessions. `run` names the run to mlets, if it does.
    ///
    /// # Errors
    /// A file cannot be had, or no thread.
    pub(crate) fn start(messages: &Messages, run: Option<RunId>) -> Result<(Tees, Self), RunError> {
        let mut places = places(messages, run)?;
        let has_files = messages.capture.is_some() || messages.pcap.is_some();
        let (tees, showing) = Tees::new(messages.of);
        let (tell, over) = sync_channel(1);
        let thread = thread::Builder::new().name("trace".into()).spawn(move || {
            let is_lost = show_all(&showing, &mut places);
            // It fails when nobody waits any more.
            let _ = tell.try_send(is_lost);
        });
        thread.map_err(lack(THREAD))?;
        Ok((tees, Self { over, has_files }))
    }

    /// Waits until all is shown; whether something is not in its file. To be called when the shards are over.
    pub(crate) fn end(self) -> bool {
        self.over.recv_timeout(LAST_MESSAGES).unwrap_or_else(|_| {
            warn!(target: TRACE_TARGET, "the last messages are missing here");
            self.has_files
        })
    }
}

fn places(messages: &Messages, run: Option<RunId>) -> Result<Vec<Named>, RunError> {
    let mut places: Vec<Named> = Vec::new();
    if messages.are_logged {
        places.push(("the log".to_owned(), Box::new(log::Log)));
    }
    let failed = |path: &PathBuf| {
        let path = path.clone();
        |error| RunError::Messages(path, error)
    };
    if let Some(folder) = &messages.capture {
        let capture = capture::Capture::open(folder, run).map_err(failed(folder))?;
        places.push((shown_path(folder), Box::new(capture)));
    }
    if let Some(path) = &messages.pcap {
        let pcap = pcap::Pcap::open(path, run).map_err(failed(path))?;
        places.push((shown_path(path), Box::new(pcap)));
    }
    Ok(places)
}

fn shown_path(path: &Path) -> String {
    Escaped(path.as_os_str().as_bytes()).to_string()
}

/// The thread's body; whether a place took no more.
fn show_all(showing: &Showing, places: &mut Vec<Named>) -> bool {
    let mut is_lost = false;
    while let Some(shown) = showing.next() {
        places.retain_mut(|(name, place)| match place.take(&shown) {
            Ok(()) => true,
            Err(error) => {
                is_lost = true;
                error!(
                    "messages of sessions cannot be written to {name}: {error}; it ends here, and \
                     the run goes on without"
                );
                false
            }
        });
        tell_missing_at_ends(showing);
    }
    tell_missing_at_ends(showing);
    is_lost
}

fn tell_missing_at_ends(showing: &Showing) {
    let missing = showing.take_missing_at_ends();
    if missing > 0 {
        let them = counted(missing, "message");
        warn!(target: TRACE_TARGET, "{them} missing here, of sessions that are over");
    }
}
