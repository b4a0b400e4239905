//! `mix`: what one session in bulk does to small ones beside it.
//!
//! The small ones are measured alone, and then beside the one in bulk, in the same run and through the same sessions.
//! Not here: how either is done (`short_and_echo`, `bulk`).

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::bulk::{Direction, megabytes_per_second, transfer};
use super::conditions::{Conditions, Outcome};
use super::error::LoadError;
use super::sessions::{ended_early, is_sampled, join, message, message_of_type, open, open_all};
use super::short_and_echo::{ROUND_TRIPS, add_beside, round_trips};
use super::start_times::Window;
use hosts::endpoint::Endpoint;

/// Payload of a message in bulk, in bytes.
pub(super) const BULK_SIZE: usize = 60_000;

/// What `mlet-load asked` is asked for, by the type of the first message.
const SINK_TYPE: u8 = 0x91;
const SOURCE_TYPE: u8 = 0x92;

/// The last of the endpoints is the one in bulk.
pub(super) async fn mix(
    mut endpoints: Vec<Endpoint>,
    direction: Direction,
    conditions: Conditions,
) -> Result<Outcome, LoadError> {
    let bulk = endpoints.pop().ok_or(LoadError::NoSample("session in bulk"))?;
    let mut outcome = Outcome::begin(endpoints.len());
    let mut small = open_all(endpoints, conditions.relay).await?;
    let mut bulk = open(&bulk, conditions.relay).await?;
    let message = message(conditions.size);
    let alone = round_trips(&mut small, &message, conditions).await?;
    let asked = match direction {
        Direction::Up => SINK_TYPE,
        Direction::Down => SOURCE_TYPE,
    };
    bulk.write_all(&message_of_type(asked, 0)).await.map_err(ended_early)?;
    bulk.flush().await.map_err(ended_early)?;
    let window = Window::begin(conditions.pace);
    let mut moving = JoinSet::new();
    moving.spawn(transfer(bulk, direction, BULK_SIZE, window));
    let beside = round_trips(&mut small, &message, conditions).await?;
    let bytes: u64 = join(moving).await?.into_iter().sum();
    let report = &mut outcome.report;
    for (front, repeated) in [("alone ", &alone), ("beside ", &beside)] {
        repeated.add_to(report, front, ROUND_TRIPS, conditions.pace)?;
        repeated.add_cpu(report, front, ROUND_TRIPS);
    }
    is_sampled(bytes, "byte in bulk")?;
    let throughput = megabytes_per_second(bytes, conditions.pace.duration);
    report.add("bulk throughput", throughput, "MB/s");
    add_beside(report, "beside to alone, ", &beside.samples, &alone.samples)?;
    outcome.tagged.push(("alone", alone.samples));
    outcome.tagged.push(("beside", beside.samples));
    Ok(outcome)
}
