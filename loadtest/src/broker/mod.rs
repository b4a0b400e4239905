//! `pktfleet broker`.
mod board;
mod limits;
mod refusal;
mod rules;
