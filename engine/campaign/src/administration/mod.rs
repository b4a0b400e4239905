//! What an operator does with a campaign: creates it, looks at it, stops it, reads its results, puts journals back,
//! removes it. Each call waits for the database for as long as that says something. It is not what managers do, which is
//! the client's.

mod accepted;
mod create;
mod ending;
mod error;
mod import;
mod migrations;
mod owner;
mod results;
mod status;
#[cfg(test)]
mod tests;
mod waiting;

pub use accepted::{Accepted, Origin};
pub use create::{LEASE_MAX, LEASE_MIN, Lost, NewCampaign};
pub use error::AdministrationError;
pub use import::{Imported, JournalResult};
pub use owner::Administration;
pub use results::CampaignResult;
pub use status::{ManagerStatus, Status};
