//! `mlet-echo [--count N] [--size BYTES] [--rate N] [--hlog]`: how long a request and its answer take, from
//! the mlet through the relay to the endpoint and back. Nothing leaves the endpoint: it is asked for its
//! own memory.
//!
//! With a rate, latency counts from the moment at which a request was due: what waits behind a slow
//! answer is slow as well.
//!
//! ```text
//! EPADDR <TAB> count <TAB> p50 <TAB> p90 <TAB> p99 <TAB> p99.9 <TAB> max, in microseconds
//! ```

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use mlet::{Client, MletError, print_line};

/// Any readable memory will do; this is where the clock is.
const ADDRESS: u32 = 0x1001_0000;

/// Request/response latency between a mlet and its endpoint, through pktxpmgr's relay
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Requests to send
    #[arg(long, value_name = "N", default_value = "1000")]
    count: u64,
    /// Bytes of each answer
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    size: u16,
    /// Requests a second [default: each as soon as the one before is answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Print the whole histogram as well, in HdrHistogram's log format, its values in nanoseconds
    #[arg(long)]
    hlog: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    mlet::run("mlet-echo", |client, endpoint, _| {
        let started = (SystemTime::now(), Instant::now());
        let latencies = measure(client, &options)?;
        let microseconds = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|q| format!("{:.1}", microseconds(q)));
        let (count, quantiles) = (latencies.len(), quantiles.join("\t"));
        let max = latencies.max() as f64 / 1e3;
        print_line(&format!("{endpoint}\t{count}\t{quantiles}\t{max:.1}"))?;
        if options.hlog {
            io::stdout().write_all(&log(&latencies, endpoint, started)?)?;
        }
        Ok(())
    })
}

fn measure(client: &mut Client, options: &Options) -> Result<Histogram<u64>, MletError> {
    // Longer ones count as the longest that a mlet waits.
    let longest = u64::try_from(mlet::SILENCE_MAX.as_nanos()).unwrap_or(u64::MAX);
    let mut latencies = Histogram::new_with_bounds(1, longest, 3)
        .map_err(|error| MletError::Failed(format!("no histogram: {error}")))?;
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

/// One interval, tagged with the endpoint's address.
fn log(
    latencies: &Histogram<u64>,
    endpoint: &str,
    (date, start): (SystemTime, Instant),
) -> Result<Vec<u8>, MletError> {
    let failed = |what: &str| MletError::Failed(format!("no log: {what}"));
    // Commas and blanks end a tag.
    let tag = Tag::new(endpoint).ok_or_else(|| failed("the address is no tag"))?;
    let mut serializer = V2DeflateSerializer::new();
    let mut log = Vec::new();
    IntervalLogWriterBuilder::new()
        .with_start_time(date)
        .begin_log_with(&mut log, &mut serializer)
        .and_then(|mut writer| {
            let written =
                writer.write_histogram(latencies, Duration::ZERO, start.elapsed(), Some(tag));
            written.map_err(|_| io::ErrorKind::InvalidData.into())
        })
        .map_err(|error| failed(&error.to_string()))?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use mlet::Message;

    use super::*;

    /// Measures with an endpoint that answers everything at once.
    fn measured(arguments: &[&str]) -> Histogram<u64> {
        let options = Options::parse_from([&["mlet-echo"], arguments].concat());
        let (session, mut endpoint) = UnixStream::pair().unwrap();
        let size = options.size;
        let answering = std::thread::spawn(move || {
            let mut request = [0; 10];
            while endpoint.read_exact(&mut request).is_ok() {
                let mut answer = Vec::new();
                let data = vec![0; size.into()];
                Message::Mdata { address: ADDRESS, data: &data }.encode(&mut answer).unwrap();
                endpoint.write_all(&answer).unwrap();
            }
        });
        let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
        let latencies = measure(&mut client, &options).unwrap();
        drop(client);
        answering.join().unwrap();
        latencies
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

    #[test]
    fn the_log_can_be_read_again() {
        let latencies = measured(&["--count", "5"]);
        let bytes = log(&latencies, "127.1.0.1", (SystemTime::now(), Instant::now())).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let line = text.lines().find(|line| line.starts_with("Tag=127.1.0.1,")).unwrap();
        assert!(line.rsplit(',').next().unwrap().starts_with("HIST"), "{line}");
    }
}
