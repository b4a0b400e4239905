//! What a certificate shall say, as typed: everything but its type, keys and dates (spec/protocol.md 4.3).
//!
//! Values are stricter here than when reading: what original programs misread is refused.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use command_line::units;
use packetlab::certificate::{
    BurstRate, CertificateLimits, CertificateType, Delegation, Destination,
};
use packetlab::issue::CertificateFields;
use packetlab::key::Hex;
use packetlab::name_value::{Dialect, Pair};
use packetlab::program::ProgramDigest;

use crate::failure::{Failure, note, shown};
use crate::files::Place;

/// A command for each of the five types, each of which takes what its type may say and nothing else. `How` is what the
/// command takes for all of them.
#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand<How: Issuing> {
    /// An endpoint may represent its endpoint operator
    #[command(before_help = How::examples(CertificateType::Subcmd))]
    Subcmd(OfType<How, Description>),
    /// A controller may run the experimenter's experiments
    #[command(before_help = How::examples(CertificateType::Pubcmd))]
    Pubcmd(OfType<How, Description>),
    /// Experiment privilege, of an operator to an experimenter
    #[command(before_help = How::examples(CertificateType::Exppriv))]
    Exppriv(OfType<How, Privilege>),
    /// Delegation of a privilege
    #[command(before_help = How::examples(CertificateType::Delpriv))]
    Delpriv(OfType<How, DelegationOptions>),
    /// Identity for connections to broker and proxy
    #[command(before_help = How::examples(CertificateType::Agent))]
    Agent(OfType<How, Description>),
}

/// What is done with what a certificate shall say.
pub(crate) trait Issuing: Args {
    /// Examples for this type, for its page of help.
    fn examples(certificate_type: CertificateType) -> &'static str;
}

/// What a command takes for one type.
#[derive(Debug, Args)]
pub(crate) struct OfType<How: Issuing, Contents: Args> {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    contents: Contents,
}

impl<How: Issuing> CertificateCommand<How> {
    /// The type, what the command takes for all types, and what the certificate shall say.
    pub(crate) fn parts(&self) -> (CertificateType, &How, &dyn Contents) {
        match self {
            Self::Subcmd(of) => (CertificateType::Subcmd, &of.how, &of.contents),
            Self::Pubcmd(of) => (CertificateType::Pubcmd, &of.how, &of.contents),
            Self::Exppriv(of) => (CertificateType::Exppriv, &of.how, &of.contents),
            Self::Delpriv(of) => (CertificateType::Delpriv, &of.how, &of.contents),
            Self::Agent(of) => (CertificateType::Agent, &of.how, &of.contents),
        }
    }
}

/// What a certificate shall say, as typed.
pub(crate) trait Contents {
    /// Writes what was typed over these fields; the rest of them stays.
    ///
    /// # Errors
    /// A program that is demanded cannot be read, or what the type cannot do without is missing.
    fn apply(&self, fields: &mut CertificateFields, place: &Place) -> Result<(), Failure>;
}

/// What a `delpriv` may delegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DelegationWord {
    /// The experiment privilege
    Exppriv,
    /// The right to represent the endpoint operator
    Reppriv,
}

/// What any type may say.
#[derive(Debug, Args)]
pub(crate) struct Description {
    /// Description, free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Further information without effect; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = info)]
    info: Vec<Pair>,
}

/// What an `exppriv` may say.
#[derive(Debug, Args)]
pub(crate) struct Privilege {
    /// Most delegations below [default: any number]
    #[arg(long, value_name = "N")]
    path_len: Option<u32>,
    #[command(flatten)]
    description: Description,
    #[command(flatten)]
    limits: LimitOptions,
}

/// What a `delpriv` may say.
#[derive(Debug, Args)]
pub(crate) struct DelegationOptions {
    /// What is delegated: exppriv, reppriv or both; what a signing request says need not be said again
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',')]
    delegate: Vec<DelegationWord>,
    #[command(flatten)]
    privilege: Privilege,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitOptions {
    /// Program that the controller must supply: file or digest; a file that endpoints cannot run is refused; may be
    /// repeated
    #[arg(long, value_name = "PROGRAM|DIGEST")]
    monitor: Vec<PathBuf>,
    /// Highest priority of experiments
    #[arg(long, value_name = "N")]
    max_num_priority: Option<u64>,
    /// Most sockets open at once
    #[arg(long, value_name = "N")]
    max_socket_count: Option<u64>,
    /// Longest experiment: 1h, or a number of nanoseconds
    #[arg(long, value_name = "TIME", value_parser = ticks)]
    max_exp_period: Option<u64>,
    /// Most bytes sent
    #[arg(long, value_name = "N")]
    max_send_byte: Option<u64>,
    /// Most packets sent
    #[arg(long, value_name = "N")]
    max_send_pkt: Option<u64>,
    /// Most bytes received
    #[arg(long, value_name = "N")]
    max_recv_byte: Option<u64>,
    /// Most packets received
    #[arg(long, value_name = "N")]
    max_recv_pkt: Option<u64>,
    /// Most bytes within every window, such as 1000/1s; all of a list apply
    #[arg(long, value_name = "N/TIME,...", value_delimiter = ',', value_parser = rate)]
    max_burst_rate_byte: Vec<BurstRate>,
    /// Most packets within every window; all of a list apply
    #[arg(long, value_name = "N/TIME,...", value_delimiter = ',', value_parser = rate)]
    max_burst_rate_pkt: Vec<BurstRate>,
    /// Allowed destinations: addresses and networks such as 192.0.2.0/24
    #[arg(long, value_name = "NET,...", value_delimiter = ',', value_parser = destination)]
    valid_dest: Vec<Destination>,
    /// Whether packets may carry foreign source addresses
    #[arg(long, value_name = "0|1", value_parser = switch)]
    src_ip_spoofing: Option<bool>,
    /// A limit unknown to PacketLab, *NAME if it is optional; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = own_limit)]
    limit: Vec<Pair>,
}

impl Contents for Description {
    fn apply(&self, fields: &mut CertificateFields, _: &Place) -> Result<(), Failure> {
        if self.description.is_some() {
            fields.description.clone_from(&self.description);
        }
        set_list(&mut fields.auxiliary, &self.info);
        Ok(())
    }
}

impl Contents for Privilege {
    fn apply(&self, fields: &mut CertificateFields, place: &Place) -> Result<(), Failure> {
        fields.path_len = self.path_len.or(fields.path_len);
        self.description.apply(fields, place)?;
        self.limits.apply(&mut fields.limits, place)
    }
}

impl Contents for DelegationOptions {
    fn apply(&self, fields: &mut CertificateFields, place: &Place) -> Result<(), Failure> {
        if !self.delegate.is_empty() {
            let delegates = |word| self.delegate.contains(&word);
            fields.delegation = Delegation {
                exppriv: delegates(DelegationWord::Exppriv),
                reppriv: delegates(DelegationWord::Reppriv),
            };
        }
        if fields.delegation == Delegation::default() {
            return Err(Failure::usage("a delpriv needs --delegate exppriv, reppriv or both"));
        }
        self.privilege.apply(fields, place)
    }
}

impl LimitOptions {
    fn apply(&self, limits: &mut CertificateLimits, place: &Place) -> Result<(), Failure> {
        let monitor = self.monitor.iter().map(|word| monitor(word, place));
        set_list(&mut limits.monitor, &monitor.collect::<Result<Vec<_>, _>>()?);
        for (limit, typed) in [
            (&mut limits.max_num_priority, self.max_num_priority),
            (&mut limits.max_socket_count, self.max_socket_count),
            (&mut limits.max_exp_period, self.max_exp_period),
            (&mut limits.max_send_byte, self.max_send_byte),
            (&mut limits.max_send_pkt, self.max_send_pkt),
            (&mut limits.max_recv_byte, self.max_recv_byte),
            (&mut limits.max_recv_pkt, self.max_recv_pkt),
        ] {
            *limit = typed.or(*limit);
        }
        set_list(&mut limits.max_burst_rate_byte, &self.max_burst_rate_byte);
        set_list(&mut limits.max_burst_rate_pkt, &self.max_burst_rate_pkt);
        set_list(&mut limits.valid_dest, &self.valid_dest);
        limits.src_ip_spoofing = self.src_ip_spoofing.or(limits.src_ip_spoofing);
        set_list(&mut limits.auxiliary, &self.limit);
        Ok(())
    }
}

fn set_list<T: Clone>(list: &mut Vec<T>, typed: &[T]) {
    if !typed.is_empty() {
        *list = typed.to_vec();
    }
}

/// 64 hexadecimal digits are a digest, of which nothing is known; anything else names a file.
fn monitor(word: &Path, place: &Place) -> Result<ProgramDigest, Failure> {
    let text = format!("monitor={};", word.display());
    let digests = CertificateLimits::parse(text.as_bytes()).map(|limits| limits.monitor);
    match digests.as_deref() {
        Ok([digest]) => Ok(*digest),
        _ => {
            let program = place.program(word)?;
            let digest = *program.digest();
            let unjudged = monitor_module::check(&program).map_err(|unfit| {
                let anyway = format!("--monitor {} demands it all the same", Hex(&digest));
                Failure::of_file(word, format!("cannot be a monitor: {unfit}; {anyway}"))
            })?;
            for message in unjudged {
                note(format!("warning: {}: {}", shown(word), message.unjudged()));
            }
            Ok(digest)
        }
    }
}

/// A pair behind the reserved names of cert_info.
fn info(text: &str) -> Result<Pair, String> {
    let pair = pair(Dialect::CertInfo, text)?;
    match pair.name.as_str() {
        "cert_type" | "del_type" => Err("the type and --delegate say that".to_owned()),
        "cert_desc" => Err("--description says that".to_owned()),
        _ => Ok(pair),
    }
}

fn own_limit(text: &str) -> Result<Pair, String> {
    let pair = pair(Dialect::CertLimit, text)?;
    let (name, optional) = pair.limit_name();
    // Any value will do to learn whether the name is known.
    let known = CertificateLimits::parse(format!("{name}=;").as_bytes())
        .map_or(true, |limits| limits.auxiliary.is_empty());
    if known && optional {
        return Err(format!(
            "{name} is known, and original programs crash on a known limit that is optional"
        ));
    }
    if known {
        return Err(format!("{name} is known; --{} sets it", name.replace('_', "-")));
    }
    Ok(pair)
}

fn pair(dialect: Dialect, text: &str) -> Result<Pair, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Pair::new(dialect, name, value).map_err(|error| error.to_string())
}

/// A period in nanoseconds, with a unit or as a plain number of them.
fn ticks(text: &str) -> Result<u64, String> {
    if let Ok(ticks) = text.parse() {
        return Ok(ticks);
    }
    let period = units::duration(text)?;
    u64::try_from(period.as_nanos()).map_err(|_| format!("'{text}' is too long"))
}

fn rate(text: &str) -> Result<BurstRate, String> {
    let (count, window) = text.split_once('/').ok_or("write COUNT/WINDOW, such as 1000/1s")?;
    let count = count.parse().map_err(|_| format!("'{count}' is no count"))?;
    match ticks(window)? {
        0 => Err("a window is longer than zero".to_owned()),
        window => Ok(BurstRate { count, window }),
    }
}

fn destination(text: &str) -> Result<Destination, String> {
    let destination = Destination::parse(text)
        .ok_or_else(|| format!("'{text}' is no address or network; write 192.0.2.0/24 or ::1"))?;
    if destination.has_host_bits() {
        return Err(format!(
            "'{text}' has bits set behind its prefix, and original endpoints would match nothing"
        ));
    }
    Ok(destination)
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("write 0 or 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_a_unit_or_are_nanoseconds() {
        assert_eq!(ticks("1h"), Ok(3_600_000_000_000));
        assert_eq!(ticks("3600000000000"), Ok(3_600_000_000_000));
        for bad in ["", "-1", " 1", "1x", "18446744073709551616", "584543d"] {
            assert!(ticks(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rates_are_counts_within_windows() {
        assert_eq!(rate("1000/1s"), Ok(BurstRate { count: 1000, window: 1_000_000_000 }));
        assert_eq!(rate("5/7"), Ok(BurstRate { count: 5, window: 7 }));
        for bad in ["", "5", "5/", "/5", "5/0", "5/0s", "-1/5", "5/5/5", "5 /5"] {
            assert!(rate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn destinations_have_no_bits_behind_their_prefix() {
        for good in ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert_eq!(destination(good).map(|found| found.to_string()), Ok(good.to_owned()));
        }
        for bad in ["192.0.2.1/24", "2001:db8::1/32", "example.org", "192.0.2.0/33", ""] {
            assert!(destination(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn own_pairs_may_not_take_a_reserved_name() {
        assert!(info("note=hello").is_ok());
        for bad in ["cert_type=agent", "del_type=exppriv", "cert_desc=x", "note", "=x", "a=b;c=d"] {
            assert!(info(bad).is_err(), "{bad:?}");
        }
        for good in ["filter=x", "*own=x", "own="] {
            assert!(own_limit(good).is_ok(), "{good:?}");
        }
        for bad in ["max_send_pkt=1", "monitor=", "valid_dest=::1", "own", "**own=x", "a=b;c=d"] {
            assert!(own_limit(bad).is_err(), "{bad:?}");
        }
        let refused = own_limit("*max_send_pkt=7").unwrap_err();
        assert!(refused.contains("original programs crash"), "{refused}");
    }
}
