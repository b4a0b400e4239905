//! Campaigns in a real PostgreSQL: the five functions, the client, administration, and what becomes of them when either
//! side is killed. What needs no database is tested beside the code.

#[path = "../common/postgres.rs"]
mod postgres;

mod administration;
mod faults;
mod locks;
mod members;
mod model;
mod support;
mod tls;
