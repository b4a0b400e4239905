//! One mlet of every kind, for the tests of `pktxpmgr`: well-behaved, rude and dead ones.
//!
//! The first argument chooses the kind. Whatever waits here ends when the session does, or after a
//! minute, so that a failed test leaves nothing behind for long.

use std::fs;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockType, getsockopt, recv, recvmsg, send, sockopt,
};
use nix::unistd::{close, getpgrp, getppid, setsid};

/// Type of the messages that the zoo makes up itself (MDATA).
const MADE_UP: u8 = 0x41;

/// Longest that anything here stays when nobody ends it.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["dump"] => dump(),
        ["echo"] => echo(&mut session()),
        ["sink"] => sink(),
        ["silent"] => wait_for(PollFlags::empty()),
        ["flood", count, len] => flood(number(count), number(len)),
        ["pieces", piece, count, len] => pieces(number(piece), number(count), number(len)),
        ["leave", count, len] => leave(number(count), number(len)),
        ["both", count, len] => flood(number(count), number(len)).and_then(|()| sink()),
        ["both", count, len, theirs] => {
            flood(number(count), number(len)).and_then(|()| check(number(theirs)))
        }
        ["answer", messages] => answer(number(messages)),
        ["check", len] => check(number(len)),
        ["swap", count, len] => swap(number(count), number(len)),
        ["half"] => half(),
        ["obey"] => return obey(),
        ["stubborn"] => stubborn(),
        ["heedless"] => heedless(),
        ["farewell"] => farewell(),
        ["nap", from, to] => nap(number(from), number(to)),
        ["family"] => family(),
        ["gather", milliseconds] => gather(number(milliseconds)),
        ["pry"] => pry(),
        ["pry", ref pids @ ..] => pry_into(pids).map(|report| say(&report)),
        ["parent"] => parent(),
        ["daemon"] => daemon(),
        ["orphan"] => orphan(),
        ["heir"] => heir(),
        ["print", count, len] => print_lines(number(count), number(len)),
        ["spew", len] => spew(number(len)),
        ["speak"] => speak(),
        ["heirs"] => heirs(),
        ["single", "echo"] => single_echo(),
        ["single", "late"] => single_late(),
        ["single", "leave", count] => single_leave(number(count)),
        ["single", "speak"] => single_speak(),
        ["single", "exit", code] => {
            return ExitCode::from(u8::try_from(number(code)).unwrap_or(u8::MAX));
        }
        ["single", "fail"] => single_fail(),
        ["single", "deaf"] => single_deaf(),
        _ => {
            say(&format!("mlet-zoo: no such kind: {words:?}"));
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("mlet-zoo {words:?}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line into the log in one piece, which `eprintln!` does not.
fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or_else(|_| panic!("no number: {word}"))
}

/// The session as something to read and write; the descriptor is a second one for fd 0.
fn session() -> UnixStream {
    let fd = io::stdin().as_fd().try_clone_to_owned().expect("fd 0 is open");
    UnixStream::from(fd)
}

/// Reads one message; `None` at the end of the stream.
fn receive(stream: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut header = [0; 4];
    match stream.read_exact(&mut header[..1]) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    stream.read_exact(&mut header[1..])?;
    let [message_type, high, middle, low] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload)?;
    Ok(Some((message_type, payload)))
}

fn message(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&[MADE_UP], &len[1..], payload].concat()
}

/// Waits, not for ever, until fd 0 is as wanted or both its directions are over.
fn wait_for(wanted: PollFlags) -> io::Result<()> {
    let stdin = io::stdin();
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(stdin.as_fd(), wanted)], timeout)?;
    Ok(())
}

/// Gives everything back.
fn echo(session: &mut UnixStream) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match session.read(&mut bytes)? {
            0 => return Ok(()),
            len => session.write_all(&bytes[..len])?,
        }
    }
}

/// Reads to the end, then says on stderr what came.
fn sink() -> io::Result<()> {
    let mut session = session();
    let (mut messages, mut bytes) = (0, 0);
    while let Some((_, payload)) = receive(&mut session)? {
        messages += 1;
        bytes += payload.len();
    }
    say(&format!("sank {messages} messages with {bytes} bytes"));
    Ok(())
}

/// Writes one message for every so many that have come whole.
fn answer(messages: usize) -> io::Result<()> {
    let mut session = session();
    let mut count = 0;
    while receive(&mut session)?.is_some() {
        count += 1;
        if count % messages == 0 {
            session.write_all(&message(b"answer"))?;
        }
    }
    Ok(())
}

/// Reads to the end what must be the messages that `flood` writes, then says how many came from whom.
fn check(len: usize) -> io::Result<()> {
    let mut session = session();
    let mut count = 0;
    while let Some((message_type, came)) = receive(&mut session)? {
        if message_type != MADE_UP || came != payload(count, len) {
            return Err(io::Error::other(format!("what came is not message {count}")));
        }
        count += 1;
    }
    let peer = std::env::var("EPADDR").unwrap_or_default();
    say(&format!("{peer} sent {count} messages in order"));
    Ok(())
}

/// Writes what `flood` writes all at once, and meanwhile reads the same.
fn swap(count: usize, len: usize) -> io::Result<()> {
    let writer = thread::spawn(move || pieces(usize::MAX, count, len));
    check(len)?;
    writer.join().expect("the writer does not panic")
}

/// Writes messages that are numbered from 0, and exits right after.
fn flood(count: usize, len: usize) -> io::Result<()> {
    let mut session = session();
    for index in 0..count {
        session.write_all(&message(&payload(index, len)))?;
    }
    Ok(())
}

/// A number, then bytes that are another at each place (`made_up` of the tests).
fn payload(index: usize, len: usize) -> Vec<u8> {
    let mut payload: Vec<u8> =
        (0..len).map(|at| (index ^ at ^ (at >> 8)).to_le_bytes()[0]).collect();
    payload[..4].copy_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
    payload
}

/// Writes what `flood` writes in pieces of this length, whatever messages they cut or join.
fn pieces(piece: usize, count: usize, len: usize) -> io::Result<()> {
    let stream: Vec<u8> = (0..count).flat_map(|index| message(&payload(index, len))).collect();
    let mut session = session();
    stream.chunks(piece).try_for_each(|piece| session.write_all(piece))
}

/// Floods and exits with input unread.
fn leave(count: usize, len: usize) -> io::Result<()> {
    wait_for(PollFlags::POLLIN)?;
    flood(count, len)
}

/// Writes half a frame, and the rest when three messages have come.
fn half() -> io::Result<()> {
    let mut session = session();
    let frame = message(b"a frame in two halves");
    session.write_all(&frame[..9])?;
    for _ in 0..3 {
        receive(&mut session)?;
    }
    session.write_all(&frame[9..])?;
    echo(&mut session)
}

/// Does as its messages say: `say` gives that message back, `session` the number of the session, which it prints as well, `pass LEN` so many bytes that follow, whatever messages they
/// are of, `echo` all that follow, `silent` reads no more, `flood COUNT LEN` writes and exits,
/// `eat LEN` uses so many bytes of memory, `exit CODE` and `signal NUMBER` end it.
fn obey() -> ExitCode {
    let mut session = session();
    loop {
        let order = receive(&mut session).ok().flatten().map(|(_, order)| order);
        let order = String::from_utf8_lossy(&order.unwrap_or_default()).into_owned();
        let words: Vec<&str> = order.split(' ').collect();
        let done = match words[..] {
            ["say"] => {
                if session.write_all(&message(order.as_bytes())).is_ok() {
                    continue;
                }
                return ExitCode::FAILURE;
            }
            ["session"] => {
                let number = std::env::var("PKTLAB_SESSION").unwrap_or_default();
                println!("{number}");
                if session.write_all(&message(number.as_bytes())).is_ok() {
                    continue;
                }
                return ExitCode::FAILURE;
            }
            ["pass", len] => {
                if pass(&mut session, number(len)).is_ok() {
                    continue;
                }
                return ExitCode::FAILURE;
            }
            ["echo"] => echo(&mut session),
            ["silent"] => wait_for(PollFlags::empty()),
            ["flood", count, len] => flood(number(count), number(len)),
            ["eat", len] => {
                // Not zero, which would take none.
                std::hint::black_box(vec![1_u8; number(len)]);
                echo(&mut session)
            }
            ["exit", code] => return ExitCode::from(u8::try_from(number(code)).unwrap_or(u8::MAX)),
            ["signal", signal] => {
                let signal = i32::try_from(number(signal)).unwrap_or_default();
                let signal = Signal::try_from(signal).expect("a signal number");
                // The first SIGSEGV only makes Rust's own handler step aside.
                let _ = raise(signal).and_then(|()| raise(signal));
                return ExitCode::from(99);
            }
            _ => return ExitCode::from(65),
        };
        return if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
}

/// Gives so many bytes back as they come.
fn pass(session: &mut UnixStream, len: usize) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let most = left.min(bytes.len());
        let taken = session.read(&mut bytes[..most])?;
        if taken == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        session.write_all(&bytes[..taken])?;
        left -= taken;
    }
    Ok(())
}

/// Takes no notice of TERM, nor of the end of its session, after one message that says so.
fn stubborn() -> io::Result<()> {
    ignore_term()?;
    session().write_all(&message(b"try me"))?;
    thread::sleep(PATIENCE);
    Ok(())
}

/// Takes no notice of the end of its session, after one message that says so.
fn heedless() -> io::Result<()> {
    session().write_all(&message(b"try me"))?;
    eprintln!("heeds nothing");
    thread::sleep(PATIENCE);
    Ok(())
}

/// Answers TERM with one last message, and exits.
fn farewell() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    session().write_all(&message(b"try me"))?;
    signals.wait()?;
    session().write_all(&message(b"last words"))
}

/// Exits after some time between these milliseconds, by its process number.
fn nap(from: usize, to: usize) -> io::Result<()> {
    let milliseconds = from + std::process::id() as usize % (to - from);
    thread::sleep(Duration::from_millis(milliseconds as u64));
    Ok(())
}

/// Starts a process in its group that holds the session and takes no notice of TERM; says the pid of that, and sleeps.
fn family() -> io::Result<()> {
    let child = Command::new(std::env::current_exe()?).arg("orphan").spawn()?;
    session().write_all(&message(child.id().to_string().as_bytes()))?;
    thread::sleep(PATIENCE);
    Ok(())
}

/// Confirms each message. After the end it takes its time, and only then says on stderr what came.
fn gather(milliseconds: usize) -> io::Result<()> {
    let mut session = session();
    let mut messages = 0;
    while receive(&mut session)?.is_some() {
        messages += 1;
        session.write_all(&message(b"gathered"))?;
    }
    thread::sleep(Duration::from_millis(milliseconds as u64));
    say(&format!("gathered {messages} messages"));
    Ok(())
}

/// Says in one message what it may read of itself, the process that started it, and that one's parent. Then echoes.
fn pry() -> io::Result<()> {
    let supervisor = getppid();
    let status = fs::read_to_string(format!("/proc/{supervisor}/status"))?;
    let manager = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default();
    let report = pry_into(&["self", &supervisor.to_string(), manager.trim()])?;
    let mut session = session();
    session.write_all(&message(report.as_bytes()))?;
    echo(&mut session)
}

fn pry_into(pids: &[&str]) -> io::Result<String> {
    let mut report = String::new();
    for pid in pids {
        for file in ["mem", "environ", "maps", "auxv"] {
            // Some are judged when they are opened, some when they are read. Of memory nothing is at 0.
            let opened = fs::File::open(format!("/proc/{pid}/{file}"));
            let read = opened.and_then(|mut opened| match opened.read(&mut [0]) {
                Err(_) if file == "mem" => Ok(0),
                read => read,
            });
            report += &format!("{pid} {file}: {}\n", read.map_or_else(kind, |_| "read".into()));
        }
        let listed = fs::read_dir(format!("/proc/{pid}/fd")).map(|_| "read".into());
        report += &format!("{pid} fd: {}\n", listed.unwrap_or_else(kind));
    }
    Ok(report)
}

fn kind(error: io::Error) -> String {
    error.kind().to_string()
}

/// Blocked is as good as ignored.
fn ignore_term() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?)
}

/// Starts a process that leaves group and session and becomes an orphan, says its pid and echoes.
fn parent() -> io::Result<()> {
    let myself = std::env::current_exe()?;
    let output = Command::new(myself)
        .arg("daemon")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .output()?;
    let mut session = session();
    session.write_all(&message(&output.stdout))?;
    echo(&mut session)
}

fn daemon() -> io::Result<()> {
    setsid()?;
    let myself = std::env::current_exe()?;
    let mut orphan = Command::new(myself).arg("orphan").stdout(Stdio::piped()).spawn()?;
    // Until it says something TERM would end it.
    let said = orphan.stdout.as_mut().map(|stdout| stdout.read_exact(&mut [0]));
    said.transpose()?;
    print!("{}", orphan.id());
    Ok(())
}

fn orphan() -> io::Result<()> {
    ignore_term()?;
    io::stdout().write_all(b".")?;
    io::stdout().flush()?;
    heir()
}

/// Stays, and says nothing.
fn heir() -> io::Result<()> {
    thread::sleep(PATIENCE);
    Ok(())
}

/// Waits for the end of the session, then prints so many lines of this length, which begin with session and number.
fn print_lines(count: usize, len: usize) -> io::Result<()> {
    while receive(&mut session())?.is_some() {}
    let session = std::env::var("PKTLAB_SESSION").unwrap_or_default();
    let mut out = io::stdout().lock();
    for index in 0..count {
        let mut line = format!("{session}-{index}-");
        line.extend(std::iter::repeat_n('x', len - line.len()));
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

/// Writes so many bytes to standard output, none of which ends a line.
fn spew(mut len: usize) -> io::Result<()> {
    let piece = vec![b'.'; 1 << 16];
    let mut out = output(1)?;
    while len > 0 {
        len -= out.write(&piece[..len.min(piece.len())])?;
    }
    Ok(())
}

/// Writes the rest of each message to the descriptor that its first byte names, and answers with what came of that.
fn speak() -> io::Result<()> {
    let mut session = session();
    while let Some((_, payload)) = receive(&mut session)? {
        let (which, bytes) = payload.split_first().expect("a descriptor");
        let written = output(*which - b'0')?.write_all(bytes);
        let told = written.err().map_or_else(|| "done".to_owned(), |error| error.to_string());
        session.write_all(&message(told.as_bytes()))?;
    }
    Ok(())
}

/// A descriptor, without a buffer.
fn output(number: u8) -> io::Result<fs::File> {
    let fd = match number {
        1 => io::stdout().as_fd().try_clone_to_owned(),
        _ => io::stderr().as_fd().try_clone_to_owned(),
    };
    fd.map(fs::File::from)
}

/// Says something and leaves a process behind that has its descriptors 1 and 2.
fn heirs() -> io::Result<()> {
    say("begun");
    println!("begun");
    let myself = std::env::current_exe()?;
    Command::new(myself).arg("heir").stdin(Stdio::null()).spawn()?;
    Ok(())
}

/// Sends one message with all that a mlet can see of how it was started, then echoes.
fn dump() -> io::Result<()> {
    let mut report = String::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        // The descriptor that reads this directory.
        if !target.starts_with("/proc") {
            report += &format!("fd {} {}\n", entry.file_name().display(), target.display());
        }
    }
    for (name, value) in std::env::vars() {
        report += &format!("env {name}={value}\n");
    }
    for word in std::env::args() {
        report += &format!("arg {word}\n");
    }
    let session = session();
    let flags = OFlag::from_bits_retain(fcntl(&session, FcntlArg::F_GETFL)?);
    let is_stream = getsockopt(&session, sockopt::SockType)? == SockType::Stream;
    // Fails for a socket that is not AF_UNIX.
    session.local_addr()?;
    report += &format!("blocking {}\n", !flags.contains(OFlag::O_NONBLOCK));
    report += &format!("unix stream {is_stream}\n");
    report += &format!("pid {}\npgid {}\n", std::process::id(), getpgrp());
    for line in fs::read_to_string("/proc/self/limits")?.lines() {
        report += &format!("limit {line}\n");
    }
    let status = fs::read_to_string("/proc/self/status")?;
    for name in ["Cpus_allowed_list", "SigBlk", "SigIgn"] {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        report += &format!("{name} {}\n", line.unwrap_or_default().trim());
    }
    report += &format!("cwd {}\n", std::env::current_dir()?.display());
    let mut session = session;
    session.write_all(&message(report.as_bytes()))?;
    echo(&mut session)
}

/// One session of singleton mode as it came over the control socket. Only nix's calls on plain
/// numbers are used: making an owned descriptor of one is not safe, and this is a test of numbers.
struct Handed {
    text: Vec<u8>,
    fds: Vec<RawFd>,
}

/// The next session; `None` when the control socket is at its end.
fn next_session() -> io::Result<Option<Handed>> {
    let mut text = [0; 256];
    let mut room = nix::cmsg_space!([RawFd; 4]);
    let control = io::stdin().as_raw_fd();
    let (len, fds) = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = recvmsg::<()>(control, &mut parts, Some(&mut room), MsgFlags::empty())?;
        let mut fds = Vec::new();
        for part in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        (received.bytes, fds)
    };
    Ok((len > 0).then(|| Handed { text: text[..len].to_vec(), fds }))
}

/// Tells the session what was handed over for it, as its `index`th.
fn introduce(handed: &Handed, index: usize) -> RawFd {
    let Handed { text, fds } = handed;
    let report = format!(
        "index {index}\ntext {}\nfds {}\nblocking {}\n",
        text.escape_ascii(),
        fds.len(),
        blocks(fds[0])
    );
    send_all(fds[0], &message(report.as_bytes()));
    fds[0]
}

fn blocks(fd: RawFd) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
    let flags = i32::from_str_radix(flags.trim(), 8).expect("flags in octal");
    !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

fn send_all(fd: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match send(fd, bytes, MsgFlags::empty()) {
            Ok(len) => bytes = &bytes[len..],
            Err(_) => return,
        }
    }
}

fn echo_on(fd: RawFd) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = recv(fd, &mut bytes, MsgFlags::empty()) {
            send_all(fd, &bytes[..len]);
        }
        let _ = close(fd);
    })
}

/// Echoes on every session, side by side, until the control socket ends.
fn single_echo() -> io::Result<()> {
    let variables = std::env::vars().count();
    say(&format!("zoo: singleton with {variables} variables"));
    let mut sessions = Vec::new();
    while let Some(handed) = next_session()? {
        sessions.push(echo_on(introduce(&handed, sessions.len())));
    }
    say("zoo: control socket at its end");
    join(sessions);
    Ok(())
}

/// Takes the second session and those after it only when the first has sent something.
fn single_late() -> io::Result<()> {
    let first = next_session()?.ok_or(ErrorKind::UnexpectedEof)?;
    let mut sessions = vec![];
    let fd = introduce(&first, 0);
    recv(fd, &mut [0; 1], MsgFlags::empty())?;
    sessions.push(echo_on(fd));
    while let Some(handed) = next_session()? {
        sessions.push(echo_on(introduce(&handed, sessions.len())));
    }
    join(sessions);
    Ok(())
}

/// Takes `count` sessions, closes the control socket and serves those to their ends.
fn single_leave(count: usize) -> io::Result<()> {
    let mut sessions = Vec::new();
    while sessions.len() < count {
        let handed = next_session()?.ok_or(ErrorKind::UnexpectedEof)?;
        sessions.push(echo_on(introduce(&handed, sessions.len())));
    }
    let null: OwnedFd = fs::File::open("/dev/null")?.into();
    nix::unistd::dup2_stdin(null)?;
    join(sessions);
    Ok(())
}

/// Writes on the control socket, which is forbidden.
fn single_speak() -> io::Result<()> {
    let handed = next_session()?.ok_or(ErrorKind::UnexpectedEof)?;
    let session = echo_on(introduce(&handed, 0));
    send(io::stdin().as_raw_fd(), b"x", MsgFlags::empty())?;
    join(vec![session]);
    Ok(())
}

/// Echoes on every session until the control socket ends, and fails then.
fn single_fail() -> io::Result<()> {
    single_echo()?;
    Err(io::Error::other("not well done"))
}

/// Takes notice of nothing, not even of TERM.
fn single_deaf() -> io::Result<()> {
    ignore_term()?;
    say("zoo: deaf");
    thread::sleep(PATIENCE);
    Ok(())
}

fn join(sessions: Vec<JoinHandle<()>>) {
    for session in sessions {
        let _ = session.join();
    }
}
