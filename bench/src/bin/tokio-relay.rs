//! `tokio-relay HOME CORE MLET [ARGUMENT..]`: the data path of `pktxpmgr` written with tokio and tokio-rustls,
//! to compare with. HOME is a directory as `pktcred init` lays it out; CORE is the only core it runs on, or
//! `any`.
//!
//! The same: TLS configuration, programs and START, one mlet on a socket pair per endpoint, LINFO kept from
//! mlets, records of one message each, 32 KiB a read, nothing read while something of it waits to be sent.
//! Better than plain tokio-rustls: TCP is read 32 KiB at once, not 4, and all records of one read are
//! sent together.
//!
//! Left out: deadlines, the limits on sessions, the accounts and log of sessions, orderly end by signal (mlets
//! end because their sockets close), publication, the proxy mode and memory saved on idle sessions.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use std::{env, fs, future, thread};

use engine::config::Limits;
use engine::proto::linfo::{LinfoBudget, LinfoFilter};
use engine::sys::{cpu, limits, socket};
use packetlab::certificate::Certificate;
use packetlab::cut::Cutter;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::message::{Message, MessageType};
use packetlab::program::{Program, ProgramLanguage};
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bytes of one read, as in the engine's relay.
const READ_LEN: usize = engine::proto::outbox::RECEIVE_LEN;
/// For the endpoint to close after our end.
const LINGER: Duration = Duration::from_secs(2);

type Error = Box<dyn std::error::Error>;
type Tls = TlsStream<BufReader<TcpStream>>;

/// What every session needs.
struct Serving {
    acceptor: TlsAcceptor,
    /// The set-up as it is sent: a CDATA for each program.
    programs: Vec<Vec<u8>>,
    mlets: mpsc::Sender<(OwnedFd, SocketAddr)>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokio-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [home, core, mlet, arguments @ ..] = &arguments[..] else {
        return Err("usage: tokio-relay HOME CORE MLET [ARGUMENT..]".into());
    };
    let home = Path::new(home);
    limits::raise_open_files()?;
    tls::warm_up()?;
    // A thread that is not pinned starts the mlets: they may run on any core, as those of pktxpmgr.
    let (mlets, wanted) = mpsc::channel();
    let mut command = Command::new(mlet);
    command.args(arguments).env_clear();
    thread::spawn(move || start_mlets(command, &wanted));
    if core != "any" {
        cpu::pin_this_thread(core.parse()?)?;
    }
    let serving = Serving {
        acceptor: TlsAcceptor::from(tls_config(home)?),
        programs: programs(&home.join("progs"))?,
        mlets,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, accept(Rc::new(serving)))
}

fn tls_config(home: &Path) -> Result<Arc<ServerConfig>, Error> {
    let certificate = |name| -> Result<_, Error> {
        Ok(Certificate::from_pem(&fs::read(home.join("certs").join(name))?)?)
    };
    let chain = [certificate("pubcmd_exper_xc.cert")?, certificate("exppriv_eop_exper.cert")?];
    let key = PrivateKey::from_pem(&fs::read(home.join("keys/k_xc"))?, None)?;
    let operator = PublicKey::from_pem(&fs::read(home.join("keys/k_eop.pub"))?)?;
    let rule = PeerRule {
        mode: TrustMode::ControllerAuthenticatesEndpoint,
        anchors: vec![operator],
        mandatory: true,
    };
    Ok(tls::server_config(&Identity { chain: &chain, key: &key }, rule)?)
}

fn programs(directory: &Path) -> Result<Vec<Vec<u8>>, Error> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            let language = ProgramLanguage::from_file_name(entry.file_name().as_bytes())
                .map_err(|_| format!("{}: no program", entry.path().display()))?;
            let program = Program::from_file(language, &fs::read(entry.path())?)?;
            let mut cdata = Vec::new();
            Message::Cdata { hint: b"monitor", data: program.encoded() }.encode(&mut cdata)?;
            Ok(cdata)
        })
        .collect()
}

/// Starts a mlet for each socket that comes, and reaps those that have ended whenever another comes.
fn start_mlets(mut command: Command, wanted: &mpsc::Receiver<(OwnedFd, SocketAddr)>) {
    let mut running: Vec<Child> = Vec::new();
    for (session, endpoint) in wanted {
        let spawned = command.stdin(Stdio::from(session)).env("EPADDR", endpoint.ip().to_string());
        match spawned.spawn() {
            Ok(child) => running.push(child),
            Err(error) => eprintln!("tokio-relay: the mlet cannot run for {endpoint}: {error}"),
        }
        // The command keeps our copy of the mlet's end, which would keep the session open.
        command.stdin(Stdio::null());
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

async fn accept(serving: Rc<Serving>) -> Result<(), Error> {
    let bound = socket::bind_all((Ipv4Addr::LOCALHOST, 0).into(), false, 1)?;
    let bound = bound.into_iter().next().ok_or("no socket")?;
    let address = bound.local_address()?;
    let listener = bound.listen()?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    eprintln!("tokio-relay: listening on {address}");
    loop {
        // Connections inherit TCP_NODELAY from the socket they come from.
        let (stream, endpoint) = listener.accept().await?;
        let serving = Rc::clone(&serving);
        tokio::task::spawn_local(async move {
            if let Err(error) = serve(&serving, stream, endpoint).await {
                eprintln!("tokio-relay: {endpoint}: {error}");
            }
        });
    }
}

async fn serve(serving: &Serving, stream: TcpStream, endpoint: SocketAddr) -> Result<(), Error> {
    let stream = BufReader::with_capacity(READ_LEN, stream);
    let mut tls = serving.acceptor.accept(stream).await?;
    for cdata in &serving.programs {
        request(&mut tls, cdata).await?;
    }
    request(&mut tls, &[MessageType::START.0, 0, 0, 0]).await?;
    let (ours, mlets) = socket::session_pair()?;
    serving.mlets.send((mlets, endpoint)).map_err(|_| "the thread that starts mlets has ended")?;
    let ours = StdUnixStream::from(ours);
    ours.set_nonblocking(true)?;
    // Everything sealed of one read is sent before the next, which bounds it.
    tls.get_mut().1.set_buffer_limit(None);
    let mut relay = Relay::new(tls, UnixStream::from_std(ours)?);
    let over = future::poll_fn(|cx| relay.poll(cx)).await?;
    let Relay { mut tls, mut mlet, up, .. } = relay;
    let mut rest = up.bytes;
    match over {
        Over::Mlet => {
            tls.shutdown().await?;
            // Closing with bytes unread would take from the endpoint what it has not read yet.
            while timeout(LINGER, tls.read(&mut rest)).await?.is_ok_and(|len| len > 0) {}
        }
        Over::Endpoint => {
            mlet.shutdown().await?;
            while mlet.read(&mut rest).await? > 0 {}
        }
    }
    Ok(())
}

/// Sends `message`, which a RESULT of success answers.
async fn request(tls: &mut Tls, message: &[u8]) -> Result<(), Error> {
    tls.write_all(message).await?;
    tls.flush().await?;
    let mut header = [0; 4];
    tls.read_exact(&mut header).await?;
    let mut payload = vec![0; usize::from(header[3])];
    tls.read_exact(&mut payload).await?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (header, payload.iter().all(|byte| *byte == 0)) {
        ([0x40, 0, 0, _], true) => Ok(()),
        _ => Err(format!("answered with {} and {}", hex(&header), hex(&payload)).into()),
    }
}

/// Bytes on their way.
struct Block {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Block {
    fn new() -> Self {
        Self { bytes: vec![0; READ_LEN], start: 0, end: 0 }
    }
}

/// Who ended first.
enum Over {
    Mlet,
    Endpoint,
}

/// A session after START.
struct Relay {
    tls: Tls,
    mlet: UnixStream,
    up: Block,
    down: Vec<u8>,
    linfo: LinfoFilter,
    /// No LINFO is logged.
    nothing: LinfoBudget,
    began: Instant,
    cutter: Cutter,
    unsent: bool,
    endpoint_ended: bool,
    mlet_is_deaf: bool,
}

impl Relay {
    fn new(tls: Tls, mlet: UnixStream) -> Self {
        Self {
            tls,
            mlet,
            up: Block::new(),
            down: vec![0; READ_LEN],
            linfo: LinfoFilter::default(),
            nothing: LinfoBudget::new(&Limits { linfos_per_second: 0, ..Limits::default() }),
            began: Instant::now(),
            cutter: Cutter::default(),
            unsent: false,
            endpoint_ended: false,
            mlet_is_deaf: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Over>> {
        if self.poll_down(cx)?.is_ready() {
            return Poll::Ready(Ok(Over::Mlet));
        }
        self.poll_up(cx).map_ok(|()| Over::Endpoint)
    }

    /// Endpoint to mlet; ready when the endpoint has ended and the mlet has everything.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.up.start < self.up.end && !self.mlet_is_deaf {
                let bytes = &self.up.bytes[self.up.start..self.up.end];
                match ready!(pin!(&mut self.mlet).poll_write(cx, bytes)) {
                    Ok(len) => self.up.start += len,
                    // What it wrote before is still delivered.
                    Err(_) => self.mlet_is_deaf = true,
                }
            }
            if self.endpoint_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// Takes as many records as there are and as fit; pending when there is none.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.up.bytes);
        while buffer.remaining() > 0 {
            let had = buffer.filled().len();
            match Pin::new(&mut self.tls).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > had => {}
                // An end without close_notify is an end, too.
                Poll::Ready(_) => {
                    self.endpoint_ended = true;
                    break;
                }
                Poll::Pending if had == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        let filled = buffer.filled().len();
        self.up.start = 0;
        self.up.end =
            self.linfo.filter(&mut self.up.bytes[..filled], self.began, &self.nothing, drop);
        Poll::Ready(Ok(()))
    }

    /// Mlet to endpoint; ready when the mlet has ended and everything is sent.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.unsent {
                ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
                self.unsent = false;
            }
            let mut buffer = ReadBuf::new(&mut self.down);
            // A mlet that ended with bytes unread gives an error once and means its end.
            let read = ready!(Pin::new(&mut self.mlet).poll_read(cx, &mut buffer));
            let mut input = buffer.filled();
            if read.is_err() || input.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let (_, connection) = self.tls.get_mut();
            while let Some(piece) = self.cutter.next_piece(&mut input) {
                connection.writer().write_all(piece)?;
            }
            self.unsent = true;
        }
    }
}
