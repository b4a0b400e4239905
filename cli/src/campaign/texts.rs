//! The descriptors with which a campaign is created: a line for each experiment, and what stands behind each line when it is
//! published.
//!
//! Not here: how a descriptor is made (`engine/src/proto/descriptor.rs`). Invariant: whoever publishes them publishes them byte
//! for byte, since endpoints are called again by another text.

use engine::config::{Config, ControllerAddr, Experiment};
use engine::proto::descriptor::descriptor;
use packetlab::escape::Escaped;
use packetlab::name_value;
use packetlab::time::Ticks;

use crate::engine_config::of_campaign::OfCampaign;

/// The text of a campaign that is created `now` with this configuration.
///
/// # Errors
/// Not every manager could publish it.
pub(super) fn text_of(from: &OfCampaign, now: Ticks) -> Result<String, String> {
    let publication = from.publication.as_ref().ok_or(UNPUBLISHED)?;
    let Some(ControllerAddr::Text(address)) = &publication.controller_addr else {
        return Err(
            "endpoints are told where to connect to, which must be known: give -p HOST[:PORT], \
                    or -a with a proxy"
                .into(),
        );
    };
    let pub_end = publication.period.map(|period| now.saturating_add(period));
    let called = &publication.called;
    let lines = from.experiments.iter().map(|one| descriptor(called, one, address, pub_end));
    let text = lines.collect::<Vec<_>>().join("\n");
    lines_for(&text, &from.experiments)?;
    Ok(text)
}

const UNPUBLISHED: &str = "each manager of a campaign may have to publish it: the config file needs \
                           EnableExpPublication 1 and what belongs to it";

/// Whether a manager with this configuration can publish.
///
/// # Errors
/// It cannot.
pub(super) fn check_publication(config: &Config) -> Result<(), String> {
    config.publications.first().map(drop).ok_or_else(|| UNPUBLISHED.into())
}

/// The lines of a campaign's text for these experiments, in their order.
///
/// # Errors
/// One has none, or not one of its own.
pub(super) fn lines_for(text: &str, experiments: &[Experiment]) -> Result<Vec<String>, String> {
    let of = |experiment: &Experiment| {
        let snikey = experiment.snikey.as_str();
        let is_its = |line: &&str| {
            name_value::pairs(line).any(|(name, value)| name == "sni_key" && value == snikey)
        };
        let mut lines = text.lines().filter(is_its);
        match (lines.next(), lines.next()) {
            (Some(line), None) => Ok(line.to_owned()),
            _ => Err(format!(
                "the campaign's text has no line of its own for the snikey {}",
                Escaped(snikey.as_bytes())
            )),
        }
    };
    experiments.iter().map(of).collect()
}

/// Says that endpoints are called elsewhere than with this configuration alone, if that is so; `lines` are those of its
/// experiments.
pub(super) fn elsewhere(lines: &[String], config: &Config) -> Option<String> {
    const NAME: &str = "controller_addr";
    let ControllerAddr::Text(typed) = &config.publications.first()?.controller_addr else {
        return None;
    };
    let differs = |(line, experiment): (&String, &Experiment)| {
        let (_, called) = name_value::pairs(line).find(|(name, _)| *name == NAME)?;
        let own = experiment.overrides.iter().find(|pair| pair.name == NAME);
        let own = own.map_or(&**typed, |pair| &*pair.value);
        let [called, shown] = [called, own].map(|text| Escaped(text.as_bytes()).to_string());
        (called != shown).then(|| {
            format!(
                "--campaign: endpoints are called to {called}, with which it was created, and not to {shown}"
            )
        })
    };
    lines.iter().zip(&config.experiments).find_map(differs)
}

/// What stands behind each line in this round and wave, which count from 1. An unknown name is passed over by endpoints, and
/// makes another text.
pub(super) fn addition(round: u32, wave: u32, waves: &[String]) -> String {
    let index = usize::try_from(wave).unwrap_or(usize::MAX).saturating_sub(1);
    format!("round={round};{}", waves.get(index).map_or("", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_publishes_nothing_is_told_what_would_publish() {
        let from =
            OfCampaign { publication: None, experiments: Vec::new(), drawn_snikeys: Vec::new() };
        let refused = text_of(&from, Ticks(0)).unwrap_err();
        assert!(refused.contains("EnableExpPublication 1"), "{refused}");
    }

    #[test]
    fn each_round_and_wave_has_a_text_of_its_own() {
        let waves = ["hostid=*0;".to_owned(), "hostid=*1;".to_owned()];
        assert_eq!(addition(1, 1, &waves), "round=1;hostid=*0;");
        assert_eq!(addition(1, 2, &waves), "round=1;hostid=*1;");
        assert_eq!(addition(2, 1, &waves), "round=2;hostid=*0;");
        assert_eq!(addition(3, 1, &[]), "round=3;");
        assert_eq!(addition(1, 9, &waves), "round=1;", "a wave that this program does not know");
    }
}
