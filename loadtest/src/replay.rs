//! `pktfleet replay`: a mlet against an endpoint that was recorded (`pktxpmgr --capture`), with no network: what the endpoint
//! said is said again, and the first thing that the mlet says otherwise is shown.
//!
//! ```text
//! recording.rs   the file, step by step     difference.rs   what was expected and what came, in words
//! conversation.rs   who speaks next
//! ```
//!
//! The endpoint's messages come in the order of the recording and not at its times: as soon as the mlet has said what it
//! had said before them, and has read the message before. How many messages a mlet finds when it reads is chance, and what
//! it does may depend on it; so it finds one. Not here: an endpoint that does what it is asked (`hosts`).
//!
//! Invariant: every wait has a deadline, and the exit code is the mlet's only where all was said as in the recording.

mod conversation;
mod difference;
mod recording;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::{Args, ValueHint};
use command_line::units::duration;
use engine::sys::socket::untaken_len;
use engine::sys::supervisor::MletStatus;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use packetlab::frame::Framer;
use packetlab::message::{Header, PAYLOAD_LEN_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::console;
use conversation::{Conversation, Next};
use difference::{Difference, Heard};
use hosts::interrupts::{Interrupt, Interrupts};
use recording::{Recording, RecordingError, Step, What};

/// Exit code where the mlet has not said what is recorded (EX_PROTOCOL).
const DIFFERS: u8 = 76;

/// Exit code where the recording or the mlet cannot be used, as pktxpmgr's own.
const UNUSABLE: u8 = 3;

/// Exit code where the machine does not let it (EX_SOFTWARE).
const FAILED: u8 = 70;

/// How long a mlet that has closed its session early may take to end, so that it can be told how it did.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// What the kernel may still count of a message that was read, at the moment when it tells of it, in bytes.
const LEFT_MAX: usize = 1;

const EXAMPLES: &str = "\
Examples:
  pktfleet replay here/1.jsonl -- ./mlet-dns www.example.org 192.0.2.53";

/// What `pktfleet replay` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, override_usage = "pktfleet replay [OPTIONS] FILE -- MLET [ARG]...")]
pub(crate) struct Options {
    /// How long the mlet may take for each step, beside the time that it took when it was recorded
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// A session's file of `pktxpmgr --capture`
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    recording: PathBuf,
    /// A path, never searched in PATH; what follows is for the mlet
    #[arg(value_name = "MLET", required = true, last = true, value_hint = ValueHint::FilePath)]
    mlet_and_arguments: Vec<OsString>,
}

/// Why the mlet has not said all that was recorded.
#[derive(Debug)]
enum ReplayError {
    Recording(PathBuf, RecordingError),
    NotStarted(PathBuf, io::Error),
    Differs(PathBuf, Box<Difference>),
    /// It has said everything, and goes on running.
    Stays(Duration),
    Io(io::Error),
    Interrupted(Interrupt),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NotStarted(path, error) => {
                write!(f, "the mlet {} cannot be started: {error}", path.display())
            }
            Self::Differs(path, difference) => write!(f, "{}, {difference}", path.display()),
            Self::Stays(waited) => write!(
                f,
                "the mlet has closed its session as recorded, but still ran {} s later; it was killed",
                waited.as_secs_f64()
            ),
            Self::Io(error) => error.fmt(f),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ReplayError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Recording(..) | Self::NotStarted(..) => UNUSABLE,
            Self::Differs(..) | Self::Stays(_) => DIFFERS,
            Self::Io(_) => FAILED,
            Self::Interrupted(interrupt) => interrupt.exit_code(),
        }
    }
}

/// Replays the recording; the mlet's exit code where it says what is recorded.
pub(crate) fn run(options: &Options) -> ExitCode {
    match replay(options) {
        Ok(status) => exit_code(status).into(),
        Err(error) => {
            console::note(format_args!("replay: {error}"));
            error.exit_code().into()
        }
    }
}

fn mlet_status(status: ExitStatus) -> Option<MletStatus> {
    let code = status.code().map(MletStatus::Code);
    code.or_else(|| status.signal().map(MletStatus::Signal))
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

fn replay(options: &Options) -> Result<ExitStatus, ReplayError> {
    let path = &options.recording;
    let recording = Recording::read(path);
    let recording = recording.map_err(|error| ReplayError::Recording(path.clone(), error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is anything to end: from here on a signal only asks.
        let mut interrupts = Interrupts::listen()?;
        let (mut child, endpoint) = start(options, &recording)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let played = interrupts.unless(async {
            if let Err(mut difference) = endpoint.play(&recording, options.timeout).await {
                if difference.is_end()
                    && let Ok(Ok(status)) = timeout(END_PATIENCE, child.wait()).await
                    && let Some(status) = mlet_status(status)
                {
                    difference.ended(status);
                }
                return Err(ReplayError::Differs(path.clone(), difference));
            }
            match timeout(options.timeout, child.wait()).await {
                Ok(status) => Ok(status?),
                Err(_) => Err(ReplayError::Stays(options.timeout)),
            }
        });
        let played = played.await.map_err(ReplayError::Interrupted).and_then(|played| played);
        // What the mlet has started does not outlive the replay; mostly there is nothing left.
        if let Some(group) = group {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        if played.is_err() {
            // It may have ended already.
            let _ = child.kill().await;
        }
        played
    })
}

/// Starts the mlet as pktxpmgr would, with what it found then.
fn start(options: &Options, recording: &Recording) -> Result<(Child, Endpoint), ReplayError> {
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let (reader, writer) = UnixStream::from_std(near)?.into_split();
    let [mlet, arguments @ ..] = &options.mlet_and_arguments[..] else {
        return Err(io::Error::other("a mlet is always named").into());
    };
    // A path with a slash is not searched for.
    let path = std::path::absolute(mlet)?;
    let name = Path::new(mlet).file_name().unwrap_or(mlet);
    let child = Command::new(&path)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(recording.found())
        .stdin(Stdio::from(OwnedFd::from(far)))
        .kill_on_drop(true)
        .process_group(0)
        .spawn()
        .map_err(|error| ReplayError::NotStarted(path, error))?;
    Ok((child, Endpoint { from_mlet: FromMlet::new(reader), to_mlet: writer }))
}

/// The recorded endpoint, behind its controller.
struct Endpoint {
    from_mlet: FromMlet,
    to_mlet: OwnedWriteHalf,
}

impl Endpoint {
    /// Says what was recorded, and hears whether the mlet does.
    ///
    /// # Errors
    /// It does not.
    async fn play(
        mut self,
        recording: &Recording,
        patience: Duration,
    ) -> Result<(), Box<Difference>> {
        let mut conversation = Conversation::new(recording.steps());
        while let Some(next) = conversation.next() {
            let (Next::Says(step, _) | Next::Ends(step) | Next::Awaited(step)) = next;
            let allowed = patience.saturating_add(step.took);
            match next {
                Next::Says(_, bytes) => self.say(step, &bytes, allowed).await?,
                Next::Ends(_) => {
                    // A mlet that is gone already needs no end.
                    let _ = self.to_mlet.shutdown().await;
                    return self.from_mlet.drain(step, allowed).await;
                }
                Next::Awaited(_) => {
                    conversation.hear(self.from_mlet.next(allowed).await, allowed)?;
                    if matches!(step.what, What::MletEnds) {
                        return Ok(());
                    }
                }
            }
        }
        console::note(
            "replay: the recording ends before its session did; what follows is not compared",
        );
        Ok(())
    }

    /// Meanwhile what the mlet says is read, as it may read only when it has said all.
    async fn say(
        &mut self,
        step: &Step,
        bytes: &[u8],
        allowed: Duration,
    ) -> Result<(), Box<Difference>> {
        let to_mlet = &mut self.to_mlet;
        let said = async {
            taken(to_mlet.as_ref()).await;
            // That the mlet is gone is seen where it should have said something.
            let _ = to_mlet.write_all(bytes).await;
        };
        let said = timeout(allowed, self.from_mlet.read_during(said)).await;
        said.map_err(|_| Box::new(Difference::unread(step, allowed)))
    }
}

/// Waits until the mlet has read what was sent, or reads no more.
async fn taken(sent: &UnixStream) {
    let is_taken = || match untaken_len(sent) {
        0..=LEFT_MAX => Ok(()),
        _ => Err(ErrorKind::WouldBlock.into()),
    };
    // Where the mlet has shut both sides, what it has not read stays, and the kernel says for ever that it can be written to.
    while let Ok(ready) = sent.ready(Interest::WRITABLE).await
        && !ready.is_write_closed()
        && sent.try_io(Interest::WRITABLE, is_taken).is_err()
    {}
}

/// What the mlet says.
struct FromMlet {
    reader: OwnedReadHalf,
    framer: Framer,
    is_over: bool,
}

impl FromMlet {
    fn new(reader: OwnedReadHalf) -> Self {
        Self { reader, framer: Framer::new(PAYLOAD_LEN_MAX), is_over: false }
    }

    /// The next message, or the end, also within a message, or that nothing comes in time.
    async fn next(&mut self, allowed: Duration) -> Heard {
        let whole = timeout(allowed, async {
            loop {
                if let Some(message) = self.take() {
                    return Heard::Message(message);
                }
                if self.is_over {
                    return Heard::End;
                }
                self.read().await;
            }
        });
        whole.await.unwrap_or(Heard::Nothing)
    }

    /// A whole message that has come.
    fn take(&mut self) -> Option<Vec<u8>> {
        // Every length that a header can announce is allowed.
        let (message_type, payload) = self.framer.next().ok().flatten()?;
        let header = Header { message_type, payload_len: payload.len() }.encode()?;
        Some([&header[..], payload].concat())
    }

    async fn read(&mut self) {
        let mut bytes = [0; 0x1_0000];
        match self.reader.read(&mut bytes).await {
            Ok(0) | Err(_) => self.is_over = true,
            Ok(len) => self.framer.push(&bytes[..len]),
        }
    }

    /// Reads while something else goes on.
    async fn read_during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                () = self.read(), if !self.is_over => {}
            }
        }
    }

    /// What a mlet still says to an endpoint that is gone matters to nobody; that it ends does.
    async fn drain(&mut self, step: &Step, allowed: Duration) -> Result<(), Box<Difference>> {
        let drained = timeout(allowed, async {
            while !self.is_over {
                self.read().await;
                while self.take().is_some() {}
            }
        });
        drained.await.map_err(|_| Box::new(Difference::stays(step, allowed)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const MESSAGE: [u8; 5] = [0x62, 0, 0, 1, 1];
    const STEP: Step = Step { line: 1, took: Duration::ZERO, what: What::EndpointSays(Vec::new()) };

    /// An endpoint, and what its mlet has.
    fn endpoint() -> (Endpoint, std::os::unix::net::UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let (reader, to_mlet) = near.into_split();
        let far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        (Endpoint { from_mlet: FromMlet::new(reader), to_mlet }, far)
    }

    #[tokio::test]
    async fn a_mlet_that_does_not_read_is_told_of_after_its_patience() {
        let (mut endpoint, mut mlet) = endpoint();
        let patience = Duration::from_millis(200);
        endpoint.say(&STEP, &MESSAGE, patience).await.unwrap();
        let unread = timeout(patience * 3 / 2, endpoint.say(&STEP, &MESSAGE, patience)).await;
        let told = unread.unwrap().unwrap_err().to_string();
        let expected =
            "  recorded: that it reads what the endpoint says\n  came:     nothing within 0.200 s";
        assert!(told.ends_with(expected), "{told}");
        // Where it reads, it is told the next one.
        mlet.read_exact(&mut MESSAGE.clone()).unwrap();
        endpoint.say(&STEP, &MESSAGE, Duration::from_secs(60)).await.unwrap();
    }

    #[test]
    fn a_mlet_that_has_shut_both_sides_unread_is_not_waited_for() {
        let (tell, told) = mpsc::channel();
        // Without end it would keep its thread.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (mut endpoint, mlet) = endpoint();
                let patience = Duration::from_secs(3600);
                endpoint.say(&STEP, &MESSAGE, patience).await.unwrap();
                mlet.shutdown(Shutdown::Both).unwrap();
                assert!(untaken_len(endpoint.to_mlet.as_ref()) > LEFT_MAX);
                endpoint.say(&STEP, &MESSAGE, patience).await.unwrap();
                tell.send(()).unwrap();
            });
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(()));
    }
}
