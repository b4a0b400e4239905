//! Lines that are written, and files that take no more.

use std::fs;

use super::*;

/// Takes so many bytes, and then as many again for each time it has refused.
#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    writes: usize,
    syncs: usize,
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

impl Durable for Disk {
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        Ok(())
    }
}

const LINES: [&[u8]; 4] = [b"the first line\n", b"the second line\n", b"third\n", b"fourth\n"];

#[test]
fn lines_are_written_together_and_a_sync_follows_only_what_was_written() {
    let mut file = LineFile::new(Disk { room: usize::MAX, ..Disk::default() });
    file.sync();
    LINES.iter().for_each(|line| file.push(line));
    file.flush();
    file.flush();
    file.sync();
    file.sync();
    assert_eq!((file.file.writes, file.file.syncs, file.unwritten()), (1, 1, 0));
    assert_eq!(file.file.bytes, LINES.concat());
}

#[test]
fn no_more_lines_are_written_together_than_a_pipe_takes_whole() {
    let mut file = LineFile::new(Disk { room: usize::MAX, ..Disk::default() });
    let line = |len: usize| [vec![b'x'; len - 1], b"\n".to_vec()].concat();
    let writes = [(4000, 0), (96, 0), (1, 1), (9000, 2), (1, 3)].map(|(len, writes)| {
        file.push(&line(len));
        (writes, file.file.writes)
    });
    assert!(writes.iter().all(|(expected, writes)| expected == writes), "{writes:?}");
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_lines_and_tears_one_and_those_after_it_are_whole() {
    let room = LINES[0].len() + 10;
    let mut file = LineFile::new(Disk { room, grows_by: 1000, ..Disk::default() });
    LINES.iter().for_each(|line| file.push(line));
    assert!(!file.flush());
    // The second found no room for its rest; the disk has had room since.
    assert_eq!(file.unwritten(), 1);
    let torn = &LINES[1][..10];
    let expected = [LINES[0], torn, b"\n", LINES[2], LINES[3]].concat();
    assert_eq!(String::from_utf8_lossy(&file.file.bytes), String::from_utf8_lossy(&expected));
    file.push(LINES[0]);
    assert!(file.flush(), "whatever became of those before");
}

#[test]
fn what_an_earlier_run_has_left_stays_and_a_line_it_tore_is_ended() {
    for (before, ended) in [("", ""), ("whole\n", "whole\n"), ("whole\nto", "whole\nto\n")] {
        let name = format!("pktxpmgr-lines-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, before).unwrap();
        let mut file = LineFile::open(&Destination::File(path.clone())).unwrap();
        assert_eq!(file.is_empty().unwrap(), before.is_empty());
        file.push(b"next\n");
        file.flush();
        file.sync();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{ended}next\n"));
        assert_eq!(file.unwritten(), 0);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_folder_is_no_file_of_lines() {
    assert!(LineFile::open(&Destination::File("/".into())).is_err());
}
