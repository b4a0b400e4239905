//! Campaigns in a real PostgreSQL: the five functions, the client, administration, and what becomes of them when either
//! side is killed. What needs no database is tested beside the code.

#[path = "../common/authority.rs"]
mod authority;
#[path = "../common/postgres.rs"]
mod postgres;

mod administration;
mod busy;
mod cost;
mod faults;
mod locks;
mod members;
mod model;
mod power_cut;
mod rounds;
mod standby;
mod support;
mod tls;
