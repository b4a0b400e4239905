//! A new campaign, and the tables for it.

use std::time::Duration;

use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, CHANGE_MAX};
use crate::plan::Plan;

/// So short a lease may be.
pub const LEASE_MIN: Duration = Duration::from_secs(1);

/// So long: for the lease of a manager that was killed its endpoints wait, and whoever would remove the campaign.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A campaign that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCampaign {
    /// What all managers must bring. The text must be there.
    pub plan: Plan,
    /// For how many endpoints it is; for all that come if there is none.
    pub n: Option<u64>,
    /// How often an endpoint is taken at most.
    pub tries: u32,
    /// A manager that has not been heard of for so long is lost. From [`LEASE_MIN`] to [`LEASE_MAX`].
    pub lease: Duration,
    /// What becomes of endpoints whose session was lost with its manager.
    pub lost: Lost,
    /// What is added to the text for one wave after the other; all are called at once if there is none.
    pub waves: Vec<String>,
    /// When it was created first, in RFC 3339: for one that the database has lost, so that its managers' folders are of it. Not
    /// later than it is by the database's clock.
    pub created: Option<String>,
}

/// What becomes of endpoints whose session was lost with its manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// They are taken again when they come again: each is measured at least once if it comes.
    Again,
    /// They are not: each is measured at most once.
    Skip,
}

impl Administration {
    /// Creates the campaign, and before that the tables if they are not there, or brings them to this version.
    pub fn create(&mut self, new: &NewCampaign) -> Result<(), AdministrationError> {
        let descriptor = new.plan.descriptor.as_ref().ok_or(AdministrationError::NoText)?;
        if !(LEASE_MIN..=LEASE_MAX).contains(&new.lease) {
            return Err(AdministrationError::Lease);
        }
        let n = new.n.map(i64::try_from).transpose().map_err(|_| AdministrationError::Count)?;
        let tries = i32::try_from(new.tries).map_err(|_| AdministrationError::Count)?;
        if n == Some(0) || tries == 0 {
            return Err(AdministrationError::Count);
        }
        let lease_s = new.lease.as_secs_f64();
        let lost_again = new.lost == Lost::Again;
        self.wait(CHANGE_MAX, async |client, campaign| {
            migrations::migrate(client).await?;
            let is_to_come = "SELECT $1::text::timestamptz > clock_timestamp()";
            let is_to_come = client.query_one(is_to_come, &[&new.created]).await?;
            if is_to_come.try_get::<_, Option<bool>>(0)? == Some(true) {
                return Err(AdministrationError::Created);
            }
            let created = client
                .execute(
                    "INSERT INTO pktlab.campaign(id, n, tries_max, lease, lost_again, mlet_digest, argv, \
                     descriptor, snikeys, waves, created_at) \
                     VALUES ($1, $2, $3, make_interval(secs => $4), $5, $6, $7, $8, $9, $10, \
                     coalesce($11::text::timestamptz, clock_timestamp())) \
                     ON CONFLICT DO NOTHING",
                    &[
                        campaign,
                        &n,
                        &tries,
                        &lease_s,
                        &lost_again,
                        &new.plan.mlet_digest.as_slice(),
                        &new.plan.argv,
                        descriptor,
                        &new.plan.sorted_snikeys(),
                        &new.waves,
                        &new.created,
                    ],
                )
                .await?;
            match created {
                0 => Err(AdministrationError::Exists(campaign.clone())),
                _ => Ok(()),
            }
        })
    }
}
