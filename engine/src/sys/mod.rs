//! Small corners of Linux: processes, descriptors, CPUs, signals. The only place where unsafe is allowed.

pub(crate) mod bell;
pub mod children;
pub mod cpu;
pub mod fd_passing;
mod forked;
pub mod lack;
pub mod limits;
pub mod mlet_ends;
mod mlet_owner;
pub mod mlet_processes;
mod packet;
mod packet_queue;
pub mod parent;
pub mod pipes;
pub(crate) mod record_files;
pub mod recorder;
pub mod secrecy;
pub mod service_manager;
pub mod signals;
pub mod socket;
mod sources;
pub mod stdin;
pub mod supervisor;
pub mod watch;
