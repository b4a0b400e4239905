//! The totals in a file, which outlive the process.
//!
//! ```text
//! pktfleet totals 1
//! AUTHORITY SERIAL  AUTHORITY SERIAL  EXPIRY  SENT-BYTES SENT-PACKETS RECEIVED-BYTES RECEIVED-PACKETS
//! memory INDEX BYTES
//! end 1
//! ```
//!
//! One line for each certificate: its own name, that of the last certificate of its chain, when it expires in
//! ticks, and what has been used up; behind it a line for each of its monitor programs that has kept something, by its
//! index among those of its session. The last line counts the certificates. Burst rates are not kept: their windows
//! are short, and no controller can restart an endpoint.
//!
//! Not here: when to write.
//!
//! Invariant: the file is replaced whole, by one that is on disk already, so that a crash at any moment leaves the
//! old or the new one. A file that cannot be read is an error and never an empty one.

use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use monitors::Persistent;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use packetlab::key::{Hex, KEY_LEN, KeyId};
use packetlab::time::Ticks;
use packetlab_home::file;

use super::account::{Account, Accounts, CertificateId, Totals};
use super::bounds::ACCOUNTS_MAX;

const NAME: &str = "totals";
const LOCK_NAME: &str = "lock";
/// Before the memory of a monitor program, which belongs to the account above it.
const MEMORY: &str = "memory ";
const FIRST_LINE: &str = "pktfleet totals 1";
/// Largest file that is read: more than twice what all accounts can have.
const LEN_MAX: u64 = 8 << 20;

/// The totals cannot be kept.
#[derive(Debug)]
pub struct StateError {
    path: PathBuf,
    cause: StateCause,
}

#[derive(Debug)]
enum StateCause {
    File(io::Error),
    Directory(io::Error),
    Lock(io::Error),
    InUse,
    Broken { line: usize, expected: &'static str },
    TooLong,
    NoFile,
    Write(io::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            StateCause::File(cause) => write!(f, "{path}: {cause}"),
            StateCause::Directory(cause) if cause.kind() == io::ErrorKind::AlreadyExists => write!(
                f,
                "{path}: this is no directory; name one for --state, or a place where there is nothing yet"
            ),
            StateCause::Directory(cause) => write!(
                f,
                "{path}: no directory can be made here: {cause}; name one for --state in which this program may make \
                 files"
            ),
            StateCause::Lock(cause) => write!(
                f,
                "{path}: no file can be made and locked here: {cause}; name a directory for --state in which this \
                 program may do that"
            ),
            StateCause::InUse => write!(
                f,
                "{path}: another endpoint keeps its totals here; give each a --state directory of its own"
            ),
            StateCause::Broken { line, expected } => write!(
                f,
                "{path}: line {line} is no {expected}: the file is damaged. Put a copy back, or remove it if every \
                 certificate may begin anew with what it allows"
            ),
            StateCause::TooLong => {
                write!(f, "{path}: it has more than {LEN_MAX} bytes, which no file of totals has")
            }
            StateCause::NoFile => write!(f, "{path}: this is no regular file"),
            StateCause::Write(cause) => write!(
                f,
                "{path}: what certificates have used up cannot be written: {cause}; no session begins or goes on \
                 before it can: make room there, or end the endpoint"
            ),
        }
    }
}

impl std::error::Error for StateError {}

/// The directory in which totals are kept, for one process alone.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// The contents of the file.
    written: Mutex<String>,
    _lock: Flock<File>,
}

impl Store {
    /// Opens a directory, or makes one; and what has been used up so far.
    pub(super) fn open(directory: &Path) -> Result<(Self, Accounts), StateError> {
        let unusable = |cause| StateError { path: directory.to_owned(), cause };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|cause| unusable(StateCause::Directory(cause)))?;
        let lock = directory.join(LOCK_NAME);
        // What is no file, such as a FIFO, must not be waited for.
        let flags = OFlag::O_NONBLOCK.bits();
        let mut options = File::options();
        options.create(true).truncate(false).write(true).custom_flags(flags);
        let file = options.open(&lock).map_err(|cause| unusable(StateCause::Lock(cause)))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => unusable(StateCause::InUse),
            error => unusable(StateCause::Lock(error.into())),
        })?;
        let path = directory.join(NAME);
        let failed = |cause| StateError { path: path.clone(), cause };
        let text = read(&path).map_err(failed)?;
        let accounts =
            if text.is_empty() { Accounts::new() } else { parse(&text).map_err(failed)? };
        let store =
            Self { directory: directory.to_owned(), written: Mutex::new(text), _lock: lock };
        Ok((store, accounts))
    }

    /// Writes the totals of these accounts. `anew` also if that is what was written last: there may be no room
    /// for it any more.
    pub(super) fn save<'a>(
        &self,
        accounts: impl FnOnce() -> MutexGuard<'a, Accounts>,
        anew: bool,
    ) -> Result<(), StateError> {
        // Held from the look at the accounts on, or an older look could be written after a newer one.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Copied first: every packet waits for the lock, and putting them into words takes longer.
        let used = used_of(&accounts());
        let text = text_of(used);
        if *written == text && !anew {
            return Ok(());
        }
        let path = self.directory.join(NAME);
        file::put(&path, text.as_bytes())
            .map_err(|cause| StateError { path, cause: StateCause::Write(cause) })?;
        *written = text;
        Ok(())
    }
}

/// The file's contents; nothing if there is none yet. An empty file is broken, and not the same.
fn read(path: &Path) -> Result<String, StateCause> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(StateCause::File(error)),
    };
    if !metadata.is_file() {
        return Err(StateCause::NoFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(StateCause::File)?;
    file.take(LEN_MAX + 1).read_to_end(&mut bytes).map_err(StateCause::File)?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(StateCause::TooLong);
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.is_empty() => Ok(text),
        _ => Err(StateCause::Broken { line: 1, expected: FIRST_LINE }),
    }
}

/// What the file says of one certificate.
struct Used {
    id: CertificateId,
    privilege: CertificateId,
    not_after: Ticks,
    totals: Totals,
    memories: Vec<(u16, Persistent)>,
}

fn used_of(accounts: &Accounts) -> Vec<Used> {
    let used = accounts.iter().filter(|(_, account)| account.is_used());
    used.map(|(id, account)| Used {
        id: id.clone(),
        privilege: account.privilege.clone(),
        not_after: account.not_after,
        totals: account.totals,
        memories: account.kept_memories().map(|(index, memory)| (index, *memory)).collect(),
    })
    .collect()
}

fn text_of(mut used: Vec<Used>) -> String {
    // In order, so that the same totals are the same text.
    used.sort_by(|one, other| one.id.cmp(&other.id));
    let mut text = format!("{FIRST_LINE}\n");
    for Used { id, privilege, not_after, totals, memories } in &used {
        let Totals { sent_bytes, sent_packets, received_bytes, received_packets } = totals;
        // Into a string; that does not fail.
        let _ = writeln!(
            text,
            "{id} {privilege} {} {sent_bytes} {sent_packets} {received_bytes} {received_packets}",
            not_after.0
        );
        for (index, memory) in memories {
            let _ = writeln!(text, "{MEMORY}{index} {}", Hex(memory));
        }
    }
    let _ = writeln!(text, "end {}", used.len());
    text
}

fn parse(text: &str) -> Result<Accounts, StateCause> {
    let mut accounts = Accounts::new();
    let mut lines = text.split_inclusive('\n').zip(1..);
    let broken = |line, expected| StateCause::Broken { line, expected };
    if lines.next().map(|(line, _)| line) != Some(&format!("{FIRST_LINE}\n")) {
        return Err(broken(1, FIRST_LINE));
    }
    let mut latest = None;
    while let Some((text, line)) = lines.next() {
        let text = text.strip_suffix('\n').ok_or_else(|| broken(line, "whole line"))?;
        if let Some(count) = text.strip_prefix("end ") {
            return match (number(count), lines.next()) {
                (Some(count), None) if count == accounts.len() as u64 => Ok(accounts),
                (_, None) => Err(broken(line, "count of the lines before")),
                (_, Some((_, line))) => Err(broken(line, "end of the file")),
            };
        }
        if let Some(words) = text.strip_prefix(MEMORY) {
            let account = latest.as_ref().and_then(|id| accounts.get_mut(id));
            memory(words)
                .zip(account)
                .and_then(|((index, memory), account)| {
                    account.memories.insert(index, memory).map_or(Some(()), |_| None)
                })
                .ok_or_else(|| broken(line, "memory of a monitor program"))?;
            continue;
        }
        let (id, account) =
            account(text).ok_or_else(|| broken(line, "account of a certificate"))?;
        latest = Some(id.clone());
        if accounts.len() == ACCOUNTS_MAX || accounts.insert(id, account).is_some() {
            return Err(broken(line, "account that there can be"));
        }
    }
    Err(broken(text.lines().count() + 1, "count of the lines before"))
}

fn account(line: &str) -> Option<(CertificateId, Account)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [authority, serial, top_authority, top_serial, numbers @ ..] = words.as_slice() else {
        return None;
    };
    let numbers: Vec<u64> = numbers.iter().map(|word| number(word)).collect::<Option<_>>()?;
    let [not_after, sent_bytes, sent_packets, received_bytes, received_packets] = numbers[..]
    else {
        return None;
    };
    let mut account = Account::new(certificate_id(top_authority, top_serial)?, Ticks(not_after));
    account.totals = Totals { sent_bytes, sent_packets, received_bytes, received_packets };
    Some((certificate_id(authority, serial)?, account))
}

fn memory(words: &str) -> Option<(u16, Persistent)> {
    let (index, memory) = words.split_once(' ')?;
    Some((number(index)?.try_into().ok()?, bytes(memory)?.try_into().ok()?))
}

/// As we write them: digits alone.
fn number(word: &str) -> Option<u64> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { word.parse().ok() } else { None }
}

fn certificate_id(authority: &str, serial: &str) -> Option<CertificateId> {
    let authority: [u8; KEY_LEN] = bytes(authority)?.try_into().ok()?;
    // What is longer is kept as its SHA-256.
    let serial = bytes(serial).filter(|serial| (1..=KEY_LEN).contains(&serial.len()))?;
    Some(CertificateId { authority: KeyId(authority), serial })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
