//! What each mode does.
//!
//! Not here: doing it.

use super::bulk::{self, Direction};
use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::mix;
use super::mode::Mode;
use super::sessions::open_all;
use super::short_and_echo;
use super::storm_and_idle;
use super::through::{self, Proxied};
use hosts::endpoint::Endpoint;

/// Lets the endpoints do what the mode says, and measures it; `direction` is that of a session in bulk beside others, and
/// `proxied` what is behind a proxy, if the mode needs it.
///
/// # Errors
/// Something failed, or nothing was measured.
pub(super) async fn measure(
    (mode, direction): (Mode, Direction),
    endpoints: Vec<Endpoint>,
    proxied: Option<(&Proxied, Vec<Endpoint>)>,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let direction = match mode {
        Mode::Short => return short_and_echo::short(endpoints, conditions).await,
        Mode::Echo => return short_and_echo::echo(endpoints, conditions).await,
        Mode::Storm => return storm_and_idle::storm(endpoints, conditions).await,
        Mode::Idle => return storm_and_idle::idle(endpoints, conditions).await,
        Mode::Mix => return mix::mix(endpoints, direction, conditions).await,
        Mode::Through => {
            let proxied = proxied.ok_or(LoadError::NoSample("round trip through a proxy"))?;
            return through::measure(endpoints, proxied, conditions).await;
        }
        Mode::Up => Direction::Up,
        Mode::Down => Direction::Down,
    };
    let mut outcome = Outcome::begin(endpoints.len());
    let streams = open_all(endpoints, conditions.relay).await?;
    bulk::bulk(&mut outcome.report, streams, direction, conditions).await?;
    Ok(outcome)
}
