//! `pktxpmgr campaign results`: the results that a campaign has accepted, a line of JSON each, also while it runs.
//!
//! Not here: the output of mlets, which stays in the folders of their managers.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

use ::campaign::administration::CampaignResult;
use clap::Args;
use packetlab::key::Hex;
use serde_json::json;

use super::named::{Named, failed};
use crate::results::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign results 'postgres://lab@db/lab#eu26' >eu26.jsonl
  pktxpmgr campaign results URL#NAME --follow >eu26.jsonl";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// Go on with those that come, until the campaign ends
    #[arg(short = 'f', long)]
    follow: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut administration = options.named.open()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let passed = administration.results(options.follow, |result| {
        written = write(&mut out, &result, options.follow);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written.and_then(|()| out.flush())?;
    passed.map_err(failed)
}

fn write(out: &mut impl Write, result: &CampaignResult, at_once: bool) -> io::Result<()> {
    let CampaignResult { endpoint, epoch, host, session, outcome, at, record } = result;
    let mut line = json!({
        "endpoint": Hex(endpoint).to_string(), "epoch": epoch, "host": host, "session": session,
        "outcome": outcome, "at": at,
    })
    .to_string();
    // It is JSON, in which a newline stands only where a blank may.
    line.pop();
    writeln!(out, "{line},\"record\":{}}}", record.replace('\n', " "))?;
    if at_once { out.flush() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_result_is_one_line_with_its_record_within() {
        let result = CampaignResult {
            endpoint: [0xab; 32],
            epoch: 2,
            host: Some("lab1".into()),
            session: 7,
            outcome: "ok".into(),
            at: "2026-11-30T00:12:00.123456Z".into(),
            record: "{\"sid\":\n7}".into(),
        };
        let mut text = Vec::new();
        write(&mut text, &result, false).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        let line: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(line["endpoint"], "ab".repeat(32));
        assert_eq!((&line["epoch"], &line["record"]["sid"]), (&2.into(), &7.into()));
    }
}
