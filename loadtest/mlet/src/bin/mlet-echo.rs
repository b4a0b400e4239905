//! `mlet-echo [--count N] [--size BYTES] [--rate N] [--hlog FILE]`: how long a request and its answer take, from
//! the mlet through the relay to the endpoint and back. Nothing leaves the endpoint: it is asked for its
//! own memory.
//!
//! With a rate, latency counts from the moment at which a request was due: what waits behind a slow
//! answer is slow as well.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> count <TAB> p50 <TAB> p90 <TAB> p99 <TAB> p99.9 <TAB> max, in microseconds
//! ```

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use mlet::arguments::{self, CommandLine};
use mlet::{Client, MletError, print_line};
use packetlab::escape::Escaped;

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

/// Any readable memory will do; this is where the clock is.
const ADDRESS: u32 = 0x1001_0000;

/// A write of so many bytes to a pipe is not mixed with others (`PIPE_BUF` on Linux).
const LOG_LEN_MAX: usize = 4096;

/// The column of the longest latency is in milliseconds, as in logs that Java writes.
const NS_PER_MS: f64 = 1e6;

/// What `--help` says of the output.
const PRINTS: &str = "Prints a line for its endpoint: key, address, requests, p50, p90, p99, p99.9 and max in microseconds";

/// Request/response latency between a mlet and its endpoint, through pktxpmgr's relay
#[derive(Debug, Parser)]
#[command(name = "mlet-echo", version, after_help = PRINTS, max_term_width = 80)]
struct Options {
    /// Requests to send
    #[arg(long, value_name = "N", default_value = "1000", value_parser = whole::<u64>)]
    count: u64,
    /// Bytes of each answer
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = whole::<u16>)]
    size: u16,
    /// Requests a second [default: each as soon as the one before is answered]
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    rate: Option<u32>,
    /// Append the whole histogram to this file, in HdrHistogram's log format, its values in nanoseconds; "-" prints it
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
}

/// A number that counts something.
fn whole<N: FromStr + PartialOrd + From<bool>>(text: &str) -> Result<N, &'static str> {
    let number = text.parse().ok().filter(|number| *number >= N::from(true));
    number.ok_or("it is no whole number from 1, or too large")
}

fn main() -> ExitCode {
    let CommandLine { is_check, words } = CommandLine::of_process();
    let options = match Options::try_parse_from(std::iter::once("mlet-echo".into()).chain(words)) {
        Ok(options) => options,
        Err(told) if !told.use_stderr() => told.exit(),
        // One line that names us: standard error is shared by all mlets.
        Err(told) => {
            let told = told.to_string();
            let what = told.lines().next().unwrap_or_default().trim_start_matches("error: ");
            mlet::complain(&format!("mlet-echo: {what}; see mlet-echo --help"));
            return mlet::USAGE_ERROR.into();
        }
    };
    if is_check {
        return arguments::ok();
    }
    mlet::run("mlet-echo", |client, endpoint, _| {
        // Before anything is measured in vain.
        let mut hlog = options.hlog.as_deref().map(Hlog::open).transpose()?;
        let (date, started) = (SystemTime::now(), Instant::now());
        let latencies = measure(client, &options)?;
        let time = (date, started.elapsed());
        let microseconds = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|q| format!("{:.1}", microseconds(q)));
        let (count, quantiles) = (latencies.len(), quantiles.join("\t"));
        let max = latencies.max() as f64 / 1e3;
        let columns = endpoint.columns();
        print_line(&format!("{columns}\t{count}\t{quantiles}\t{max:.1}"))?;
        hlog.as_mut().map_or(Ok(()), |hlog| hlog.write(&latencies, endpoint.name(), time))
    })
}

fn measure(client: &mut Client, options: &Options) -> Result<Histogram<u64>, MletError> {
    let mut latencies = histogram()?;
    let interval = options.rate.map(|rate| Duration::from_secs(1) / rate);
    let mut due = Instant::now();
    for _ in 0..options.count {
        match interval {
            Some(_) => std::thread::sleep(due.saturating_duration_since(Instant::now())),
            None => due = Instant::now(),
        }
        client.read_memory(ADDRESS, options.size)?;
        let nanoseconds = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
        latencies.saturating_record(nanoseconds);
        due += interval.unwrap_or_default();
    }
    Ok(latencies)
}

fn histogram() -> Result<Histogram<u64>, MletError> {
    // Longer ones count as the longest that a mlet waits.
    let longest = u64::try_from(mlet::SILENCE_MAX.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).map_err(no_log)
}

fn no_log(cause: impl Display) -> MletError {
    MletError::Failed(format!("no histogram can be made: {cause}"))
}

/// Where the histogram goes.
enum Hlog {
    Stdout,
    File(File, PathBuf),
}

impl Hlog {
    fn open(path: &Path) -> Result<Self, MletError> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|error| cannot_write(path, &error))?;
        Ok(Self::File(file, path.to_owned()))
    }

    fn write(
        &mut self,
        latencies: &Histogram<u64>,
        endpoint: &str,
        time: (SystemTime, Duration),
    ) -> Result<(), MletError> {
        match self {
            Self::Stdout => logs(latencies, endpoint, time)?
                .iter()
                .try_for_each(|log| print_line(log.trim_end())),
            Self::File(file, path) => {
                // In one write: what is appended to a file is not mixed with what others append.
                let log = log(latencies, endpoint, time)?;
                file.write_all(log.as_bytes()).map_err(|error| cannot_write(path, &error))
            }
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> MletError {
    let path = Escaped(path.as_os_str().as_bytes());
    MletError::Failed(format!("cannot write to {path}: {error}"))
}

/// One log, or several with a part of the values each: what is printed in one piece never mixes with the logs of
/// other mlets.
fn logs(
    latencies: &Histogram<u64>,
    endpoint: &str,
    time: (SystemTime, Duration),
) -> Result<Vec<String>, MletError> {
    let whole = log(latencies, endpoint, time)?;
    if whole.len() <= LOG_LEN_MAX {
        return Ok(vec![whole]);
    }
    let values: Vec<_> = latencies.iter_recorded().collect();
    let (low, high) = values.split_at(values.len() / 2);
    let mut logs = Vec::new();
    for half in [low, high] {
        let mut part = histogram()?;
        for value in half {
            let (value, count) = (value.value_iterated_to(), value.count_at_value());
            part.record_n(value, count).map_err(no_log)?;
        }
        logs.extend(self::logs(&part, endpoint, time)?);
    }
    Ok(logs)
}

/// One interval, tagged with the endpoint's key, or its address if that is not known.
///
/// Readers take logs that follow one another, of any mlets and in any order: times are absolute, as the base time
/// says, and the interval begins at the start time before it, since readers pass over what begins earlier.
fn log(
    latencies: &Histogram<u64>,
    endpoint: &str,
    (date, duration): (SystemTime, Duration),
) -> Result<String, MletError> {
    // Commas and blanks end a tag.
    let tag = Tag::new(endpoint).ok_or_else(|| no_log("the endpoint's name is no tag"))?;
    let since_1970 = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = Vec::new();
    IntervalLogWriterBuilder::new()
        .with_start_time(date)
        .with_base_time(UNIX_EPOCH)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(&mut log, &mut serializer)
        .and_then(|mut writer| {
            let written = writer.write_histogram(latencies, since_1970, duration, Some(tag));
            written.map_err(io::Error::other)
        })
        .map_err(no_log)?;
    String::from_utf8(log).map_err(no_log)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measures with an endpoint that answers everything at once.
    fn measured(arguments: &[&str]) -> Histogram<u64> {
        let options = Options::parse_from([&["mlet-echo"], arguments].concat());
        let session = scripted_endpoint::start(scripted_endpoint::original);
        let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
        measure(&mut client, &options).unwrap()
    }

    #[test]
    fn every_request_is_counted() {
        let latencies = measured(&["--count", "50", "--size", "65535"]);
        assert_eq!(latencies.len(), 50);
        assert!(latencies.min() > 100 && latencies.max() < 60_000_000_000);
    }

    #[test]
    fn a_rate_spaces_the_requests() {
        let started = Instant::now();
        assert_eq!(measured(&["--count", "6", "--rate", "200"]).len(), 6);
        assert!(started.elapsed() >= Duration::from_millis(25));
    }

    /// The interval of a log, without its tag.
    fn interval(log: &str) -> Vec<&str> {
        let line = log.lines().find_map(|line| line.strip_prefix("Tag=127.1.0.1,"));
        line.unwrap().split(',').collect()
    }

    #[test]
    fn an_interval_begins_at_its_absolute_start_time() {
        let latencies = measured(&["--count", "5"]);
        let date = UNIX_EPOCH + Duration::from_millis(1_700_000_000_987);
        let text = log(&latencies, "127.1.0.1", (date, Duration::from_secs(1))).unwrap();
        let head: Vec<&str> = text.lines().take(2).collect();
        let start = "#[StartTime: 1700000000.987 (seconds since epoch)]";
        assert_eq!(head, [start, "#[BaseTime: 0.000 (seconds since epoch)]"]);
        let interval = interval(&text);
        assert_eq!(interval[0], "1700000000.987");
        let max = interval[2].parse::<f64>().unwrap() * NS_PER_MS;
        assert!((max - latencies.max() as f64).abs() < 1e3, "{text}");
        assert!(interval[3].starts_with("HIST"), "{text}");
    }

    #[test]
    fn however_many_latencies_there_are_every_log_is_printed_in_one_piece() {
        let mut latencies = histogram().unwrap();
        // Every value that three digits tell apart, in numbers that hardly compress.
        let mut value = 1_000;
        while value < 59_000_000_000 {
            latencies.record_n(value, (value % 99_991).pow(2) % 100_003).unwrap();
            value += value / 1_000;
        }
        let logs =
            logs(&latencies, "127.1.0.1", (SystemTime::now(), Duration::from_secs(1))).unwrap();
        assert!(logs.len() > 1);
        let too_long = logs.iter().filter(|log| log.len() > LOG_LEN_MAX).count();
        assert_eq!(too_long, 0);
    }
}
