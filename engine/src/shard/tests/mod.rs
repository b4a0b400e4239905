//! A shard on a simulated kernel: worlds drawn from a seed, and scenarios of one session.

mod ends;
mod faults;
mod invariants;
mod pair;
mod pair_simulation;
mod peers;
mod relaying;
mod set_up;
mod simulation;
mod violations;
mod world;
