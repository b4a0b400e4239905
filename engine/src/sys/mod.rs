//! Small corners of Linux: processes, descriptors, CPUs, signals. The only place where unsafe is allowed.

pub mod children;
pub mod cpu;
pub mod fd_passing;
pub mod lack;
pub mod limits;
pub mod secrecy;
pub mod signals;
pub mod socket;
pub mod stdin;
pub mod supervisor;
pub mod watch;
