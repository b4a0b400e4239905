//! What every manager of a campaign must agree on, and how two plans differ in words.

use std::fmt::Write as _;

/// What a campaign measures with. It is fixed when the campaign is created, and a manager with another is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// SHA-256 of the mlet's file.
    pub mlet_digest: [u8; 32],
    /// The mlet's arguments, without its name.
    pub argv: Vec<String>,
    /// The experiment's text, without rounds and waves. A manager that has none of its own (`None`) takes the campaign's.
    pub descriptor: Option<String>,
    /// The names by which endpoints ask for the experiment, in any order.
    pub snikeys: Vec<String>,
}

impl Plan {
    /// The names in the order in which the database compares them.
    pub(crate) fn sorted_snikeys(&self) -> Vec<String> {
        let mut names = self.snikeys.clone();
        names.sort();
        names
    }

    /// How this differs from what the campaign was created with, a sentence for each difference.
    pub(crate) fn differences(&self, campaign: &Self) -> Vec<String> {
        let told = |what: &str, theirs: &str, ours: &str| {
            (theirs != ours)
                .then(|| format!("{what}: the campaign has {theirs}, this manager {ours}"))
        };
        let own_text = self.descriptor.as_ref().and_then(|ours| {
            let theirs = campaign.descriptor.as_deref().unwrap_or_default();
            told("the experiment's text", &quoted(theirs), &quoted(ours))
        });
        [
            told("the mlet's SHA-256", &hex(&campaign.mlet_digest), &hex(&self.mlet_digest)),
            told("the mlet's arguments", &list(&campaign.argv), &list(&self.argv)),
            own_text,
            told("snikeys", &list(&campaign.sorted_snikeys()), &list(&self.sorted_snikeys())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Bytes as they are shown.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

fn list(texts: &[String]) -> String {
    match texts.is_empty() {
        true => "none".to_owned(),
        false => texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            mlet_digest: [1; 32],
            argv: vec!["-q".to_owned(), "two words".to_owned()],
            descriptor: Some("snikey=b;".to_owned()),
            snikeys: vec!["b".to_owned(), "a".to_owned()],
        }
    }

    #[test]
    fn each_difference_of_two_plans_is_told_with_both_sides() {
        let other = Plan {
            mlet_digest: [2; 32],
            argv: Vec::new(),
            descriptor: Some("snikey=c;\n".to_owned()),
            snikeys: vec!["c".to_owned()],
        };
        let told = other.differences(&plan());
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].contains(&"01".repeat(32)) && told[0].contains(&"02".repeat(32)));
        assert_eq!(
            told[1],
            "the mlet's arguments: the campaign has \"-q\" \"two words\", this manager none"
        );
        assert!(told[2].contains("\"snikey=b;\"") && told[2].contains(r#""snikey=c;\n""#));
        assert_eq!(told[3], "snikeys: the campaign has \"a\" \"b\", this manager \"c\"");
    }

    #[test]
    fn the_order_of_snikeys_and_a_text_that_is_left_to_the_campaign_are_no_difference() {
        let mut same = plan();
        same.snikeys.reverse();
        same.descriptor = None;
        assert_eq!(same.differences(&plan()), Vec::<String>::new());
    }
}
