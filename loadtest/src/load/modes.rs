//! What each mode does.
//!
//! Not here: doing it.

use super::bulk::{self, Direction};
use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::held;
use super::mode::Mode;
use super::repeated;
use super::sessions::open_all;
use hosts::endpoint::Endpoint;

/// Lets the endpoints do what the mode says, and measures it.
///
/// # Errors
/// Something failed, or nothing was measured.
pub(super) async fn measure(
    mode: Mode,
    endpoints: Vec<Endpoint>,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let direction = match mode {
        Mode::Short => return repeated::short(endpoints, conditions).await,
        Mode::Echo => return repeated::echo(endpoints, conditions).await,
        Mode::Storm => return held::storm(endpoints, conditions).await,
        Mode::Idle => return held::idle(endpoints, conditions).await,
        Mode::Up => Direction::Up,
        Mode::Down => Direction::Down,
    };
    let mut outcome = Outcome::begin(endpoints.len());
    let streams = open_all(endpoints, conditions.relay).await?;
    bulk::bulk(&mut outcome.report, streams, direction, conditions).await?;
    Ok(outcome)
}
