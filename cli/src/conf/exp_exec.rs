//! `ExpExec`: one experiment on one line, six fields between colons (spec/pktxpmgr.md 2.5).

use std::path::PathBuf;

use packetlab::address::HostPort;
use packetlab::channel::ChannelId;
use packetlab::name_value::{self, Dialect, NameValueError, Pair};
use packetlab::snikey::SniKey;

use super::text::{Complaint, Located, Place, Value, keep};
use super::value;

const FIELDS: [&str; 6] = [
    "IS_DEFAULT",
    "SNIKEY",
    "EXPPRIVCHAIN_PATH",
    "TRUSTEDEOP_PATH",
    "PUB_CHANNEL",
    "OVERRIDE_XDESCRNVP",
];

/// One `ExpExec` line.
#[derive(Debug)]
pub(crate) struct ExperimentSettings {
    /// Field 1.
    pub(crate) is_default: Located<bool>,
    /// Field 2; `None` is to be drawn at random.
    pub(crate) snikey: Option<Located<SniKey>>,
    /// Field 3, in the order of the file, never empty; `None` was complained of.
    pub(crate) chain: Option<Vec<Located<PathBuf>>>,
    /// Where field 3 stands.
    pub(crate) chain_place: Place,
    /// Field 4, may be empty; `None` was complained of.
    pub(crate) trusted_operators: Option<Vec<Located<PathBuf>>>,
    /// Field 5; `None` stands for the key channel.
    pub(crate) channels: Vec<Option<ChannelId>>,
    /// Field 6.
    pub(crate) overrides: Vec<Override>,
}

/// One pair of field 6.
#[derive(Debug)]
pub(crate) struct Override {
    /// The pair as it is published.
    pub(crate) pair: Pair,
    /// Where its value stands.
    pub(crate) place: Place,
    /// Present only for `controller_addr`, which is to be resolved.
    pub(crate) address: Option<HostPort>,
    /// Why the pair cannot be published; matters only if something is published.
    pub(crate) complaint: Option<Complaint>,
}

impl Override {
    /// What is odd about a pattern of host ids.
    pub(super) fn pattern_complaint(&self) -> Option<Complaint> {
        let problem =
            value::pattern_flaw(&self.pair.value).filter(|_| self.pair.name == "hostid")?;
        let advice = "write * or ? in their place";
        Some(Complaint { place: Some(self.place), problem: problem.into(), advice: advice.into() })
    }
}

/// Reads the value of one `ExpExec` line. What is complained of has a neutral value in the settings; without six fields
/// there are none.
pub(super) fn exp_exec(
    line: Value<'_>,
    complaints: &mut Vec<Complaint>,
) -> Option<ExperimentSettings> {
    let fields = line.split(b':', FIELDS.len());
    let Ok([is_default, snikey, chain, trusted, channels, overrides]) =
        <[Value<'_>; 6]>::try_from(fields.as_slice())
    else {
        let problem = format!("ExpExec has {} of its six fields", fields.len());
        let advice = format!("write {}; empty fields keep their colon", FIELDS.join(":"));
        complaints.push(line.complain(problem, advice));
        return None;
    };
    let switch = keep(complaints, value::switch(is_default));
    let snikey = keep(complaints, server_name(snikey));
    let chain_place = chain.place;
    let chain = keep(complaints, value::files(chain));
    let trusted_operators = match trusted.bytes {
        b"" => Some(Vec::new()),
        _ => keep(complaints, value::files(trusted)),
    };
    let named = keep(complaints, value::channels(channels));
    if let Some((trusted, named)) = trusted_operators.as_ref().zip(named.as_ref()) {
        keep(complaints, check_vouched(trusted, named, channels));
    }
    let overrides = keep(complaints, pairs(overrides));
    Some(ExperimentSettings {
        is_default: is_default.located(switch.unwrap_or(false)),
        snikey: snikey.flatten(),
        chain,
        chain_place,
        trusted_operators,
        channels: named.unwrap_or_default(),
        overrides: overrides.unwrap_or_default(),
    })
}

fn server_name(field: Value<'_>) -> Result<Option<Located<SniKey>>, Complaint> {
    if field.bytes.is_empty() {
        return Ok(None);
    }
    SniKey::parse(field.text()?).map(|key| Some(field.located(key))).map_err(|error| {
        let advice = "use 1 to 63 of a-z and 0-9, or leave the field empty for a random key";
        field.complain(error.to_string(), advice)
    })
}

/// Without trusted operator keys there is no key channel, and 32-byte channels belong to keys.
/// As in the original this holds also when nothing is published.
fn check_vouched(
    trusted_operators: &[Located<PathBuf>],
    channels: &[Option<ChannelId>],
    field: Value<'_>,
) -> Result<(), Complaint> {
    let needs_operator =
        |channel: &Option<ChannelId>| channel.as_ref().is_none_or(ChannelId::is_private);
    if trusted_operators.is_empty() && channels.iter().any(needs_operator) {
        let problem =
            "without TRUSTEDEOP_PATH every channel must be given and shorter than 32 bytes";
        return Err(
            field.complain(problem, "name an operator key in field 4, or a channel such as 0102")
        );
    }
    Ok(())
}

fn pairs(field: Value<'_>) -> Result<Vec<Override>, Complaint> {
    let pairs = name_value::parse(Dialect::Descriptor, field.bytes).map_err(|error| {
        let problem = format!("OVERRIDE_XDESCRNVP cannot be read: {error}");
        let rest = field.part(offset_of(&error), field.bytes.len());
        rest.complain(problem, "write name=value; for each pair, the last ';' included")
    })?;
    let mut overrides: Vec<Override> = Vec::new();
    let mut offset = 0;
    for pair in pairs {
        // The grammar has no escapes, so a pair is as long as its name, '=', value and ';'.
        let value = field.part(offset + pair.name.len() + 1, pair.value.len());
        offset += pair.name.len() + pair.value.len() + 2;
        let repeated = overrides.iter().any(|earlier| earlier.pair.name == pair.name);
        overrides.push(predefined(pair, value, repeated));
    }
    Ok(overrides)
}

fn offset_of(error: &NameValueError) -> usize {
    match *error {
        NameValueError::BadCharacter { offset, .. }
        | NameValueError::NoEquals { offset }
        | NameValueError::NoName { offset }
        | NameValueError::Unterminated { offset }
        | NameValueError::Repeated { offset } => offset,
        // Of certificates alone.
        NameValueError::TooMany { .. } => 0,
    }
}

/// Checks a pair whose name the manager itself would write (spec/protocol.md 1.8); other names pass.
fn predefined(pair: Pair, value: Value<'_>, repeated: bool) -> Override {
    let mut address = None;
    let checked =
        match pair.name.as_str() {
            "sni_key" => Err(value
                .complain("sni_key cannot be overridden", "write the key into field 2, SNIKEY")),
            "controller_addr" => value::address(value).map(|found| address = Some(found.value)),
            "pub_end" | "exp_priority" => value::number(value).map(drop),
            "endpoint_country" => value::country(value).map(drop),
            "endpoint_location" => value::location(value).map(drop),
            _ => Ok(()),
        };
    let single =
        matches!(pair.name.as_str(), "controller_addr" | "pub_end" | "exp_priority" | "hostid");
    let checked = match checked {
        Ok(()) if single && repeated => {
            Err(value.complain(format!("{} is overridden twice", pair.name), "keep one of them"))
        }
        checked => checked,
    };
    Override { pair, place: value.place, address, complaint: checked.err() }
}
