//! `pktxpmgr` as a child process: starts it, learns where it listens, collects what its mlets print,
//! and ends it in the order that lets it end its own children. `pktfleet broker` and `pktfleet proxy` are
//! started and ended by the same means where a run needs them as processes of their own (`load`).
//!
//! Not here: its configuration (`home`) and what the output means (`demo`).
//!
//! Invariant: whoever drops a `Pktxpmgr` leaves no process of that name behind; [`Pktxpmgr::finish`]
//! and [`Pktxpmgr::stop`] leave none of its children either.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// From the start of the process to the log line that says it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// After its exit, for its output to end: longer means that a child of its has outlived it.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two signals of [`Pktxpmgr::stop`]. The manager itself gives mlets 2 s between TERM and KILL.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Lines of its log that are kept to explain a failure.
const LOG_LINES_MAX: usize = 20;
/// The log line that tells where it listens contains this, then the address.
const LISTENING: &str = "listening on ";
/// The log line that tells of the publication contains this.
const PUBLISHED: &str = "published at the broker ";

/// A running `pktxpmgr`.
#[derive(Debug)]
pub(crate) struct Pktxpmgr {
    child: Child,
    output: JoinHandle<io::Result<Vec<String>>>,
    log: JoinHandle<()>,
    log_tail: LogTail,
    log_flow: LogFlow,
}

/// What is left of a `pktxpmgr` that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its own exit status.
    pub(crate) status: ExitStatus,
    /// What its mlets printed, in lines.
    pub(crate) output: Vec<String>,
    /// The last lines of its log.
    pub(crate) log_tail: Vec<String>,
}

/// Why there is no usable `pktxpmgr`.
#[derive(Debug)]
pub(crate) enum PktxpmgrError {
    /// The process could not be started or watched.
    Process(io::Error),
    /// It ended, or stayed silent, before it was ready.
    NotReady {
        /// The file that was run.
        program: String,
        /// The last lines of its log.
        log_tail: Vec<String>,
    },
    /// It has exited, but some process still holds its standard output or error.
    OutputHeld,
}

impl fmt::Display for PktxpmgrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(cause) => write!(f, "pktxpmgr cannot be run: {cause}"),
            Self::NotReady { program, log_tail } => {
                let log =
                    if log_tail.is_empty() { "its log is empty" } else { "the end of its log:" };
                write!(f, "{program} did not get ready; {log}")?;
                log_tail.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::OutputHeld => write!(
                f,
                "pktxpmgr has exited but a process it started still runs and holds its output; \
                 look for left-over mlets with ps"
            ),
        }
    }
}

impl std::error::Error for PktxpmgrError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Process(cause) => Some(cause),
            Self::NotReady { .. } | Self::OutputHeld => None,
        }
    }
}

impl From<io::Error> for PktxpmgrError {
    fn from(cause: io::Error) -> Self {
        Self::Process(cause)
    }
}

impl Pktxpmgr {
    /// Starts `program` with `arguments` and waits until it listens; returns where, too.
    ///
    /// # Errors
    /// It cannot be started, or does not say `listening on ADDR` on standard error within 30 s.
    pub(crate) async fn listening<I, A>(
        program: &Path,
        arguments: I,
    ) -> Result<(Self, SocketAddr), PktxpmgrError>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
    {
        Self::start(program, arguments, listening_address).await
    }

    /// Starts `program` with `arguments` and waits until it has published its experiments.
    ///
    /// # Errors
    /// As [`Self::listening`], with `published at the broker`.
    pub(crate) async fn published<I, A>(program: &Path, arguments: I) -> Result<Self, PktxpmgrError>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
    {
        let is_published = |line: &str| line.contains(PUBLISHED).then_some(());
        Self::start(program, arguments, is_published).await.map(|(started, ())| started)
    }

    /// Starts `program` with `arguments` and waits for the log line that makes it `ready`, which is shown
    /// every line until then.
    ///
    /// # Errors
    /// As [`Self::listening`].
    pub(crate) async fn start<I, A, R>(
        program: &Path,
        arguments: I,
        ready: impl FnMut(&str) -> Option<R> + Send + 'static,
    ) -> Result<(Self, R), PktxpmgrError>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
        R: Send + 'static,
    {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("its output is not connected").into());
        };
        let output = tokio::spawn(collect(stdout));
        let (log_tail, log_flow) = (LogTail::default(), LogFlow::default());
        let (found, awaited) = oneshot::channel();
        let log = tokio::spawn(follow(stderr, (log_tail.clone(), log_flow.clone()), ready, found));
        match timeout(START_TIMEOUT, awaited).await {
            Ok(Ok(found)) => Ok((Self { child, output, log, log_tail, log_flow }, found)),
            Ok(Err(_)) | Err(_) => {
                let program = program.file_name().unwrap_or(program.as_os_str());
                let program = program.to_string_lossy().into_owned();
                Err(PktxpmgrError::NotReady { program, log_tail: log_tail.lines() })
            }
        }
    }

    /// How many bytes of its log have been read.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_flow.bytes.load(Ordering::Relaxed)
    }

    /// Whether its log is read from now on; one that is not fills its pipe. [`Self::stop`] reads the rest.
    pub(crate) fn read_log(&self, is_read: bool) {
        self.log_flow.is_read.send_replace(is_read);
    }

    /// Its process number; 0 once it has been waited for.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Waits for it to end by itself and for its output to end; without limit, so give it one.
    /// May be abandoned and called again, or followed by [`Self::stop`].
    ///
    /// # Errors
    /// Its output stays open after its exit.
    pub(crate) async fn finish(&mut self) -> Result<Ended, PktxpmgrError> {
        self.read_log(true);
        let status = self.child.wait().await?;
        let output = timeout(OUTPUT_TIMEOUT, &mut self.output).await;
        let output = output.map_err(|_| PktxpmgrError::OutputHeld)?.map_err(io::Error::other)??;
        let log = timeout(OUTPUT_TIMEOUT, &mut self.log).await;
        log.map_err(|_| PktxpmgrError::OutputHeld)?.map_err(io::Error::other)?;
        Ok(Ended { status, output, log_tail: self.log_tail.lines() })
    }

    /// Ends it: TERM (it lets running sessions end), TERM again (it ends them), KILL, 5 s apart.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(crate) async fn stop(mut self) -> Result<Ended, PktxpmgrError> {
        self.read_log(true);
        end(&mut self.child).await?;
        self.finish().await
    }
}

/// Ends a `pktxpmgr`, if it has not ended: TERM, TERM again, KILL, 5 s apart. How it has ended.
///
/// # Errors
/// It cannot be waited for.
pub(crate) async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..2 {
        signal(child, Signal::SIGTERM);
        if let Ok(status) = timeout(STOP_GRACE, child.wait()).await {
            return status;
        }
    }
    signal(child, Signal::SIGKILL);
    child.wait().await
}

/// Signals it, unless it has been waited for and the number may be another's by now.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid {
        // It can only fail when the process has just ended, which is what is wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The last lines of the log, shared with the task that reads it.
#[derive(Debug, Clone, Default)]
struct LogTail(Arc<Mutex<VecDeque<String>>>);

impl LogTail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// How the log flows, shared with the task that reads it.
#[derive(Debug, Clone)]
struct LogFlow {
    bytes: Arc<AtomicU64>,
    is_read: watch::Sender<bool>,
}

impl Default for LogFlow {
    fn default() -> Self {
        Self { bytes: Arc::default(), is_read: watch::Sender::new(true) }
    }
}

/// Every line of `output`. Bytes that are not UTF-8 are replaced: one odd mlet must not hide the rest.
async fn collect(output: impl AsyncRead + Unpin) -> io::Result<Vec<String>> {
    let mut reader = BufReader::new(output);
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).await? > 0 {
        lines.push(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
        line.clear();
    }
    Ok(lines)
}

/// Keeps the end of the log and reports what the first line that is `ready` tells. Reads until the log
/// ends, so that the manager never blocks on a full pipe, unless told to let it.
async fn follow<R>(
    log: impl AsyncRead + Unpin,
    (tail, flow): (LogTail, LogFlow),
    mut ready: impl FnMut(&str) -> Option<R>,
    found: oneshot::Sender<R>,
) {
    let mut reader = BufReader::new(log);
    let mut line = Vec::new();
    let mut found = Some(found);
    let mut is_read = flow.is_read.subscribe();
    // An error would mean that the flow is gone; it is ours.
    while is_read.wait_for(|is_read| *is_read).await.is_ok()
        && let Ok(len @ 1..) = reader.read_until(b'\n', &mut line).await
    {
        flow.bytes.fetch_add(len as u64, Ordering::Relaxed);
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        if found.is_some()
            && let Some(wanted) = ready(&text)
            && let Some(found) = found.take()
        {
            // Nobody waits any more when the start has been given up.
            let _ = found.send(wanted);
        }
        tail.push(text);
        line.clear();
    }
}

/// The address in a log line of the form `... listening on ADDR ...`.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once(LISTENING)?;
    after.split_ascii_whitespace().next()?.trim_end_matches([',', '.', ';']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in the place of pktxpmgr: what is tested here is only how a child is handled.
    async fn start(script: &str) -> Result<(Pktxpmgr, SocketAddr), PktxpmgrError> {
        Pktxpmgr::listening(Path::new("/bin/sh"), ["-c", script]).await
    }

    #[test]
    fn the_address_is_found_in_any_log_line_that_names_one() {
        let address: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        for line in [
            "listening on 127.0.0.1:4711",
            "2026-11-23T12:00:00Z  INFO engine: listening on 127.0.0.1:4711 shards=2",
            "INFO listening on 127.0.0.1:4711, 2 shards",
        ] {
            assert_eq!(listening_address(line), Some(address), "{line}");
        }
        assert_eq!(listening_address("listening on nothing"), None);
        assert_eq!(listening_address("listening"), None);
    }

    #[tokio::test]
    async fn output_and_exit_status_are_collected_whole() {
        let script = "echo 'INFO listening on 127.0.0.1:9' >&2; echo one; echo two; exit 3";
        let (mut child, address) = start(script).await.unwrap();
        assert_eq!(address, "127.0.0.1:9".parse().unwrap());
        let ended = child.finish().await.unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(ended.output, ["one", "two"]);
        assert_eq!(ended.log_tail, ["INFO listening on 127.0.0.1:9"]);
    }

    #[tokio::test]
    async fn a_manager_is_ready_when_it_has_published() {
        let script = "echo 'INFO listening on 127.0.0.1:9' >&2
            echo 'INFO published at the broker 127.0.0.1:8, without end' >&2";
        let mut child = Pktxpmgr::published(Path::new("/bin/sh"), ["-c", script]).await.unwrap();
        assert_eq!(child.finish().await.unwrap().status.code(), Some(0));
        let error = Pktxpmgr::published(Path::new("/bin/sh"), ["-c", "exit 5"]).await.unwrap_err();
        assert!(matches!(error, PktxpmgrError::NotReady { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_said_is_counted_and_a_log_that_is_not_read_holds_its_writer_up() {
        let name = |what| format!("pktfleet-log-{what}-{}", std::process::id());
        let [go, done] = ["go", "done"].map(|what| std::env::temp_dir().join(name(what)));
        // More than a pipe holds.
        let script = format!(
            "echo 'listening on 127.0.0.1:9' >&2; until [ -e {} ]; do sleep 0.01; done
            yes '' | head -c 300000 >&2; : > {}",
            go.display(),
            done.display()
        );
        let mut child = start(&script).await.unwrap().0;
        assert_eq!(child.log_bytes(), 25);
        child.read_log(false);
        std::fs::write(&go, "").unwrap();
        let ended = timeout(Duration::from_millis(300), child.child.wait()).await;
        assert!(ended.is_err() && !done.exists(), "it has ended although nobody reads its log");
        let ended = child.finish().await.unwrap();
        assert_eq!((ended.status.code(), child.log_bytes()), (Some(0), 25 + 300_000));
        for path in [go, done] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_manager_that_does_not_listen_is_explained_by_its_log() {
        let error = start("echo 'FATAL no key' >&2; exit 3").await.unwrap_err().to_string();
        assert!(error.contains("FATAL no key"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let missing = Path::new("/nonexistent/pktxpmgr");
        let error = Pktxpmgr::listening(missing, ["x"]).await.unwrap_err();
        assert!(matches!(error, PktxpmgrError::Process(_)), "{error}");
    }

    #[tokio::test]
    async fn stop_ends_a_manager_that_would_run_for_ever() {
        let script =
            "trap 'exit 143' TERM; echo 'listening on 127.0.0.1:9' >&2; while :; do :; done";
        let ended = start(script).await.unwrap().0.stop().await.unwrap();
        assert_eq!(ended.status.code(), Some(143));
    }
}
