//! `mlet-http-get [DOMAIN[:PORT] [PATH]]`: fetches a page through the endpoint and prints it, an example
//! of a mlet. A name is resolved here, at the controller, as the original's example does.
//!
//! ```text
//! EPADDR <TAB> PKTLAB_ENDPOINT_KEY <TAB> HTTP status line <TAB> page, escaped to one line
//! ```
//!
//! Invariant: one page is one line and one write of at most `PIPE_BUF` bytes, so that the lines of many
//! mlets with one standard output never mix.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use engine::wire::message::{Family, Message, Open, Packet, StateChange, Status};
use engine::wire::time::Ticks;

mod client;

use client::{Client, ClientError};

const DEFAULT_DOMAIN: &str = "www.example.com";
const HTTP_PORT: u16 = 80;
/// The only socket this mlet opens.
const SKTID: u8 = 1;
/// The only thing it sends.
const TAG: u16 = 1234;
/// Receive buffer asked for, in bytes.
const RECEIVE_BUFFER_LEN: u32 = 4096;
/// Longest wait for anything from the endpoint.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A write of so many bytes to a pipe is not mixed with others (`PIPE_BUF` on Linux).
const LINE_LEN_MAX: usize = 4096;
/// Ends a line whose page was cut.
const CUT_MARK: &str = " [cut]";

/// Why there is no page.
#[derive(Debug)]
enum GetError {
    Client(ClientError),
    Resolve { domain: String, cause: io::Error },
    NoAddress { domain: String },
    NotConnected { code: u8 },
    NotSent(Status),
    Cut { code: u8 },
    Print(io::Error),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(cause) => cause.fmt(f),
            Self::Resolve { domain, cause } => write!(f, "{domain} has no address: {cause}"),
            Self::NoAddress { domain } => write!(f, "{domain} has no address"),
            Self::NotConnected { code } => write!(f, "no connection, NSTAT code {code}"),
            Self::NotSent(status) => write!(f, "the request was not sent: {status}"),
            Self::Cut { code } => write!(f, "the connection broke, NSTAT code {code}"),
            Self::Print(cause) => write!(f, "the page cannot be printed: {cause}"),
        }
    }
}

impl std::error::Error for GetError {}

impl From<ClientError> for GetError {
    fn from(cause: ClientError) -> Self {
        Self::Client(cause)
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let domain = arguments.next().unwrap_or_else(|| DEFAULT_DOMAIN.to_owned());
    let path = arguments.next().unwrap_or_else(|| "/".to_owned());
    let Ok(endpoint) = std::env::var("EPADDR") else {
        eprintln!("mlet-http-get: EPADDR is not set; a mlet is started by pktxpmgr");
        return ExitCode::FAILURE;
    };
    match run(&endpoint, &domain, &path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mlet-http-get: endpoint {endpoint}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(endpoint: &str, domain: &str, path: &str) -> Result<(), GetError> {
    let mut client = Client::on_stdin(SILENCE_MAX)?;
    let answer = fetch(&mut client, resolve(domain)?, domain, path)?;
    let key = std::env::var("PKTLAB_ENDPOINT_KEY").unwrap_or_default();
    print_line(&line(endpoint, &key, &answer)).map_err(GetError::Print)
}

/// `domain` may end in `:PORT`.
fn resolve(domain: &str) -> Result<SocketAddr, GetError> {
    let addresses = match domain.rsplit_once(':') {
        Some(_) => domain.to_socket_addrs(),
        None => (domain, HTTP_PORT).to_socket_addrs(),
    };
    let mut addresses =
        addresses.map_err(|cause| GetError::Resolve { domain: domain.to_owned(), cause })?;
    addresses.next().ok_or_else(|| GetError::NoAddress { domain: domain.to_owned() })
}

/// Everything the server sent.
fn fetch(
    client: &mut Client,
    server: SocketAddr,
    domain: &str,
    path: &str,
) -> Result<Vec<u8>, GetError> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let open = Open::TcpConnect { local: SocketAddr::new(any, 0), remote: server };
    client.request(&Message::Nopen {
        sktid: SKTID,
        receive_buffer_len: RECEIVE_BUFFER_LEN,
        open,
    })?;
    wait_until_established(client)?;

    let request = format!("GET {path} HTTP/1.0\r\nHost: {domain}\r\n\r\n");
    let packet = Packet::Tcp { family: Family::of(server.ip()), data: request.as_bytes() };
    client.request(&Message::Nsend { sktid: SKTID, time: Ticks(0), tag: TAG, packet })?;
    let answer = collect(client)?;
    client.request(&Message::Nclose { sktid: SKTID })?;
    Ok(answer)
}

fn wait_until_established(client: &mut Client) -> Result<(), GetError> {
    loop {
        match client.notification()?.message() {
            Message::Nstat { change: StateChange::TcpEstablished { .. }, .. } => return Ok(()),
            Message::Nstat { change: StateChange::Code { code, .. }, .. } => {
                return Err(GetError::NotConnected { code });
            }
            _ => {}
        }
    }
}

/// All data until the server closes.
fn collect(client: &mut Client) -> Result<Vec<u8>, GetError> {
    let mut answer = Vec::new();
    loop {
        match client.notification()?.message() {
            Message::Ndata { packet: Packet::Tcp { data, .. }, .. } => {
                answer.extend_from_slice(data);
            }
            Message::Ntag { status, .. } if status != Status::SUCCESS => {
                return Err(GetError::NotSent(status));
            }
            Message::Nstat { change: StateChange::Code { code, .. }, .. } => {
                return match code {
                    StateChange::PEER_CLOSED => Ok(answer),
                    code => Err(GetError::Cut { code }),
                };
            }
            _ => {}
        }
    }
}

/// The line for one answer, cut to what one write to a pipe keeps together.
fn line(endpoint: &str, key: &str, answer: &[u8]) -> String {
    let blank = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, page) = match blank {
        Some(at) => (&answer[..at], &answer[at + 4..]),
        None => (answer, &[][..]),
    };
    let status = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut line = format!("{endpoint}\t{key}\t{}\t{}", status.escape_ascii(), page.escape_ascii());
    if line.len() >= LINE_LEN_MAX {
        // Escaped text is ASCII, so that every length is a character boundary; the rest is too.
        let mut end = LINE_LEN_MAX - 1 - CUT_MARK.len();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str(CUT_MARK);
    }
    line.push('\n');
    line
}

/// One write, past the buffering of `io::stdout`, which may split it.
fn print_line(line: &str) -> io::Result<()> {
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    stdout.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// `(from the mlet, message)` as recorded between the original's example mlet and the original's
    /// endpoint, the page shortened.
    const TRANSCRIPT: [(bool, &str); 9] = [
        (true, "2a000013010406000010000000000000007f4d00010050"),
        (false, "40000000"),
        (false, "6100001101040618eaad6144af894d7f4d00010050"),
        (
            true,
            "2c000031010406000000000000000004d2474554202f20485454502f312e300d0a486f73743a20\
             3132372e37372e302e310d0a0d0a",
        ),
        (false, "40000000"),
        (false, "6000000b0104d218eaad61474ddb46"),
        (false, "6200002401040618eaad61479cf2f3485454502f312e3020323030204f4b0d0a0d0a68656c6c6f0a"),
        (false, "6100000c01040618eaad61479d2e6003"),
        (true, "2b00000101"),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_conversation_is_that_of_the_originals_example() {
        let (near, mut endpoint) = UnixStream::pair().unwrap();
        let mut client = Client::new(near, SILENCE_MAX).unwrap();
        let fetching = std::thread::spawn(move || {
            let domain = "127.77.0.1";
            fetch(&mut client, resolve(domain).unwrap(), domain, "/").unwrap()
        });
        for (from_mlet, message) in TRANSCRIPT {
            let expected = bytes(message);
            if from_mlet {
                let mut sent = vec![0; expected.len()];
                endpoint.read_exact(&mut sent).unwrap();
                assert_eq!(sent, expected);
            } else {
                endpoint.write_all(&expected).unwrap();
            }
        }
        endpoint.write_all(&bytes("40000000")).unwrap();
        assert_eq!(fetching.join().unwrap(), b"HTTP/1.0 200 OK\r\n\r\nhello\n");
    }

    #[test]
    fn a_page_becomes_one_line() {
        let answer = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\none\ntwo\tthree\xff";
        assert_eq!(
            line("127.1.0.1", "aa", answer),
            "127.1.0.1\taa\tHTTP/1.0 200 OK\tone\\ntwo\\tthree\\xff\n"
        );
        assert_eq!(line("a", "", b"garbage"), "a\t\tgarbage\t\n");
        assert_eq!(line("a", "", b""), "a\t\t\t\n");
    }

    #[test]
    fn a_long_page_is_cut_to_one_write() {
        let answer = [b"HTTP/1.0 200 OK\r\n\r\n", &[b'x'; 10_000][..]].concat();
        let line = line("127.1.0.1", "aa", &answer);
        assert_eq!(line.len(), LINE_LEN_MAX);
        assert!(line.ends_with("xxx [cut]\n"));
    }

    #[test]
    fn a_domain_may_name_its_port() {
        assert_eq!(resolve("127.0.0.1:8080").unwrap(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(resolve("127.77.0.1").unwrap(), "127.77.0.1:80".parse().unwrap());
        assert!(resolve("127.0.0.1:http").is_err());
    }
}
