//! `--ctl` and `pktxpmgr ctl`: whoever operates a run asks it, and steers it, through a socket of its own.
//!
//! ```text
//! words.rs   what may be asked, as typed
//! socket.rs  the socket of a run: who may connect, and how long that may take
//! answer.rs  what a run answers, a line of JSON each
//! client.rs  pktxpmgr ctl: sends the words, and shows the answer as a table
//! ```
//!
//! A request is one line, `{"words":["kill","12"]}`. The answer is any number of lines with what was asked for, then one with
//! the member `done`: `{"done":true,"told":"..."}`, or false if it was refused.
//!
//! Not here: what is done about an order (`engine`).

mod answer;
mod client;
mod socket;
mod words;

pub(crate) use self::answer::Answering;
pub(crate) use self::client::{Options, naming_requests, run};
pub(crate) use self::socket::{CONNECTIONS_MAX, CtlSocket};
