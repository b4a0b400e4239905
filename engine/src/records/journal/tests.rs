//! Lines that are written, that find no room, and that go to a file that takes no more.

use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;

use super::*;

fn entry(sessions: u64) -> Entry {
    Entry::Shard(ShardTotals { number: 0, core: 0, enters: 0, sessions }, Ticks(0))
}

fn line(sessions: u64) -> Vec<u8> {
    let Entry::Shard(totals, written) = entry(sessions) else { unreachable!() };
    json::of_shard(&totals, written)
}

/// Takes so many bytes, and then as many again for each time it has refused.
#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    writes: usize,
    room: usize,
    grows_by: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if self.room == 0 {
            self.room = std::mem::take(&mut self.grows_by);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = bytes.len().min(self.room);
        self.room -= len;
        self.bytes.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_line_is_one_write_behind_what_is_in_the_file_already() {
    let disk = Disk { room: usize::MAX, ..Disk::default() };
    let mut writer = Writer::new(disk, String::new());
    (0..3).for_each(|number| writer.write(&entry(number)));
    assert_eq!((writer.file.writes, writer.unwritten), (3, 0));

    let name = format!("pktxpmgr-journal-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, "before\n").unwrap();
    let mut journal = Journal::open(&path).unwrap();
    (0..3).for_each(|number| journal.push(entry(number)));
    journal.finish();
    let expected = [&b"before\n"[..], &writer.file.bytes].concat();
    assert_eq!(fs::read(&path).unwrap(), expected);
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_lines_and_tears_one_and_those_after_it_are_whole() {
    let room = line(0).len() + 10;
    let mut writer = Writer::new(Disk { room, grows_by: 1000, ..Disk::default() }, String::new());
    (0..4).for_each(|number| writer.write(&entry(number)));
    // The second found no room for its rest; the disk has had room since.
    assert_eq!(writer.unwritten, 1);
    let torn = &line(1)[..10];
    let expected = [&line(0)[..], torn, b"\n", &line(2), &line(3)].concat();
    assert_eq!(String::from_utf8_lossy(&writer.file.bytes), String::from_utf8_lossy(&expected));
}

/// A pipe that nobody reads, as a file of records.
fn unread() -> (Journal, PipeReader) {
    let (reader, pipe) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    (Journal::open(Path::new(&path)).unwrap(), reader)
}

#[test]
fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_finds_no_room_is_counted() {
    let (mut journal, mut reader) = unread();
    let mut pushed = 0;
    while journal.lost == 0 {
        journal.push(entry(pushed));
        pushed += 1;
        assert!(pushed < 10 * QUEUE_LEN as u64, "no bound");
    }
    journal.push(entry(pushed));
    assert!(journal.lost >= 1);
    let kept = pushed + 1 - journal.lost;
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    journal.finish();
    let text = read.join().unwrap();
    assert_eq!(text.lines().count() as u64, kept);
    let expected: Vec<u8> = (0..kept - 1).flat_map(line).collect();
    assert!(text.as_bytes().starts_with(&expected), "those in the queue, in order");
}

#[test]
fn a_file_that_is_always_full_is_told_of_once_and_every_record_is_counted() {
    let mut journal = Journal::open(Path::new("/dev/full")).unwrap();
    (0..5).for_each(|number| journal.push(entry(number)));
    let Journal { entries, unwritten, .. } = journal;
    drop(entries);
    assert_eq!(unwritten.recv_timeout(PATIENCE), Ok(5));
}

#[test]
fn a_folder_is_no_file_of_records() {
    assert!(Journal::open(Path::new("/")).is_err());
}
