//! The campaign of several managers that a run was of, as `run.json` has it, and whether a folder's runs are of another.
//!
//! Not here: who is a member (the crate `campaign`). Campaigns of one name are told apart by when they were created.

use packetlab::escape::Escaped;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::Args;

/// A campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfCampaign {
    /// Its name.
    pub(crate) name: String,
    /// When it was created, as the database tells. Not known of a run that is no member yet, and has no sessions.
    pub(crate) created: Option<String>,
}

impl OfCampaign {
    /// The one that the command line of a run names, before it is a member.
    pub(super) fn of(args: &Args) -> Option<Self> {
        let name = args.campaign.address()?.campaign().to_owned();
        Some(Self { name, created: None })
    }

    /// All of these runs were of this campaign, as far as that is known of both.
    ///
    /// # Errors
    /// One was not, in words.
    pub(super) fn check(&self, runs: &[Value]) -> Result<(), String> {
        let other = runs.iter().find_map(|run| self.difference_from(run));
        other.map_or(Ok(()), |difference| Err(format!("{difference}; name another folder")))
    }

    /// Of which other campaign the run was, if it was not of this.
    pub(crate) fn difference_from(&self, run: &Value) -> Option<String> {
        let Ok(other) = serde_json::from_value::<Self>(run["campaign"].clone()) else {
            return Some("it holds a run that was of no campaign".into());
        };
        let name = Escaped(other.name.as_bytes());
        if other.name != self.name {
            let this = Escaped(self.name.as_bytes());
            return Some(format!("it holds a run of the campaign {name} and not of {this}"));
        }
        match (&other.created, &self.created) {
            (Some(then), Some(this)) if then != this => {
                let then = Escaped(then.as_bytes());
                Some(format!(
                    "it holds a run of a campaign {name} that was created at {then}, and the one in the database \
                     was at {this} (if the database has lost that one, create it with --created {then})"
                ))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runs_of_another_campaign_are_told_apart_by_its_name_and_its_creation() {
        let this = OfCampaign { name: "eu26".into(), created: Some("2026-11-30T00:00:00Z".into()) };
        let run = |campaign: Value| json!({ "run": "7", "campaign": campaign });
        let same = run(json!({ "name": "eu26", "created": "2026-11-30T00:00:00Z" }));
        let unknown = run(json!({ "name": "eu26", "created": null }));
        assert_eq!(this.check(&[same.clone(), unknown]), Ok(()));
        for (other, told) in [
            (json!({ "run": "7" }), "a run that was of no campaign; name"),
            (
                run(json!({ "name": "us26", "created": null })),
                "of the campaign us26 and not of eu26; name",
            ),
            (
                run(json!({ "name": "eu26", "created": "2025-01-01T00:00:00Z" })),
                "create it with --created 2025-01-01T00:00:00Z); name another folder",
            ),
        ] {
            let error = this.check(&[same.clone(), other]).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
