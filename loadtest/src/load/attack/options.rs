//! What of an attack can be told.

use clap::{Args, ValueEnum};
use serde::Serialize;

/// What is attacked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attack {
    /// Endpoints send LINFOs of 64 KiB of ESC in their sessions
    Linfo,
    /// Handshakes with long self-made chains that lead nowhere
    Longchain,
    /// Connections that say nothing, reopened when they are closed
    Silent,
    /// The same, which say a ClientHello and do not go on
    HalfOpen,
    /// The same, which say a ClientHello in four bytes a second
    Trickle,
    /// ClientHellos, each on a connection of its own, which is reset when others have come behind it
    Hello,
    /// Endpoints send KeyUpdates in their sessions
    Keyupdate,
    /// Endpoints send records without a byte in their sessions
    Empty,
    /// One endpoint key opens as many sessions as it can
    Onekey,
    /// At `pktfleet broker`: hostile descriptors, a flood of log lines, half messages
    Broker,
    /// At `pktfleet proxy`: a stranger registers connections under another's snikey
    Proxy,
}

/// What of an attack can be told.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Attack (on loopback only)")]
pub(crate) struct AttackOptions {
    /// Measure short or echo without this attack, with it at a listener that accepts and closes, and
    /// with it at the real one
    #[arg(long, value_enum, value_name = "KIND")]
    #[serde(rename = "kind")]
    pub(in crate::load) attack: Option<Attack>,
    /// Rounds of these three
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    #[arg(requires = "attack")]
    pub(in crate::load) rounds: u32,
    /// Connections of the attacker at once [default: linfo, keyupdate and empty 20, longchain 16, silent 5000,
    /// half-open and trickle 10000, hello 1000, onekey 500, broker 100, proxy 300]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    #[arg(requires = "attack")]
    #[serde(rename = "count")]
    pub(in crate::load) attack_count: Option<u32>,
    /// LINFOs a second of each endpoint, or messages with all KeyUpdates or empty records that may come before one;
    /// handshakes a second of longchain, ClientHellos a second of hello; 0 is as many as go
    /// [default: linfo 100, keyupdate and empty 20, longchain 38, hello 20000]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    #[arg(requires = "attack")]
    #[serde(rename = "rate_per_s")]
    pub(in crate::load) attack_rate: Option<u32>,
    /// Addresses that silent, half-open, trickle and hello come from
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    #[arg(requires = "attack")]
    #[serde(rename = "sources")]
    pub(in crate::load) attack_sources: u32,
    /// Certificates in the chains of longchain
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=150))]
    #[arg(requires = "attack")]
    pub(in crate::load) chain_len: u32,
    /// The core the attacker runs on [default: any]
    #[arg(long, value_name = "CORE", requires = "attack")]
    #[serde(rename = "core")]
    pub(in crate::load) attack_core: Option<usize>,
    /// Leave the victim's log unread while it is attacked
    #[arg(long, requires = "attack")]
    pub(in crate::load) log_unread: bool,
    /// Pause of an honest endpoint between two round trips or sessions
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    #[arg(requires = "attack")]
    #[serde(rename = "pause_ms")]
    pub(in crate::load) pause: u64,
}

impl AttackOptions {
    /// The attack that is asked for.
    pub(in crate::load) fn kind(&self) -> Option<Attack> {
        self.attack
    }

    /// Whether there is none.
    pub(in crate::load) fn is_none(&self) -> bool {
        self.attack.is_none()
    }

    /// The core of the attacker.
    pub(in crate::load) fn core(&self) -> Option<usize> {
        self.attack_core
    }

    /// Sessions that have as many open files as the attacker's connections: those that come to no mlet have one each.
    pub(in crate::load) fn sessions(&self) -> usize {
        use Attack::{HalfOpen, Hello, Silent, Trickle};
        self.attack.map_or(0, |kind| match kind {
            Silent | HalfOpen | Trickle | Hello => self.count(kind).div_ceil(2),
            _ => self.count(kind),
        })
    }

    pub(super) fn count(&self, kind: Attack) -> usize {
        let default = match kind {
            Attack::Linfo | Attack::Keyupdate | Attack::Empty => 20,
            Attack::Longchain => 16,
            Attack::Silent => 5_000,
            Attack::HalfOpen | Attack::Trickle => 10_000,
            Attack::Hello => 1_000,
            Attack::Onekey => 500,
            Attack::Broker => 100,
            Attack::Proxy => 300,
        };
        self.attack_count.unwrap_or(default) as usize
    }

    /// Steps a second; `None` is without limit.
    pub(super) fn rate(&self, kind: Attack) -> Option<u32> {
        let default = match kind {
            Attack::Hello => 20_000,
            Attack::Linfo => 100,
            Attack::Keyupdate | Attack::Empty => 20,
            _ => 38,
        };
        Some(self.attack_rate.unwrap_or(default)).filter(|rate| *rate > 0)
    }
}
