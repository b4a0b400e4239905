//! `pktxpmgr campaign status`: how a campaign stands, and who measures, for people and for programs.
//!
//! Not here: what is counted, which the database does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use ::campaign::administration::{Lost, ManagerStatus, Status};
use ::campaign::{Standing, State};
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
        true => format!("{}\n", as_json(&options.named.campaign()?, &status)),
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
    let again = match (state, status.lost) {
        (State::Open, Lost::Again) => ", measured again",
        (State::Open, Lost::Skip) => ", not measured again",
        // Nobody is called any more.
        _ => "",
    };
    let ended = ended_by(status).map_or_else(String::new, |how| format!(" ({how})"));
    let next_round = status
        .next_round
        .map(|left| format!(", the next in {} s at the earliest", left.as_secs_f64().ceil()));
    let rows = [
        (
            "state",
            format!("{state}{ended}, round {round}{of_waves}{}", next_round.unwrap_or_default()),
        ),
        ("wanted", wanted),
        ("done", format!("{done}, of these {} in the last minute", status.done_last_minute)),
        ("running", taken.saturating_sub(done).to_string()),
        ("lost", format!("{lost}{again}")),
        ("given back", released.to_string()),
        ("out of tries", format!("{spent}, after {}", status.tries_max)),
        ("claims", status.claims.to_string()),
        ("managers", format!("{managers}, with {places} places")),
        ("lease", format!("{} s", status.lease.as_secs_f64())),
        ("mlet", packetlab::key::Hex(&status.plan.mlet_digest).to_string()),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        // A String takes everything.
        let _ = writeln!(text, "{name:<12}  {value}");
        for (outcome, endpoints) in status.outcomes.iter().filter(|_| name == "done") {
            let _ = writeln!(text, "{:<12}  {endpoints} {}", "", Escaped(outcome.as_bytes()));
        }
    }
    if !status.members.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<7} {:>7} {:>7} {:>9}  host",
            "manager", "places", "running", "done"
        );
    }
    for ManagerStatus { host, version, state, publishes, places, claimed, done } in &status.members
    {
        let (host, version) = (Escaped(host.as_bytes()), Escaped(version.as_bytes()));
        let publishes = if *publishes { ", publishes" } else { "" };
        let _ = writeln!(
            text,
            "{state:<7} {places:>7} {claimed:>7} {done:>9}  {host} ({version}{publishes})"
        );
    }
    text
}

/// What a campaign that is over has ended by, if by more than that all are done.
fn ended_by(status: &Status) -> Option<&'static str> {
    match (status.standing.state, status.decided) {
        (State::Over, State::Draining) => Some("stopped"),
        (State::Over, State::Halted) => Some("halted"),
        _ => None,
    }
}

fn as_json(name: &str, status: &Status) -> Value {
    let standing = &status.standing;
    let member = |member: &ManagerStatus| {
        json!({
            "host": member.host, "version": member.version, "state": member.state,
            "publishes": member.publishes, "places": member.places, "running": member.claimed,
            "done": member.done,
        })
    };
    let outcomes = status.outcomes.iter().cloned().collect::<BTreeMap<_, _>>();
    json!({
        "name": name, "created": status.created, "state": standing.state.to_string(),
        "ended_by": ended_by(status), "wanted": standing.n, "round": standing.round,
        "next_round_s": status.next_round.map(|left| left.as_secs_f64()),
        "wave": standing.wave, "waves": status.waves, "managers": standing.managers,
        "places": standing.places, "running": standing.taken.saturating_sub(standing.done), "done": standing.done,
        "outcomes": outcomes, "done_last_minute": status.done_last_minute, "lost": standing.lost,
        "given_back": standing.released, "out_of_tries": standing.spent, "tries": status.tries_max,
        "claims": status.claims, "lease_s": status.lease.as_secs_f64(),
        "descriptor": status.plan.descriptor, "arguments": status.plan.argv,
        "snikeys": status.plan.snikeys,
        "mlet_sha256": packetlab::key::Hex(&status.plan.mlet_digest).to_string(),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::campaign::Plan;

    use super::*;

    fn status() -> Status {
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
        let member = ManagerStatus {
            host: "lab\u{1b}1".into(),
            version: "0.1.0".into(),
            state: "live".into(),
            publishes: true,
            places: 50,
            claimed: 10,
            done: 30,
        };
        Status {
            standing,
            decided: State::Open,
            created: "2026-11-30T00:12:00.123456Z".into(),
            next_round: Some(Duration::from_millis(33_400)),
            plan,
            waves: Vec::new(),
            tries_max: 3,
            lease: Duration::from_secs(60),
            lost: Lost::Again,
            claims: 44,
            done_last_minute: 5,
            outcomes: vec![("ok".into(), 28), ("endpoint\u{1b}closed".into(), 2)],
            members: vec![member],
        }
    }

    #[test]
    fn it_is_told_what_is_done_what_runs_and_by_whom() {
        let status = status();
        let text = as_text(&status);
        for told in [
            "state         open, round 2, the next in 34 s at the earliest\n",
            "lost          2, measured again\n",
            "done          30, of these 5 in the last minute\n              28 ok\n              2 endpoint",
            "running       10\n",
            "out of tries  0, after 3\n",
            "live         50      10        30  lab",
            ", publishes)",
        ] {
            assert!(text.contains(told), "{told:?}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "what others say is escaped: {text}");
        let json = as_json("eu26", &status);
        assert_eq!((&json["claims"], &json["members"][0]["running"]), (&44.into(), &10.into()));
        assert_eq!(json["outcomes"]["ok"], 28);
        let of_metrics =
            ["done", "running", "lost", "given_back", "out_of_tries"].map(|name| &json[name]);
        assert_eq!(of_metrics, [30, 10, 2, 1, 0], "as metrics call them");
    }

    #[test]
    fn a_campaign_that_was_ended_says_by_what_and_measures_nobody_again() {
        for (state, decided, told, ended_by) in [
            (State::Open, State::Open, "open, round 2", Value::Null),
            (State::Draining, State::Draining, "draining, round 2", Value::Null),
            (State::Over, State::Over, "over, round 2", Value::Null),
            (State::Over, State::Draining, "over (stopped), round 2", "stopped".into()),
            (State::Over, State::Halted, "over (halted), round 2", "halted".into()),
        ] {
            let mut status = status();
            (status.standing.state, status.decided) = (state, decided);
            let text = as_text(&status);
            assert!(text.contains(told), "{told}: {text}");
            assert_eq!(text.contains("measured again"), state == State::Open, "{text}");
            assert_eq!(as_json("eu26", &status)["ended_by"], ended_by);
        }
    }
}
