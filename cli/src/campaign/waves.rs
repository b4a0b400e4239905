//! `--waves`: into which parts the call to endpoints is split, so that there are never many more than places.
//!
//! Not here: when the next wave is due, which the database decides.

/// How a campaign's call is split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waves(pub(super) Vec<String>);

/// So many countries may be named.
const COUNTRIES_MAX: usize = 300;

impl Waves {
    /// They part endpoints by their host ids.
    pub(super) fn name_host_ids(&self) -> bool {
        self.0.iter().any(|wave| wave.starts_with("hostid="))
    }

    /// Reads `hostid:1hex`, `hostid:2hex` or `country:AT,DE`.
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
                let countries: Vec<_> = list.split(',').collect();
                let is_country = |name: &&str| {
                    !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_alphanumeric())
                };
                if countries.len() > COUNTRIES_MAX || !countries.iter().all(is_country) {
                    return Err("give countries as endpoints name theirs: country:AT,DE".into());
                }
                countries.iter().map(|name| format!("endpoint_country={name};")).collect()
            }
            _ => return Err("give hostid:1hex, hostid:2hex or country:AT,DE,..".into()),
        }))
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
        let Waves(countries) = Waves::parse("country:AT,DE").unwrap();
        assert_eq!(countries, ["endpoint_country=AT;", "endpoint_country=DE;"]);
        for bad in ["", "hostid", "hostid:3hex", "country:", "country:A;B", "country"] {
            assert!(Waves::parse(bad).is_err(), "{bad}");
        }
    }
}
