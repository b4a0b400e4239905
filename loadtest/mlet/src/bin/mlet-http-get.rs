//! `mlet-http-get [DOMAIN[:PORT] [PATH]]`: fetches a page through the endpoint and prints it, an example
//! of a mlet. A name is resolved here, at the controller, as the original's example does.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> HTTP status line <TAB> page, escaped to one line
//! ```
//!
//! Invariant: one page is one line and one write of at most `PIPE_BUF` bytes, so that the lines of many
//! mlets with one standard output never mix.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::arguments;
use mlet::{
    Client, Family, Message, MletError, Packet, Status, Ticks, check_closed, print_line, resolve,
};

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-http-get [DOMAIN[:PORT] [PATH]]\n\
    prints a line for its endpoint: key, address, status line of HTTP, page;\n\
    a page that has not come within 60 s is a failure";
const DEFAULT_DOMAIN: &str = "www.example.com";
const HTTP_PORT: u16 = 80;
/// The only socket this mlet opens.
const SKTID: u8 = 1;
/// The only thing it sends.
const TAG: NonZeroU16 = NonZeroU16::new(1234).unwrap();
/// Receive buffer asked for, in bytes.
const RECEIVE_BUFFER_LEN: u32 = 4096;
/// A write of so many bytes to a pipe is not mixed with others (`PIPE_BUF` on Linux).
const LINE_LEN_MAX: usize = 4096;
/// Of an answer no more than so many bytes are fetched; a page alone fills its line long before.
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// How long all of it may take, whatever the server does: one that sends a byte from time to time is not waited for
/// without end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ends a line whose page was cut.
const CUT_MARK: &str = " [cut]";

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, (domain, path)| {
        let server = resolve(&domain, HTTP_PORT)?;
        let answer = fetch(client, server, &domain, &path, PATIENCE)?;
        print_line(&line(&endpoint.columns(), &answer))
    })
}

/// Domain and path.
fn judged(words: &[String]) -> Result<(String, String), MletError> {
    let (domain, path) = match arguments::without_options(words)? {
        [] => (DEFAULT_DOMAIN, "/"),
        [domain] => (&**domain, "/"),
        [domain, path] => (&**domain, &**path),
        _ => return Err(MletError::Usage),
    };
    // A blank or the like would end it within the line of the request.
    let is_path = path.starts_with('/');
    if !is_path || path.contains(|one: char| one.is_ascii_control() || one == ' ') {
        let what = "begin it with / and write blanks as %20";
        return Err(MletError::Failed(format!("'{}' is no path; {what}", path.escape_debug())));
    }
    Ok((arguments::host(domain)?, path.to_owned()))
}

/// What the server sent, up to [`ANSWER_LEN_MAX`].
fn fetch(
    client: &mut Client,
    server: SocketAddr,
    domain: &str,
    path: &str,
    patience: Duration,
) -> Result<Vec<u8>, MletError> {
    client.set_session_deadline(Instant::now() + patience);
    client.connect(SKTID, server, RECEIVE_BUFFER_LEN)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {domain}\r\n\r\n");
    let packet = Packet::Tcp { family: Family::of(server.ip()), data: request.as_bytes() };
    client.send(SKTID, Ticks(0), TAG, packet)?;
    let answer = collect(client)?;
    client.close(SKTID)?;
    check(&answer).map_err(MletError::Failed)?;
    Ok(answer)
}

/// All data until the server closes or enough has come.
fn collect(client: &mut Client) -> Result<Vec<u8>, MletError> {
    let mut answer = Vec::new();
    while answer.len() < ANSWER_LEN_MAX {
        match client.notification()?.message() {
            Message::Ndata { sktid: SKTID, packet: Packet::Tcp { data, .. }, .. } => {
                answer.extend_from_slice(data);
            }
            Message::Ntag { sktid: SKTID, status, .. } if status != Status::SUCCESS => {
                return Err(MletError::Failed(format!("the request was not sent: {status}")));
            }
            Message::Nstat { sktid: SKTID, change, .. } => {
                return check_closed(change).map(|()| answer);
            }
            Message::Nblock { monitor_errid, .. } => {
                return Err(MletError::blocked(monitor_errid));
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// Whether an answer is one, and whole as far as it was fetched.
///
/// # Errors
/// It is not; why.
fn check(answer: &[u8]) -> Result<(), String> {
    if answer.is_empty() {
        return Err("the server closed without an answer".to_owned());
    }
    if !answer.starts_with(b"HTTP/") {
        return Err("what the server sent is no answer of HTTP".to_owned());
    }
    if answer.len() >= ANSWER_LEN_MAX {
        return Ok(());
    }
    let (head, Some(page)) = split(answer) else {
        return Err("the server closed before the page began".to_owned());
    };
    let lens = head.split(|&byte| byte == b'\n').filter_map(|line| {
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':')?);
        let value = str::from_utf8(value.get(1..)?).ok()?;
        name.eq_ignore_ascii_case(b"content-length").then(|| {
            let shown = || value.trim().chars().take(40).collect::<String>();
            let none = |_| format!("no page is '{}' bytes long", shown().escape_debug());
            value.trim().parse::<usize>().map_err(none)
        })
    });
    // A length that is none fails, whatever else is announced.
    match lens.collect::<Result<Vec<_>, _>>()?.into_iter().max() {
        Some(len) if page.len() < len => {
            Err(format!("the server closed after {} of {len} bytes of the page", page.len()))
        }
        _ => Ok(()),
    }
}

/// Head and page; the latter follows a blank line. Lines may end without a CR (RFC 9112, 2.2).
fn split(answer: &[u8]) -> (&[u8], Option<&[u8]>) {
    let ends = answer.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    for end in ends {
        let (head, rest) = answer.split_at(end);
        for blank in [&b"\n\r\n"[..], b"\n\n"] {
            if let Some(page) = rest.strip_prefix(blank) {
                return (head, Some(page));
            }
        }
    }
    (answer, None)
}

/// The line for one answer, cut to what one write to a pipe keeps together.
fn line(endpoint: &str, answer: &[u8]) -> String {
    let (head, page) = split(answer);
    let page = page.unwrap_or_default();
    let status = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut line = format!("{endpoint}\t{}\t{}", status.escape_ascii(), page.escape_ascii());
    if line.len() >= LINE_LEN_MAX || answer.len() >= ANSWER_LEN_MAX {
        // Escaped text is ASCII, so that every length is a character boundary; the rest is too.
        let mut end = line.len().min(LINE_LEN_MAX - 1 - CUT_MARK.len());
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str(CUT_MARK);
    }
    line
}

#[cfg(test)]
mod tests {
    use mlet::{Socket, StateChange};

    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// `(from the mlet, message)` as recorded between the original's example mlet and the original's
    /// endpoint, the page shortened.
    /// But for the looks at the clock, around NOPEN.
    const TRANSCRIPT: [(bool, &str); 13] = [
        (true, "28000006100100000008"),
        (true, "2a000013010406000010000000000000007f4d00010050"),
        (true, "28000006100100000008"),
        (false, "4100000c1001000018eaad6144af0000"),
        (false, "40000000"),
        (false, "4100000c1001000018eaad6144af4000"),
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
        let mut client = Client::new(near, mlet::SILENCE_MAX).unwrap();
        let fetching = std::thread::spawn(move || {
            let domain = "127.77.0.1";
            fetch(&mut client, resolve(domain, HTTP_PORT).unwrap(), domain, "/", PATIENCE).unwrap()
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

    /// The original's endpoints tell of a refused connection in the socket's memory alone.
    #[test]
    fn at_the_originals_endpoint_a_refused_connection_is_one_within_seconds() {
        let session = scripted_endpoint::start(|request, answers| match request {
            Message::Mread { address: 0x2000_0402, len: 1 } => {
                Message::Mdata { address: 0x2000_0402, data: &[0xFF] }.encode(answers).unwrap();
            }
            other => scripted_endpoint::original(other, answers),
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let started = Instant::now();
        let server = "192.0.2.7:81".parse().unwrap();
        let error = fetch(&mut client, server, "x", "/", PATIENCE).unwrap_err();
        let expected = "no connection to 192.0.2.7:81: refused after ";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(started.elapsed() < mlet::SILENCE_MAX / 2);
    }

    #[test]
    fn a_server_that_breaks_off_inside_the_page_is_a_failure() {
        let remote: SocketAddr = "192.0.2.7:80".parse().unwrap();
        let time = Ticks(0);
        let nstat = move |change| Message::Nstat { sktid: SKTID, time, change };
        let session = scripted_endpoint::start(move |request, answers| {
            scripted_endpoint::original(request, answers);
            let mut tell = |message: Message<'_>| message.encode(answers).unwrap();
            match request {
                Message::Nopen { .. } => tell(nstat(StateChange::TcpEstablished { remote })),
                Message::Nsend { packet, .. } => {
                    let data = b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhello";
                    let Socket { family, protocol, .. } = packet.socket(SKTID);
                    tell(Message::Ndata {
                        sktid: SKTID,
                        time,
                        packet: Packet::Tcp { family, data },
                    });
                    tell(nstat(StateChange::Code {
                        family,
                        protocol,
                        code: StateChange::PEER_CLOSED,
                    }));
                }
                _ => {}
            }
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let error = fetch(&mut client, remote, "x", "/", PATIENCE).unwrap_err().to_string();
        assert_eq!(error, "the server closed after 5 of 100 bytes of the page");
    }

    #[test]
    fn what_is_no_whole_answer_of_http_is_none() {
        let head = "HTTP/1.0 200 OK\r\nContent-LENGTH: 5";
        for (answer, problem) in [
            (format!("{head}\r\n\r\nhello"), None),
            (format!("{head}\r\n\r\nhello and more"), None),
            ("HTTP/1.0 200 OK\r\n\r\n".to_owned(), None),
            (format!("{head}\n\nhello"), None),
            (format!("{head}\r\n\nhello\r\n\r\n"), None),
            (format!("{head}\n\r\nhell"), Some("closed after 4 of 5 bytes of the page")),
            (format!("{head}\r\n\r\nhell"), Some("closed after 4 of 5 bytes of the page")),
            (head.to_owned(), Some("closed before the page began")),
            ("220 ready\r\n".to_owned(), Some("no answer of HTTP")),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello".to_owned(),
                Some("no page is '99999999999999999999' bytes long"),
            ),
            (
                format!(
                    "HTTP/1.0 200 OK\r\nContent-Length: -1\r\n{}\r\n\r\nhello",
                    "Content-Length: 5"
                ),
                Some("no page is '-1' bytes long"),
            ),
            (String::new(), Some("closed without an answer")),
        ] {
            let checked = check(answer.as_bytes()).err();
            assert_eq!(checked.is_some(), problem.is_some(), "{answer}");
            assert!(checked.unwrap_or_default().contains(problem.unwrap_or_default()), "{answer}");
        }
        let cut_by_us = format!(
            "{}{}",
            "HTTP/1.0 200 OK\r\nContent-Length: 999999\r\n\r\n",
            "x".repeat(ANSWER_LEN_MAX)
        );
        assert_eq!(check(cut_by_us.as_bytes()), Ok(()));
    }

    #[test]
    fn a_page_becomes_one_line() {
        let answer = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\none\ntwo\tthree\xff";
        assert_eq!(
            line("aa\t127.1.0.1", answer),
            "aa\t127.1.0.1\tHTTP/1.0 200 OK\tone\\ntwo\\tthree\\xff"
        );
        let with_bare_ends = b"HTTP/1.0 200 OK\nServer: x\n\none\r\n\r\ntwo";
        assert_eq!(line("a", with_bare_ends), "a\tHTTP/1.0 200 OK\tone\\r\\n\\r\\ntwo");
        assert_eq!(line("a", b"garbage"), "a\tgarbage\t");
        assert_eq!(line("a", b""), "a\t\t");
    }

    #[test]
    fn a_page_without_end_is_not_fetched_to_its_end() {
        let (near, mut endpoint) = UnixStream::pair().unwrap();
        let mut client = Client::new(near, mlet::SILENCE_MAX).unwrap();
        let flooding = std::thread::spawn(move || {
            let packet = Packet::Tcp { family: Family::Ipv4, data: &[b'x'; 4096] };
            let mut message = Vec::new();
            Message::Ndata { sktid: SKTID, time: Ticks(0), packet }.encode(&mut message).unwrap();
            while endpoint.write_all(&message).is_ok() {}
        });
        let answer = collect(&mut client).unwrap();
        drop(client);
        flooding.join().unwrap();
        assert_eq!(answer.len(), ANSWER_LEN_MAX);
        assert!(line("127.1.0.1", &answer).ends_with(CUT_MARK));
    }

    #[test]
    fn a_server_that_sends_a_byte_from_time_to_time_is_given_up() {
        let (near, mut endpoint) = UnixStream::pair().unwrap();
        let mut client = Client::new(near, mlet::SILENCE_MAX).unwrap();
        let server: SocketAddr = "192.0.2.7:80".parse().unwrap();
        let (sktid, time, family) = (SKTID, Ticks(0), Family::Ipv4);
        let mut told = bytes("4100000c100100000000000000000000");
        told.extend(bytes("40000000"));
        told.extend(bytes("4100000c100100000000000000000000"));
        let change = StateChange::TcpEstablished { remote: server };
        Message::Nstat { sktid, time, change }.encode(&mut told).unwrap();
        told.extend(bytes("40000000"));
        // It is there before the time begins: what has come is taken, however late the machine is.
        endpoint.write_all(&told).unwrap();
        let dripping = std::thread::spawn(move || {
            let mut drip = Vec::new();
            let packet = Packet::Tcp { family, data: b"x" };
            Message::Ndata { sktid, time, packet }.encode(&mut drip).unwrap();
            while endpoint.write_all(&drip).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let patience = Duration::from_millis(100);
        let error = fetch(&mut client, server, "x", "/", patience).unwrap_err().to_string();
        assert!(error.starts_with("the session's deadline passed when anything had"), "{error}");
        drop(client);
        dripping.join().unwrap();
    }

    #[test]
    fn a_long_page_is_cut_to_one_write() {
        let answer = [b"HTTP/1.0 200 OK\r\n\r\n", &[b'x'; 10_000][..]].concat();
        let line = line("127.1.0.1", &answer);
        assert_eq!(line.len(), LINE_LEN_MAX - 1);
        assert!(line.ends_with("xxx [cut]"));
    }
}
