//! Accounts and their file.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use packetlab::key::{KeyId, sha256};
use proptest::prelude::*;

use super::account::Totals;
use super::*;

/// A directory that is not there yet, and goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("pktfleet-ledger-{:016x}", RandomState::new().hash_one(0));
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> PathBuf {
        self.0.join("totals")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(number: u16) -> CertificateId {
    CertificateId { authority: KeyId([7; 32]), serial: number.to_be_bytes().to_vec() }
}

const TOTALS: Totals =
    Totals { sent_bytes: u64::MAX, sent_packets: 2, received_bytes: 3, received_packets: 4 };

/// A ledger with an account of these totals under certificate 1, which expires then.
fn used(ledger: Ledger, not_after: Ticks) -> Ledger {
    ledger.admit(&[(id(1), not_after)], &id(0), Ticks(0)).unwrap();
    ledger.accounts().get_mut(&id(1)).unwrap().totals = TOTALS;
    ledger
}

#[test]
fn totals_outlive_the_process() {
    let directory = Directory::new();
    let ledger = used(Ledger::open(&directory.0).unwrap(), Ticks::MAX);
    ledger.save().unwrap();
    drop(ledger);
    assert!(!directory.0.join("totals.new").exists());
    let ledger = Ledger::open(&directory.0).unwrap();
    let accounts = ledger.accounts();
    let account = accounts.get(&id(1)).unwrap();
    assert_eq!(
        (account.totals, &account.privilege, account.not_after),
        (TOTALS, &id(0), Ticks::MAX)
    );
    assert_eq!((accounts.len(), account.sessions), (1, 0));
}

#[test]
fn a_crash_while_the_file_is_written_leaves_the_old_one() {
    let directory = Directory::new();
    used(Ledger::open(&directory.0).unwrap(), Ticks::MAX).save().unwrap();
    // As far as it came.
    fs::write(directory.0.join("totals.new"), "pktfleet totals 1\n07").unwrap();
    let ledger = Ledger::open(&directory.0).unwrap();
    assert_eq!(ledger.accounts().get(&id(1)).unwrap().totals, TOTALS);
    ledger.accounts().get_mut(&id(1)).unwrap().totals.sent_packets = 9;
    ledger.save().unwrap();
    drop(ledger);
    assert_eq!(Ledger::open(&directory.0).unwrap().accounts()[&id(1)].totals.sent_packets, 9);
}

#[test]
fn one_process_alone_keeps_its_totals_in_a_directory() {
    let directory = Directory::new();
    let first = Ledger::open(&directory.0).unwrap();
    let error = Ledger::open(&directory.0).unwrap_err().to_string();
    assert!(error.contains("another endpoint"), "{error}");
    drop(first);
    Ledger::open(&directory.0).unwrap();
}

#[test]
fn a_damaged_file_is_an_error_that_names_the_line_and_stays_as_it_is() {
    let directory = Directory::new();
    used(Ledger::open(&directory.0).unwrap(), Ticks::MAX).save().unwrap();
    let whole = fs::read_to_string(directory.file()).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 3, "{whole}");
    for (text, problem) in [
        (String::new(), "line 1 is no pktfleet totals 1"),
        ("\u{0}".repeat(whole.len()), "line 1 is no pktfleet totals 1"),
        (whole.replace("totals 1", "totals 2"), "line 1 is no pktfleet totals 1"),
        (lines[0].to_owned(), "line 2 is no count of the lines before"),
        (lines[..2].concat(), "line 3 is no count of the lines before"),
        (whole[..whole.len() - 1].to_owned(), "line 3 is no whole line"),
        (whole.replace("end 1", "end 2"), "line 3 is no count of the lines before"),
        (format!("{whole}\n"), "line 4 is no end of the file"),
        (whole.replace(" 2 3 4", " 2 3"), "line 2 is no account of a certificate"),
        (whole.replace(" 2 3 4", " 2 3 4 5"), "line 2 is no account of a certificate"),
        (whole.replace(" 2 3 4", " +2 3 4"), "line 2 is no account of a certificate"),
        (whole.replace(" 2 3 4", " 2 3 99999999999999999999"), "line 2 is no account"),
        (whole.replacen("07", "7", 1), "line 2 is no account of a certificate"),
        (whole.replacen("07", "0G", 1), "line 2 is no account of a certificate"),
        (
            [lines[0], lines[1], lines[1], "end 2\n"].concat(),
            "line 3 is no account that there can be",
        ),
    ] {
        fs::write(directory.file(), &text).unwrap();
        let error = Ledger::open(&directory.0).unwrap_err().to_string();
        assert!(error.contains(problem), "{text:?}: {error}");
        assert!(error.contains("Put a copy back"), "{error}");
        assert_eq!(fs::read_to_string(directory.file()).unwrap(), text);
    }
    fs::write(directory.file(), vec![b'\n'; 9 << 20]).unwrap();
    let error = Ledger::open(&directory.0).unwrap_err().to_string();
    assert!(error.contains("more than 8388608 bytes"), "{error}");
    fs::remove_file(directory.file()).unwrap();
    fs::create_dir(directory.file()).unwrap();
    let error = Ledger::open(&directory.0).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
}

#[test]
fn what_cannot_be_written_is_an_error_and_written_later() {
    let directory = Directory::new();
    let ledger = used(Ledger::open(&directory.0).unwrap(), Ticks::MAX);
    // Nothing can be written where a directory is, not even by root.
    fs::create_dir(directory.0.join("totals.new")).unwrap();
    let error = ledger.save().unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    fs::remove_dir(directory.0.join("totals.new")).unwrap();
    ledger.save().unwrap();
    assert!(directory.file().exists());
}

#[test]
fn the_holder_of_one_privilege_cannot_take_the_place_of_all_others() {
    let ledger = Ledger::default();
    let admit = |number: usize, privilege: u16, not_after| {
        let certificate = id(u16::try_from(number).unwrap());
        let result = ledger.admit(&[(certificate.clone(), not_after)], &id(privilege), Ticks(5));
        if result.is_ok() {
            ledger.accounts().get_mut(&certificate).unwrap().totals = TOTALS;
            ledger.dismiss([&certificate].into_iter());
        }
        result
    };
    for number in 0..ACCOUNTS_PER_PRIVILEGE_MAX {
        assert_eq!(admit(number, 0, Ticks(10)), Ok(()));
    }
    assert_eq!(admit(1000, 0, Ticks(10)), Err(LedgerError::Full));
    // What is known goes on, and so do others.
    assert_eq!((admit(0, 0, Ticks(10)), admit(1000, 1, Ticks(10))), (Ok(()), Ok(())));
    // Those that have expired make room.
    ledger.accounts().get_mut(&id(7)).unwrap().not_after = Ticks(4);
    assert_eq!(admit(2000, 0, Ticks(10)), Ok(()));
    assert!(!ledger.accounts().contains_key(&id(7)));
    assert_eq!(admit(3000, 0, Ticks(10)), Err(LedgerError::Full));
    // Of two certificates of one number the later expiry counts.
    for not_after in [Ticks(20), Ticks(15)] {
        assert_eq!(admit(0, 0, not_after), Ok(()));
        assert_eq!(ledger.accounts()[&id(0)].not_after, Ticks(20));
    }
}

#[test]
fn certificates_that_have_used_nothing_up_make_room_and_those_in_use_do_not() {
    let ledger = Ledger::default();
    for number in 0..ACCOUNTS_MAX {
        let number = u16::try_from(number).unwrap();
        ledger.admit(&[(id(number), Ticks::MAX)], &id(number % 64), Ticks(0)).unwrap();
    }
    let one_more = || ledger.admit(&[(id(u16::MAX), Ticks::MAX)], &id(u16::MAX), Ticks(0));
    assert_eq!(one_more(), Err(LedgerError::Full));
    ledger.dismiss([&id(9)].into_iter());
    assert_eq!(one_more(), Ok(()));
    assert!(!ledger.accounts().contains_key(&id(9)));
}

#[test]
fn a_crowd_of_accounts_is_told_of_once_before_it_is_too_large() {
    let crosses =
        |all, below, missing| Crowding { before: [all, below], missing }.crosses(CROWDED_PERCENT);
    for (all, below, missing, crossed) in [
        (0, 0, 2, false),
        (204, 204, 1, true),
        (203, 203, 2, true),
        (204, 204, 0, false),
        (205, 205, 1, false),
        (3276, 9, 1, true),
        (3277, 9, 1, false),
        (3277, 204, 1, true),
    ] {
        assert_eq!(crosses(all, below, missing), crossed, "{all} {below} {missing}");
    }
}

/// Certificates' numbers of any length, often of some that a limit could lie at.
fn serial() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![1..100_usize, Just(31), Just(32), Just(33), 1000..1100_usize];
    len.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_was_written_can_be_read_again(
        serials in prop::collection::vec((any::<[u8; 32]>(), serial(), serial()), 0..8),
        numbers in any::<[u64; 5]>(),
    ) {
        let directory = Directory::new();
        let ledger = Ledger::open(&directory.0).unwrap();
        let [not_after, sent_bytes, sent_packets, received_bytes, received_packets] = numbers;
        let totals = Totals { sent_bytes, sent_packets, received_bytes, received_packets };
        for (authority, serial, top) in &serials {
            let id = |serial: &[u8]| CertificateId::new(KeyId(*authority), serial);
            ledger.admit(&[(id(serial), Ticks(not_after))], &id(top), Ticks(0)).unwrap();
            ledger.accounts().get_mut(&id(serial)).unwrap().totals = totals;
        }
        ledger.save().unwrap();
        drop(ledger);
        let ledger = Ledger::open(&directory.0).unwrap();
        if totals != Totals::default() {
            for (authority, serial, top) in &serials {
                let id = |serial: &[u8]| CertificateId::new(KeyId(*authority), serial);
                let accounts = ledger.accounts();
                let account = &accounts[&id(serial)];
                prop_assert_eq!((account.totals, account.not_after.0), (totals, not_after));
                prop_assert_eq!(&account.privilege, &id(top));
            }
        }
    }
}

#[test]
fn numbers_that_differ_are_different_certificates_however_long_they_are() {
    let id = |serial: &[u8]| CertificateId::new(KeyId([7; 32]), serial);
    assert_ne!(id(&[1; 1100]), id(&[[1; 1099].as_slice(), &[2]].concat()));
    assert_ne!(id(&[1; 32]), id(&sha256(&[1; 32])));
    assert_eq!(id(&[1; 20]).serial, [1; 20]);
}

#[test]
fn a_ledger_full_of_the_longest_numbers_can_be_read_again() {
    let directory = Directory::new();
    let ledger = Ledger::open(&directory.0).unwrap();
    for number in 0..ACCOUNTS_MAX {
        let id = |number: usize| {
            let serial = [number.to_be_bytes().as_slice(), &[7; 60_000]].concat();
            CertificateId::new(KeyId([7; 32]), &serial)
        };
        ledger.admit(&[(id(number), Ticks::MAX)], &id(number % 64), Ticks(0)).unwrap();
        let most = u64::MAX;
        ledger.accounts().get_mut(&id(number)).unwrap().totals = Totals {
            sent_bytes: most,
            sent_packets: most,
            received_bytes: most,
            received_packets: most,
        };
        // As many monitors as can keep something.
        ledger.memory(&id(number), u16::MAX).unwrap();
        ledger.keep_memory(&id(number), u16::MAX, &[0xff; 256]);
    }
    ledger.save().unwrap();
    drop(ledger);
    assert_eq!(Ledger::open(&directory.0).unwrap().accounts().len(), ACCOUNTS_MAX);
}

#[test]
fn what_monitors_keep_outlives_the_process_by_certificate_and_index() {
    let directory = Directory::new();
    let ledger = Ledger::open(&directory.0).unwrap();
    ledger.admit(&[(id(1), Ticks::MAX), (id(2), Ticks::MAX)], &id(0), Ticks(0)).unwrap();
    let mut memory = [0; 256];
    for (number, index) in [(1, 0), (1, 7), (2, 0), (2, 1)] {
        assert_eq!(ledger.memory(&id(number), index), Ok([0; 256]));
        memory[255] = u8::try_from(number).unwrap() * 16 + u8::try_from(index).unwrap();
        // The last keeps what it found, which is nothing.
        if (number, index) != (2, 1) {
            ledger.keep_memory(&id(number), index, &memory);
        }
    }
    ledger.save().unwrap();
    drop(ledger);
    let text = fs::read_to_string(directory.file()).unwrap();
    assert_eq!(text.matches("memory ").count(), 3, "{text}");
    let ledger = Ledger::open(&directory.0).unwrap();
    let last = |number, index| ledger.memory(&id(number), index).unwrap()[255];
    assert_eq!([last(1, 0), last(1, 7), last(2, 0), last(2, 1)], [0x10, 0x17, 0x20, 0]);
    drop(ledger);
    let first = text.lines().find(|line| line.starts_with("memory ")).unwrap();
    for damaged in [
        text.replacen(first, &first[..first.len() - 2], 1),
        text.replacen(first, &format!("{first}\n{first}"), 1),
        text.replacen("memory 7", "memory 70000", 1),
        text.replacen("pktfleet totals 1\n", &format!("pktfleet totals 1\n{first}\n"), 1),
    ] {
        fs::write(directory.file(), &damaged).unwrap();
        let error = Ledger::open(&directory.0).unwrap_err().to_string();
        assert!(error.contains("is no memory of a monitor program"), "{error}");
    }
}

#[test]
fn flushes_within_a_second_are_one_write_and_what_comes_behind_it_is_in_the_next() {
    let directory = Directory::new();
    let ledger = Ledger::open(&directory.0).unwrap();
    ledger.admit(&[(id(1), Ticks::MAX)], &id(0), Ticks(0)).unwrap();
    let written = || fs::read_to_string(directory.file()).unwrap_or_default();
    let flush = |byte: u8| {
        ledger.keep_memory(&id(1), 0, &[byte; 256]);
        ledger.flush()
    };
    let holds = |byte: u8| written().contains(&format!("memory 0 {}", Hex(&[byte; 256])));
    let patience = Instant::now();
    // On a busy machine more than a second may pass between two.
    loop {
        assert!(patience.elapsed() < Duration::from_secs(60), "each round took longer");
        *ledger.flushed.lock().unwrap() = None;
        let before = Instant::now();
        assert!(flush(1).unwrap() && holds(1));
        assert!((2..200).all(|byte| flush(byte).unwrap()));
        let is_first = holds(1);
        if before.elapsed() < SAVE_INTERVAL {
            assert!(is_first, "{}", written());
            break;
        }
    }
    ledger.save().unwrap();
    assert!(holds(199));
    // A write that fails is told to all that are joined with it, and by the error once.
    fs::create_dir(directory.0.join("totals.new")).unwrap();
    *ledger.flushed.lock().unwrap() = None;
    let before = Instant::now();
    flush(1).unwrap_err();
    assert!(matches!(flush(2), Ok(false)) || before.elapsed() >= SAVE_INTERVAL);
    assert!(!Ledger::default().flush().unwrap(), "nothing outlives the process");
}

#[test]
fn monitors_below_one_privilege_cannot_take_the_places_of_all_others() {
    let ledger = Ledger::default();
    let ids = [(id(1), Ticks::MAX), (id(2), Ticks::MAX)];
    ledger.admit(&ids, &id(0), Ticks(0)).unwrap();
    ledger.admit(&[(id(3), Ticks::MAX)], &id(9), Ticks(0)).unwrap();
    for index in 0..128 {
        ledger.memory(&id(1), index).unwrap();
        ledger.memory(&id(2), index).unwrap();
    }
    assert_eq!(ledger.memory(&id(2), 128), Err(LedgerError::TooManyMemories));
    // Those that have a place have it again, and others have theirs.
    assert_eq!(ledger.memory(&id(2), 127), Ok([0; 256]));
    assert_eq!(ledger.memory(&id(3), 0), Ok([0; 256]));
    // When no session goes on, nobody needs places in which nothing is kept.
    ledger.keep_memory(&id(1), 5, &[1; 256]);
    ledger.dismiss([id(1)].iter());
    assert_eq!(ledger.memory(&id(2), 128), Ok([0; 256]));
    assert_eq!(ledger.memory(&id(1), 5), Ok([1; 256]));
}

#[test]
fn what_cannot_be_a_directory_of_totals_says_what_to_do() {
    let directory = Directory::new();
    fs::create_dir(&directory.0).unwrap();
    let told = |path: &Path| Ledger::open(path).unwrap_err().to_string();
    let fifo = directory.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(told(&fifo).contains("no directory; name one for --state"), "{}", told(&fifo));
    let nowhere = Path::new("/proc/totals");
    assert!(told(nowhere).contains("name one for --state"), "{}", told(nowhere));
    // One for the lock is not waited for.
    fs::rename(&fifo, directory.0.join("lock")).unwrap();
    assert!(told(&directory.0).contains("name a directory for --state"), "{}", told(&directory.0));
}
