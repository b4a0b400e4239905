//! A snapshot of a run in Prometheus' text format 0.0.4.
//!
//! Names and labels never change their meaning; times are in seconds, sizes in bytes. The values of labels are words of
//! ours, so that peers cannot make more of them.
//!
//! Not here: what is counted (`engine::Snapshot`).

use std::fmt::{Display, Write};
use std::time::Duration;

use command_line::provenance::COMMIT;
use engine::{BothWays, BrokerStage, RelayTimes, Snapshot};

/// The directions, as records name them.
const TO_ENDPOINT: &str = "to_ep";
const FROM_ENDPOINT: &str = "from_ep";

/// The text of this snapshot.
pub(super) fn text(run: &Snapshot) -> String {
    let mut text = Exposition::default();
    of_program(&mut text);
    of_sessions(&mut text, run);
    of_campaign(&mut text, run);
    of_relay(&mut text, run);
    of_mlets(&mut text, run);
    of_troubles(&mut text, run);
    of_process(&mut text, run);
    of_cores(&mut text, run);
    of_times(&mut text, run);
    text.0
}

fn of_program(text: &mut Exposition) {
    text.family("build_info", "gauge", "Version and commit of the program; always 1.");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT.unwrap_or("unknown"))];
    text.sample("build_info", &labels, 1);
}

fn of_sessions(text: &mut Exposition, run: &Snapshot) {
    let help = "Sessions and connections that are not over, by how far they are.";
    text.family("sessions_active", "gauge", help);
    for (phase, count) in run.sessions.named() {
        text.sample("sessions_active", &[("phase", phase)], count);
    }
    let help = "Sessions that there may be at once, of all cores together.";
    text.alone("sessions_max", "gauge", help, run.places.max);
    let help = "Connections whose TLS handshake is under way.";
    text.alone("handshakes_inflight", "gauge", help, run.sessions.handshake);
    let help = "Sessions and connections that are over, by outcome, as records count them.";
    text.family("sessions_total", "counter", help);
    for (outcome, count) in &run.summary.outcomes {
        text.sample("sessions_total", &[("outcome", &outcome.to_string())], *count);
    }
    let help = "Sessions that count as failed for --fail-on and --halt.";
    text.alone("sessions_failed_total", "counter", help, run.summary.failed);
    let help = "Time that a phase took, of sessions that are over.";
    text.family("phase_seconds", "histogram", help);
    for ((phase, outcome), times) in &run.summary.phases {
        let outcome = outcome.to_string();
        let labels = [("phase", *phase), ("outcome", &*outcome)];
        let times = &times.times;
        text.histogram("phase_seconds", &labels, times.up_to(), (times.sum(), times.count()));
    }
}

fn of_campaign(text: &mut Exposition, run: &Snapshot) {
    let reporting = &run.reporting;
    if run.campaign.is_some() || reporting.silent.is_some() {
        let help = "Whether the database of the campaign answers (1) or not (0).";
        let is_up = u8::from(reporting.silent.is_none());
        text.alone("campaign_database_up", "gauge", help, is_up);
        let help = "Results of this run that the campaign has neither accepted nor refused yet.";
        text.alone("campaign_results_waiting", "gauge", help, reporting.results_waiting);
    }
    let Some(campaign) = &run.campaign else { return };
    let help = "Endpoints of the campaign, of all managers, by how they stand.";
    text.family("campaign_endpoints", "gauge", help);
    for (state, count) in campaign.endpoints() {
        text.sample("campaign_endpoints", &[("state", state)], count);
    }
    text.alone("campaign_managers", "gauge", "Managers of the campaign.", campaign.managers);
    let help = "Sessions that the managers of the campaign can have at once.";
    text.alone("campaign_places", "gauge", help, campaign.places);
    text.alone("campaign_round", "gauge", "Round of the campaign, from 1.", campaign.round);
    text.alone("campaign_wave", "gauge", "Wave of that round, from 1.", campaign.wave);
}

fn of_relay(text: &mut Exposition, run: &Snapshot) {
    let help = "Bytes of messages that were relayed, headers included.";
    text.both_ways("relay_bytes_total", help, run.bytes);
    text.both_ways("relay_messages_total", "Messages that were relayed.", run.messages);
    let help = "Time from the receipt of bytes until they have left, of one in --latency-sample.";
    text.family("relay_latency_seconds", "histogram", help);
    let both = [(TO_ENDPOINT, &run.relay.to_endpoint), (FROM_ENDPOINT, &run.relay.from_endpoint)];
    for (dir, times) in both {
        let Some(RelayTimes { count, sum, up_to, .. }) = times else { continue };
        let up_to = up_to.iter().copied();
        text.histogram("relay_latency_seconds", &[("dir", dir)], up_to, (*sum, *count));
    }
}

fn of_mlets(text: &mut Exposition, run: &Snapshot) {
    text.alone("mlets_active", "gauge", "Mlets that may still run.", run.mlets);
    let help = "Time from the answer to START until the mlet ran.";
    text.family("mlet_spawn_seconds", "histogram", help);
    let times = &run.summary.mlet_starts;
    text.histogram("mlet_spawn_seconds", &[], times.up_to(), (times.sum(), times.count()));
    text.family("mlet_exits_total", "counter", "Mlets that have ended, by how.");
    let ends = run.summary.mlets;
    for (reason, count) in [
        ("exit_0", ends.succeeded),
        ("exit_other", ends.failed),
        ("signal", ends.signalled),
        ("not_started", ends.not_started),
    ] {
        text.sample("mlet_exits_total", &[("reason", reason)], count);
    }
}

fn of_troubles(text: &mut Exposition, run: &Snapshot) {
    let help = "How often accepting paused, by what was lacking.";
    text.family("accept_errors_total", "counter", help);
    for (reason, count) in &run.accept_pauses {
        text.sample("accept_errors_total", &[("reason", reason)], *count);
    }
    let help = "How often a limit ended a session or made no place for one, by its option.";
    text.family("limit_refusals_total", "counter", help);
    for (limit, count) in &run.summary.limits_hit {
        let reason = limit.trim_start_matches('-');
        text.sample("limit_refusals_total", &[("reason", reason)], *count);
    }
    let help = "What was to be written and is not: records, log lines, LINFOs, output of mlets.";
    text.family("events_dropped_total", "counter", help);
    for (reason, count) in [
        ("record", run.lost.records),
        ("log_line", run.lost.log_lines),
        ("linfo", run.lost.linfos),
        ("output", run.summary.outputs_lost),
    ] {
        text.sample("events_dropped_total", &[("reason", reason)], count);
    }
}

fn of_process(text: &mut Exposition, run: &Snapshot) {
    let help = "How often the configuration was read again, and whether it was put into effect.";
    text.family("reloads_total", "counter", help);
    for (result, count) in [("done", run.reloads.done), ("refused", run.reloads.refused)] {
        text.sample("reloads_total", &[("result", result)], count);
    }
    if let Some(open) = run.files.open {
        text.alone("open_fds", "gauge", "Open files of the manager.", open);
    }
    text.alone("fd_limit", "gauge", "Files that the manager may have open.", run.files.limit);
}

fn of_cores(text: &mut Exposition, run: &Snapshot) {
    type Number = fn(&engine::CoreState) -> f64;
    let families: [(&str, &str, &str, Number); 6] = [
        (
            "core_busy_ratio",
            "gauge",
            "Share of the time since the last look, a second at least, that a shard worked.",
            |core| core.busy_ratio,
        ),
        ("core_busy_seconds_total", "counter", "Processor time of a shard.", |core| {
            core.busy.as_secs_f64()
        }),
        (
            "core_handshake_seconds_total",
            "counter",
            "Time that a shard has spent on key exchanges and signatures of handshakes.",
            |core| core.handshakes.as_secs_f64(),
        ),
        (
            "core_stalled_seconds",
            "gauge",
            "How long a shard has made no turn, so that its sessions stand still; 0 while it makes turns.",
            |core| core.stalled.unwrap_or_default().as_secs_f64(),
        ),
        (
            "ring_cq_overflow_total",
            "counter",
            "Completions that were lost because the ring had no room.",
            |core| core.ring_overflows as f64,
        ),
        (
            "ring_enobufs_total",
            "counter",
            "Receives that found no buffer and came again later.",
            |core| core.no_buffers as f64,
        ),
    ];
    for (name, kind, help, number) in families {
        text.family(name, kind, help);
        for core in &run.cores {
            text.sample(name, &[("core", &core.core.to_string())], number(core));
        }
    }
}

fn of_times(text: &mut Exposition, run: &Snapshot) {
    let seconds = |ticks: packetlab::time::Ticks| ticks.0 as f64 / 1e9;
    let help = "When the configuration that is in effect was read, since 1970.";
    text.alone("reload_success_timestamp", "gauge", help, seconds(run.reloads.read_at));
    let help = "When the first certificate ends that is shown to these, since 1970.";
    text.family("cert_not_after_seconds", "gauge", help);
    for (role, end) in &run.certificates {
        text.sample("cert_not_after_seconds", &[("role", role)], seconds(*end));
    }
    if !run.brokers.is_empty() {
        let help = "Brokers at which everything is published, is not, or is no more since the publication has ended.";
        text.family("brokers", "gauge", help);
        for (state, stage) in [
            ("published", BrokerStage::Published),
            ("not_published", BrokerStage::NotPublished),
            ("over", BrokerStage::Over),
        ] {
            text.sample("brokers", &[("state", state)], run.brokers_at(stage));
        }
    }
    if !run.proxies.is_empty() {
        let help = "Proxies at which the last connection that was tried is registered, or not.";
        text.family("proxies", "gauge", help);
        for (state, registers) in [("registered", true), ("not_registered", false)] {
            let at = run.proxies.iter().filter(|proxy| proxy.registers == registers);
            text.sample("proxies", &[("state", state)], at.count());
        }
    }
    if let Some(end) = run.publication_end {
        let help = "When the publication ends, since 1970.";
        text.alone("publication_end_seconds", "gauge", help, seconds(end));
    }
}

/// The text as far as it is written.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// Begins the samples of a name.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP pktxpmgr_{name} {help}\n# TYPE pktxpmgr_{name} {kind}");
    }

    /// A sample. The values of labels are words of ours that need no escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "pktxpmgr_{name}");
        let mut separator = '{';
        for (label, value) in labels {
            let _ = write!(self.0, "{separator}{label}=\"{value}\"");
            separator = ',';
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// A name with one sample.
    fn alone(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A counter of each direction.
    fn both_ways(&mut self, name: &str, help: &str, counts: BothWays<u64>) {
        self.family(name, "counter", help);
        self.sample(name, &[("dir", TO_ENDPOINT)], counts.to_endpoint);
        self.sample(name, &[("dir", FROM_ENDPOINT)], counts.from_endpoint);
    }

    /// How times lie: how many are no longer than each bound, and all of them.
    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        up_to: impl Iterator<Item = (Duration, u64)>,
        (sum, count): (Duration, u64),
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in up_to {
            let bound = bound.as_secs_f64().to_string();
            self.sample(&bucket, &[labels, &[("le", &*bound)]].concat(), count);
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), count);
        self.sample(&format!("{name}_sum"), labels, sum.as_secs_f64());
        self.sample(&format!("{name}_count"), labels, count);
    }
}

#[cfg(test)]
mod tests {
    use engine::{
        BrokerState, CoreState, Files, Losses, MletEnds, Places, ProxyState, Reloads,
        SessionsByPhase, Summary,
    };
    use packetlab::time::Ticks;

    use super::*;

    /// Each number is its own, so that none can be taken for another.
    fn numbered() -> Snapshot {
        let core = CoreState {
            core: 3,
            busy: Duration::from_secs(30),
            busy_ratio: 0.31,
            stalled: Some(Duration::from_secs(32)),
            handshakes: Duration::from_secs(70),
            ring_overflows: 33,
            no_buffers: 34,
        };
        Snapshot {
            sessions: SessionsByPhase {
                waiting: 1,
                backlog: 2,
                handshake: 3,
                greeting: 4,
                running: 5,
                closing: 6,
            },
            places: Places { taken: 18, max: 35 },
            mlets: 7,
            summary: Summary {
                failed: 8,
                limits_hit: [("--idle-timeout", 9)].into(),
                mlets: MletEnds { succeeded: 10, failed: 11, signalled: 12, not_started: 13 },
                outputs_lost: 14,
                ..Summary::default()
            },
            bytes: BothWays { to_endpoint: 15, from_endpoint: 16 },
            messages: BothWays { to_endpoint: 17, from_endpoint: 18 },
            accept_pauses: [("memory", 19)].into(),
            lost: Losses { records: 20, log_lines: 21, linfos: 22 },
            files: Files { open: Some(23), limit: 24 },
            certificates: [("broker", Ticks(25_000_000_000))].into(),
            publication_end: Some(Ticks(26_000_000_000)),
            brokers: [BrokerStage::Published, BrokerStage::NotPublished, BrokerStage::NotPublished]
                .map(|stage| BrokerState { name: "b".into(), stage })
                .into(),
            proxies: [true, true, true, false]
                .map(|registers| ProxyState {
                    name: "p".into(),
                    registers,
                    registered: 1,
                    wanted: 2,
                })
                .into(),
            reloads: Reloads {
                done: 27,
                refused: 28,
                read_at: Ticks(29_000_000_000),
                reading: None,
            },
            cores: vec![CoreState::default(), core],
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_number_is_told_under_its_own_name() {
        let text = text(&numbered());
        let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for expected in [
            "sessions_active{phase=\"waiting\"} 1",
            "sessions_active{phase=\"backlog\"} 2",
            "sessions_active{phase=\"handshake\"} 3",
            "handshakes_inflight 3",
            "sessions_active{phase=\"greeting\"} 4",
            "sessions_active{phase=\"running\"} 5",
            "sessions_active{phase=\"closing\"} 6",
            "sessions_max 35",
            "mlets_active 7",
            "sessions_failed_total 8",
            "limit_refusals_total{reason=\"idle-timeout\"} 9",
            "mlet_exits_total{reason=\"exit_0\"} 10",
            "mlet_exits_total{reason=\"exit_other\"} 11",
            "mlet_exits_total{reason=\"signal\"} 12",
            "mlet_exits_total{reason=\"not_started\"} 13",
            "events_dropped_total{reason=\"output\"} 14",
            "relay_bytes_total{dir=\"to_ep\"} 15",
            "relay_bytes_total{dir=\"from_ep\"} 16",
            "relay_messages_total{dir=\"to_ep\"} 17",
            "relay_messages_total{dir=\"from_ep\"} 18",
            "accept_errors_total{reason=\"memory\"} 19",
            "events_dropped_total{reason=\"record\"} 20",
            "events_dropped_total{reason=\"log_line\"} 21",
            "events_dropped_total{reason=\"linfo\"} 22",
            "open_fds 23",
            "fd_limit 24",
            "cert_not_after_seconds{role=\"broker\"} 25",
            "publication_end_seconds 26",
            "brokers{state=\"published\"} 1",
            "brokers{state=\"not_published\"} 2",
            "brokers{state=\"over\"} 0",
            "proxies{state=\"registered\"} 3",
            "proxies{state=\"not_registered\"} 1",
            "reloads_total{result=\"done\"} 27",
            "reloads_total{result=\"refused\"} 28",
            "reload_success_timestamp 29",
            "core_busy_seconds_total{core=\"3\"} 30",
            "core_busy_ratio{core=\"3\"} 0.31",
            "core_handshake_seconds_total{core=\"3\"} 70",
            "core_stalled_seconds{core=\"0\"} 0",
            "core_stalled_seconds{core=\"3\"} 32",
            "ring_cq_overflow_total{core=\"3\"} 33",
            "ring_enobufs_total{core=\"3\"} 34",
        ] {
            assert!(told.contains(&&*format!("pktxpmgr_{expected}")), "{expected} in {text}");
        }
    }
}
