//! The door of benchmarks into the engine: a shard on the simulated driver, with whatever is around it to be played.
//!
//! ```text
//! simulated_shard.rs  the shard, its turns, and the mlets that it starts
//! peer.rs             the far end of one of its sockets, as bytes
//! counting_driver.rs  the simulated driver, its calls counted and set apart from the shard's work
//! ```
//!
//! It is there with the feature `bench` alone, which no program is built with. Not here: TLS of endpoints, and what is
//! measured (`bench/`). Invariant: what runs within [`SimulatedShard::turn`] and outside of what was given as `apart` is what
//! a shard of a program runs too.

mod counting_driver;
mod peer;
mod simulated_shard;

pub use self::counting_driver::Apart;
pub use self::peer::Peer;
pub use self::simulated_shard::SimulatedShard;
