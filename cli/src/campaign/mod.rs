//! A campaign that several managers share (`--campaign`), and `pktxpmgr campaign`, with which it is created, watched and
//! ended.
//!
//! ```text
//! member.rs   a run as a member: between the campaign's client and what the engine asks
//! texts.rs    the descriptors of a campaign, and what stands behind them in each round and wave
//! waves.rs    --waves: whom each wave calls
//! command.rs  what an operator types; named.rs: of which campaign; create.rs, status.rs, results.rs, import.rs: what is done
//! ```
//!
//! Not here: how the database is reached (`campaign_access.rs`), who has which endpoint, which the database knows (the crate `campaign`), and what a permit is (`engine`).

mod command;
mod create;
mod import;
mod member;
mod named;
mod results;
mod status;
mod texts;
mod waves;

pub(crate) use self::command::{Options, run};
pub(crate) use self::member::{Membership, join};
