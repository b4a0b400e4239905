//! `pktxpmgr campaign status`: how a campaign stands, and who measures, for people and for programs.
//!
//! Not here: what is counted, which the database does.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use ::campaign::Standing;
use ::campaign::administration::{Lost, Member, Status};
use clap::Args;
use packetlab::escape::Escaped;
use serde_json::{Value, json};

use super::named::{Named, failed};
use crate::results::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign status 'postgres://lab@db/lab#eu26'
  pktxpmgr campaign status 'postgres://lab@db/lab#eu26' --json";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// Print it as one JSON object, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let status = options.named.open()?.status().map_err(failed)?;
    print(&match options.json {
        true => format!("{}\n", as_json(&status)),
        false => as_text(&status),
    })
}

/// Writes it to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

fn as_text(status: &Status) -> String {
    let Standing { state, n, round, wave, managers, places, .. } = status.standing;
    let Standing { taken, done, lost, released, spent, .. } = status.standing;
    let of_waves = match status.waves.len() {
        0 => String::new(),
        waves => format!(", wave {wave} of {waves}"),
    };
    let wanted = n.map_or_else(|| "all that come".to_owned(), |n| n.to_string());
    let again = match status.lost {
        Lost::Again => "measured again",
        Lost::Skip => "not measured again",
    };
    let rows = [
        ("state", format!("{state}, round {round}{of_waves}")),
        ("wanted", wanted),
        ("done", format!("{done}, of these {} in the last minute", status.done_last_minute)),
        ("running", taken.saturating_sub(done).to_string()),
        ("lost", format!("{lost}, {again}")),
        ("given back", released.to_string()),
        ("out of tries", format!("{spent}, after {}", status.tries_max)),
        ("starts", status.claims.to_string()),
        ("managers", format!("{managers}, with {places} places")),
        ("lease", format!("{} s", status.lease.as_secs_f64())),
        ("mlet", packetlab::key::Hex(&status.plan.mlet_digest).to_string()),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        // A String takes everything.
        let _ = writeln!(text, "{name:<12}  {value}");
    }
    if !status.members.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<7} {:>7} {:>7} {:>9}  host",
            "manager", "places", "running", "done"
        );
    }
    for Member { host, version, state, publishes, places, claimed, done } in &status.members {
        let (host, version) = (Escaped(host.as_bytes()), Escaped(version.as_bytes()));
        let publishes = if *publishes { ", publishes" } else { "" };
        let _ = writeln!(
            text,
            "{state:<7} {places:>7} {claimed:>7} {done:>9}  {host} ({version}{publishes})"
        );
    }
    text
}

fn as_json(status: &Status) -> Value {
    let standing = &status.standing;
    let member = |member: &Member| {
        json!({
            "host": member.host, "version": member.version, "state": member.state,
            "publishes": member.publishes, "places": member.places, "running": member.claimed,
            "done": member.done,
        })
    };
    json!({
        "state": standing.state.to_string(), "n": standing.n, "round": standing.round,
        "wave": standing.wave, "waves": status.waves, "managers": standing.managers,
        "places": standing.places, "taken": standing.taken, "done": standing.done,
        "done_last_minute": status.done_last_minute, "lost": standing.lost,
        "released": standing.released, "spent": standing.spent, "tries": status.tries_max,
        "starts": status.claims, "lease_s": status.lease.as_secs_f64(),
        "descriptor": status.plan.descriptor, "arguments": status.plan.argv,
        "snikeys": status.plan.snikeys,
        "mlet_sha256": packetlab::key::Hex(&status.plan.mlet_digest).to_string(),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::campaign::{Plan, State};

    use super::*;

    #[test]
    fn it_is_told_what_is_done_what_runs_and_by_whom() {
        let standing = Standing {
            state: State::Open,
            n: Some(100),
            round: 2,
            wave: 1,
            publish: true,
            managers: 1,
            places: 50,
            taken: 40,
            done: 30,
            lost: 2,
            released: 1,
            spent: 0,
        };
        let plan = Plan {
            mlet_digest: [7; 32],
            argv: vec!["x".into()],
            descriptor: Some("sni_key=a;".into()),
            snikeys: vec!["a".into()],
        };
        let member = Member {
            host: "lab\u{1b}1".into(),
            version: "0.1.0".into(),
            state: "live".into(),
            publishes: true,
            places: 50,
            claimed: 10,
            done: 30,
        };
        let status = Status {
            standing,
            plan,
            waves: Vec::new(),
            tries_max: 3,
            lease: Duration::from_secs(60),
            lost: Lost::Again,
            claims: 44,
            done_last_minute: 5,
            members: vec![member],
        };
        let text = as_text(&status);
        for told in [
            "state         open, round 2\n",
            "done          30, of these 5 in the last minute\n",
            "running       10\n",
            "out of tries  0, after 3\n",
            "live         50      10        30  lab",
            ", publishes)",
        ] {
            assert!(text.contains(told), "{told:?}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "what others say is escaped: {text}");
        let json = as_json(&status);
        assert_eq!((&json["starts"], &json["members"][0]["running"]), (&44.into(), &10.into()));
    }
}
