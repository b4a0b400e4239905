//! The end of a campaign: that of its work, in two degrees, and that of all that is known of it.

use super::error::AdministrationError;
use super::migrations;
use super::owner::{Administration, CHANGE_MAX, in_transaction, lock_without_managers};
use crate::asks::State;
use crate::statements::state_of;

impl Administration {
    /// Lets no session begin any more; those that run end by themselves. Managers hear of it within five seconds. Tells how
    /// the campaign stands now: one that was halted or is over stays so, and one without managers is over.
    pub fn stop(&mut self) -> Result<State, AdministrationError> {
        self.end(
            "UPDATE pktlab.campaign SET state = CASE state WHEN 'open' THEN 'draining' ELSE state END \
             WHERE id = $1",
        )
    }

    /// Ends the sessions that run, as well. One that is over stays so, and one without managers is over.
    pub fn halt(&mut self) -> Result<State, AdministrationError> {
        self.end(
            "UPDATE pktlab.campaign c SET state = 'halted' WHERE id = $1 \
             AND (SELECT s.state FROM pktlab.standing s WHERE s.campaign = c.id) <> 'over'",
        )
    }

    fn end(&mut self, statement: &str) -> Result<State, AdministrationError> {
        let row = self.wait(CHANGE_MAX, async |client, campaign| {
            migrations::check(client).await?;
            client.execute(statement, &[campaign]).await?;
            let standing = "SELECT state FROM pktlab.standing WHERE campaign = $1";
            let row = client.query_opt(standing, &[campaign]).await?;
            row.ok_or_else(|| AdministrationError::Unknown(campaign.clone()))
        })?;
        Ok(state_of(&row, "state")?)
    }

    /// Removes the campaign with all its results. Refused while managers are there.
    pub fn forget(&mut self) -> Result<(), AdministrationError> {
        self.wait(CHANGE_MAX, async |client, campaign| {
            migrations::check(client).await?;
            in_transaction(client, async |transaction| {
                lock_without_managers(transaction, campaign).await?;
                transaction
                    .execute("DELETE FROM pktlab.claim WHERE campaign = $1", &[campaign])
                    .await?;
                transaction
                    .execute("DELETE FROM pktlab.campaign WHERE id = $1", &[campaign])
                    .await?;
                Ok(())
            })
            .await
        })
    }
}
