//! A campaign that several managers share (`--campaign`), and `pktxpmgr campaign`, with which it is created, watched and
//! ended.
//!
//! ```text
//! member.rs   a run as a member: between the campaign's client and what the engine asks
//! texts.rs    the descriptors of a campaign, and what stands behind them in each round and wave
//! waves.rs    --waves: whom each wave calls
//! command.rs  what an operator types; named.rs: of which campaign; create.rs, status.rs, results.rs, import.rs, merge.rs: what is
//!             done
//! manager_folder.rs   a manager's results folder, for import and merge
//! accepted.rs, merged_folder.rs, merged_stream.rs   for merge: what counts, and the folder that is made
//! ```
//!
//! Not here: how the database is reached (`campaign_access.rs`), who has which endpoint, which the database knows (the crate `campaign`), and what a permit is (`engine`).

mod accepted;
mod command;
mod create;
mod import;
mod manager_folder;
mod member;
mod merge;
mod merged_folder;
mod merged_stream;
mod named;
mod results;
mod status;
mod texts;
mod waves;

pub(crate) use self::command::{Options, run};
pub(crate) use self::member::{Membership, join};
