//! What a demo shows at its end: a table of endpoints and one line that sums it up.
//!
//! Not here: judging pages (`page`).

use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitStatus;
use std::time::Duration;

use hdrhistogram::Histogram;
use packetlab::key::KeyId;

/// More endpoints than this are shown shortened.
const ROWS_MAX: usize = 20;
/// How many good endpoints and how many failed ones a shortened table shows.
const ROWS_SHORTENED: usize = 10;
/// Longest set-up that is told from longer ones, in microseconds: an hour.
const SETUP_MAX_US: u64 = 3_600_000_000;

/// One endpoint in the table.
#[derive(Debug)]
pub(super) struct Row {
    /// Its address.
    pub(super) address: IpAddr,
    /// Its key.
    pub(super) key: KeyId,
    /// The page, or why there is no right one.
    pub(super) result: Result<String, String>,
}

/// What came of the run. Its `Display` is the line that sums it up.
#[derive(Debug)]
pub(super) struct Summary {
    /// Endpoint 1 first.
    pub(super) rows: Vec<Row>,
    /// From connect() to the mlet's first message, of the endpoints that came so far.
    pub(super) setups: Vec<Duration>,
    /// Output that belongs to no endpoint.
    pub(super) strays: Vec<String>,
    /// Of pktxpmgr.
    pub(super) status: ExitStatus,
    /// End of pktxpmgr's log.
    pub(super) log_tail: Vec<String>,
}

impl Summary {
    /// All pages right and pktxpmgr content too.
    pub(super) fn is_good(&self) -> bool {
        self.failed_count() == 0 && self.status.success()
    }

    /// Writes the table and whatever else somebody should see.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.print_rows(out)?;
        for stray in self.strays.iter().take(ROWS_SHORTENED) {
            writeln!(out, "unexpected output: {stray}")?;
        }
        if self.is_good() {
            return Ok(());
        }
        writeln!(out, "pktxpmgr ended with {}; the end of its log:", self.status)?;
        self.log_tail.iter().try_for_each(|line| writeln!(out, "  {line}"))
    }

    fn print_rows(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:>5} {:<13} {:<12} page", "no.", "address", "key")?;
        let shown_max = if self.rows.len() > ROWS_MAX { ROWS_SHORTENED } else { ROWS_MAX };
        let (mut good_count, mut failed_count) = (0, 0);
        for (index, row) in self.rows.iter().enumerate() {
            let (count, text) = match &row.result {
                Ok(page) => (&mut good_count, page.trim_end().to_owned()),
                Err(reason) => (&mut failed_count, format!("FAILED: {reason}")),
            };
            *count += 1;
            if *count <= shown_max {
                let (number, address, key) = (index + 1, row.address.to_string(), row.key.short());
                writeln!(out, "{number:>5} {address:<13} {key} {text}")?;
            }
        }
        for (count, what) in [(good_count, "ok"), (failed_count, "failed")] {
            if count > shown_max {
                writeln!(out, "  ... and {} more {what}", count - shown_max)?;
            }
        }
        Ok(())
    }

    fn failed_count(&self) -> usize {
        self.rows.iter().filter(|row| row.result.is_err()).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, failed) = (self.rows.len(), self.failed_count());
        let mut setups = Histogram::<u64>::new_with_max(SETUP_MAX_US, 3).map_err(|_| fmt::Error)?;
        for setup in &self.setups {
            setups.saturating_record(u64::try_from(setup.as_micros()).unwrap_or(u64::MAX));
        }
        let quantile_ms = |quantile| match setups.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.1}", setups.value_at_quantile(quantile) as f64 / 1000.0),
        };
        write!(
            f,
            "demo: {count} endpoints, {} ok, {failed} failed, set-up p50 {} ms p99 {} ms",
            count - failed,
            quantile_ms(0.5),
            quantile_ms(0.99)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// `count` endpoints, of which those numbered in `failed` have failed.
    fn summary(count: usize, failed: &[usize]) -> Summary {
        let row = |number: usize| Row {
            address: IpAddr::from([127, 1, 0, number as u8]),
            key: KeyId([0xab; 32]),
            result: match failed.contains(&number) {
                true => Err("no page".to_owned()),
                false => Ok(format!("page {number}\n")),
            },
        };
        Summary {
            rows: (1..=count).map(row).collect(),
            setups: (1..=count as u64).map(Duration::from_millis).collect(),
            strays: Vec::new(),
            status: ExitStatus::from_raw(0),
            log_tail: vec!["last words".to_owned()],
        }
    }

    fn table(summary: &Summary) -> Vec<String> {
        let mut out = Vec::new();
        summary.print(&mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn twenty_endpoints_are_shown_in_full() {
        let lines = table(&summary(20, &[]));
        assert_eq!(lines.len(), 21);
        assert_eq!(lines[1], "    1 127.1.0.1     abababababab page 1");
        assert_eq!(lines[20], "   20 127.1.0.20    abababababab page 20");
    }

    #[test]
    fn more_endpoints_are_shortened_but_failures_are_seen() {
        let lines = table(&summary(100, &[99]));
        assert_eq!(lines[10], "   10 127.1.0.10    abababababab page 10");
        assert_eq!(lines[11], "   99 127.1.0.99    abababababab FAILED: no page");
        assert_eq!(lines[12], "  ... and 89 more ok");
        assert!(lines.contains(&"  last words".to_owned()), "{lines:?}");
        let all: Vec<usize> = (1..=100).collect();
        let lines = table(&summary(100, &all));
        assert_eq!(lines[11], "  ... and 90 more failed");
    }

    #[test]
    fn the_last_line_counts_and_times() {
        assert_eq!(
            summary(100, &[3]).to_string(),
            "demo: 100 endpoints, 99 ok, 1 failed, set-up p50 50.0 ms p99 99.0 ms"
        );
        let mut none = summary(1, &[1]);
        none.setups.clear();
        assert!(none.to_string().ends_with("0 ok, 1 failed, set-up p50 - ms p99 - ms"), "{none}");
    }

    #[test]
    fn a_run_is_good_only_if_all_pages_are_right_and_pktxpmgr_succeeded() {
        assert!(summary(3, &[]).is_good());
        assert!(!summary(3, &[2]).is_good());
        let crashed = Summary { status: ExitStatus::from_raw(6), ..summary(3, &[]) };
        assert!(!crashed.is_good());
        assert!(table(&crashed).iter().any(|line| line.contains("signal: 6")));
    }
}
