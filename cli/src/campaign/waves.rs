//! `--waves`: into which parts the call to endpoints is split, so that there are never many more than places.
//!
//! Not here: when the next wave is due, which the database decides.

use std::collections::BTreeSet;

use packetlab::escape::Escaped;
use packetlab::name_value;

use crate::conf::is_country;

/// How a campaign's call is split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waves(pub(super) Vec<String>);

impl Waves {
    /// Reads `hostid:1hex`, `hostid:2hex` or `country:AUT,DEU`.
    ///
    /// # Errors
    /// It is none of these.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let digits = || (0..16).map(|digit| format!("{digit:x}"));
        let called = |ends: Vec<String>| ends.iter().map(|end| format!("hostid=*{end};")).collect();
        Ok(Self(match text.split_once(':') {
            Some(("hostid", "1hex")) => called(digits().collect()),
            Some(("hostid", "2hex")) => called(
                digits().flat_map(|one| digits().map(move |two| format!("{one}{two}"))).collect(),
            ),
            Some(("country", list)) => {
                let mut named = BTreeSet::new();
                if !list.split(',').all(|name| is_country(name) && named.insert(name)) {
                    return Err(
                        "write three capital letters for each country, and none twice: country:AUT,DEU"
                            .into(),
                    );
                }
                list.split(',').map(|name| format!("endpoint_country={name};")).collect()
            }
            _ => return Err("give hostid:1hex, hostid:2hex or country:AUT,DEU,..".into()),
        }))
    }

    /// Whether each of them calls a part of those that `text` calls.
    ///
    /// # Errors
    /// A line of it has the name by which they part endpoints, which are called if they match either value.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let mut names = self.0.iter().flat_map(|wave| name_value::pairs(wave)).map(|pair| pair.0);
        let Some(own) = names.next() else { return Ok(()) };
        match text.lines().flat_map(name_value::pairs).find(|(name, _)| *name == own) {
            Some((name, value)) => Err(format!(
                "the text that calls endpoints has {name}={} already, from -i, PubCountry or an override of \
                 ExpExec, and a wave would call whoever matches either: leave out that or --waves",
                Escaped(value.as_bytes())
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_call_every_last_digit_of_a_host_id_or_one_country_after_the_other() {
        let Waves(one) = Waves::parse("hostid:1hex").unwrap();
        assert_eq!((one.len(), &*one[0], &*one[15]), (16, "hostid=*0;", "hostid=*f;"));
        let Waves(two) = Waves::parse("hostid:2hex").unwrap();
        assert_eq!((two.len(), &*two[1], &*two[255]), (256, "hostid=*01;", "hostid=*ff;"));
        let Waves(countries) = Waves::parse("country:AUT,DEU").unwrap();
        assert_eq!(countries, ["endpoint_country=AUT;", "endpoint_country=DEU;"]);
        let no_waves = ["", "hostid", "hostid:3hex", "country:", "country:A;B", "country"];
        let no_countries = ["country:AT", "country:deu", "country:AUT,,DEU", "country:AUT,DEU,AUT"];
        for bad in no_waves.iter().chain(&no_countries) {
            assert!(Waves::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn waves_part_no_text_that_parts_endpoints_by_the_same_already() {
        let by_host_id = Waves::parse("hostid:1hex").unwrap();
        let by_country = Waves::parse("country:AUT").unwrap();
        let text = |pairs: &str| format!("sni_key=a;\n{pairs}sni_key=b;");
        let (hostid, country) = (text("hostid=EP*;"), text("endpoint_country=DEU;"));
        assert!(by_host_id.check(&hostid).is_err() && by_country.check(&country).is_err());
        assert!(by_host_id.check(&country).is_ok() && by_country.check(&hostid).is_ok());
    }
}
