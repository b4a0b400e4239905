//! A shard on a simulated kernel, with real sessions and TLS: worlds drawn from a seed, and scenarios of one session.

mod backlog;
mod drawn_endpoint;
mod ends;
mod faults;
mod floods;
mod harness;
mod idle;
mod invariants;
mod latency;
mod linfo_log;
mod outcomes;
mod over_pipes;
mod pair;
mod peers;
mod permits;
mod pipes;
mod receive_size;
mod relaying;
mod set_up;
mod simulation;
mod violations;
mod world;
