//! A shard in a world that is drawn from a seed: the real shard, sessions and TLS on the simulated driver.

mod invariants;
mod simulation;
mod world;
