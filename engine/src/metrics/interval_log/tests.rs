//! What stands in the log, and what becomes of it where it takes no more.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::super::both_ways::Direction;

use super::*;

const START: Duration = Duration::from_millis(1_700_000_000_987);

/// Times of so many microseconds, by direction.
fn times(to_endpoint: &[u64], from_endpoint: &[u64]) -> Histograms {
    let mut times = super::super::latency::histograms();
    to_endpoint.iter().for_each(|us| times.to_endpoint.record(us * 1000).unwrap());
    from_endpoint.iter().for_each(|us| times.from_endpoint.record(us * 1000).unwrap());
    times
}

/// Takes so many bytes.
struct Disk {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.room - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..len]);
        if len == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(len) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Appendable for Disk {
    fn take_back(&mut self, len: usize) -> io::Result<()> {
        self.bytes.truncate(self.bytes.len() - len);
        Ok(())
    }
}

/// A log with these lines of tag, start, length and longest time.
#[track_caller]
fn holds(log: &[u8], expected: &[(&str, f64, f64, f64)]) {
    let entries: Vec<_> = IntervalLogIterator::new(log).map(Result::unwrap).collect();
    assert!(matches!(entries[0], LogEntry::StartTime(start) if start == START));
    assert!(matches!(entries[1], LogEntry::BaseTime(Duration::ZERO)));
    let intervals = entries[2..].iter().map(|entry| match entry {
        LogEntry::Interval(interval) => {
            assert!(interval.encoded_histogram().starts_with("HIST"));
            let tag = interval.tag().unwrap().as_str();
            let (start, length) = (interval.start_timestamp(), interval.duration());
            (tag, start.as_secs_f64(), length.as_secs_f64(), interval.max())
        }
        _ => panic!("another head"),
    });
    let rounded = |second: f64| (second * 1e3).round();
    let shown = |(tag, start, length, max)| (tag, rounded(start), rounded(length), rounded(max));
    let intervals: Vec<_> = intervals.map(&shown).collect();
    assert_eq!(intervals, expected.iter().copied().map(shown).collect::<Vec<_>>());
}

#[test]
fn an_interval_has_a_line_for_each_direction_in_which_there_were_times() {
    let disk = Disk { bytes: Vec::new(), room: usize::MAX };
    let mut writer = Writer::new(disk, String::new(), START);
    let at = |ms| START + Duration::from_millis(ms);
    writer.write_interval(&times(&[], &[]), at(0), at(1000));
    writer.write_interval(&times(&[5, 20, 7], &[3000]), at(1000), at(2000));
    writer.write_interval(&times(&[], &[4]), at(2000), at(2013));
    let text = String::from_utf8(writer.file.bytes.clone()).unwrap();
    let head: Vec<&str> = text.lines().take(5).collect();
    assert_eq!(head[0], "#[Histogram log format version 1.3]");
    assert!(head[1].contains(" in nanoseconds; "));
    assert_eq!(head[2], "#to_ep: from mlets to endpoints; from_ep: from endpoints to mlets");
    assert_eq!(head[3], "#[StartTime: 1700000000.987 (seconds since epoch)]");
    assert_eq!(head[4], "#[BaseTime: 0.000 (seconds since epoch)]");
    assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), 5, "{text}");
    // The longest time is told to three digits, in milliseconds.
    let expected = [
        ("to_ep", 1_700_000_001.987, 1.0, 0.02),
        ("from_ep", 1_700_000_001.987, 1.0, 3.0),
        ("from_ep", 1_700_000_002.987, 0.013, 0.004),
    ];
    holds(&writer.file.bytes, &expected);
    assert_eq!(writer.unwritten, 0);
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_intervals_and_tears_none() {
    let second = |number| START + Duration::from_secs(number);
    let interval = |writer: &mut Writer<Disk>, number| {
        writer.write_interval(&times(&[9], &[9]), second(number), second(number + 1));
    };
    // It cannot even take what stands above.
    let mut writer = Writer::new(Disk { bytes: Vec::new(), room: 50 }, String::new(), START);
    writer.write_interval(&times(&[], &[]), second(0), second(1));
    assert_eq!((writer.file.bytes.len(), writer.unwritten), (0, 0), "nothing is lost yet");
    interval(&mut writer, 1);
    assert_eq!((writer.file.bytes.len(), writer.unwritten), (0, 1));
    writer.file.room = usize::MAX;
    interval(&mut writer, 2);
    writer.file.room = writer.file.bytes.len() + 10;
    interval(&mut writer, 3);
    assert_eq!(writer.unwritten, 2);
    writer.file.room = usize::MAX;
    interval(&mut writer, 4);
    let of = |number: f64, tag| (tag, 1_700_000_000.987 + number, 1.0, 0.009);
    let expected = [of(2.0, "to_ep"), of(2.0, "from_ep"), of(4.0, "to_ep"), of(4.0, "from_ep")];
    holds(&writer.file.bytes, &expected);
}

#[test]
fn half_an_interval_is_taken_back_from_a_file() {
    let path = std::env::temp_dir().join(format!("pktxpmgr-latency-{}", std::process::id()));
    fs::write(&path, "before\nhalf a li").unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.take_back("half a li".len()).unwrap();
    file.write_all(b"after\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
    fs::remove_file(&path).unwrap();
}

/// A run with a time in it, and its log.
fn run_with_log(path: &str) -> IntervalLog {
    let run = Arc::new(RunLatency::new(1, NonZeroU32::MIN));
    let stopwatch = run.stopwatch(0).unwrap();
    stopwatch.record(Direction::ToEndpoint, Duration::from_micros(5));
    IntervalLog::open(Path::new(path), run).unwrap()
}

#[test]
fn the_last_interval_is_written_when_the_run_ends_whenever_that_is() {
    let path = std::env::temp_dir().join(format!("pktxpmgr-last-{}", std::process::id()));
    let shown = path.to_str().unwrap();
    for runs in 1..=2 {
        assert_eq!(run_with_log(shown).finish(), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("\nTag=to_ep,").count(), runs, "appended: {text}");
        assert_eq!(text.matches("#[StartTime: ").count(), runs, "{text}");
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_that_is_always_full_is_counted_and_a_folder_is_no_file() {
    assert_eq!(run_with_log("/dev/full").finish(), 1);
    let run = Arc::new(RunLatency::new(1, NonZeroU32::MIN));
    assert!(IntervalLog::open(Path::new("/"), run).is_err());
}

#[test]
fn a_pipe_that_nobody_reads_holds_the_end_up_for_a_limited_time_and_is_counted() {
    let (mut reader, mut pipe) = io::pipe().unwrap();
    // As much as a pipe holds, so that the log finds no room.
    nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    pipe.write_all(&[b'#'; 4096]).unwrap();
    let log = run_with_log(&format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    assert_eq!(log.finish(), 1);
    drop(pipe);
    // What it could not write before it writes now, and ends.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("\nTag=to_ep,"), "{text}");
}
