//! Sessions beside those that are struck: each exchanges messages with its mlet until it is told to stop. What comes back
//! must be what was sent, by SHA-256 over all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use crate::common::endpoint::{End, Endpoint, MADE_UP, NDATA, made_up, message};

/// Between two exchanges of one bystander, so that twenty leave the machine to those that are struck.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest message.
const LEN_MAX: usize = 20_000;

/// Some bystanders.
pub(crate) struct Bystanders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Bystanders {
    /// These sessions, whose mlets are `obey`, exchange messages from now on.
    pub(crate) fn of(sessions: Vec<Endpoint>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |(number, endpoint)| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || exchange(endpoint, number, &stop))
        };
        let threads = sessions.into_iter().enumerate().map(thread).collect();
        Self { stop, threads }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Ends them; asserts that all of them are clean, and returns how many messages went there and back.
    #[track_caller]
    pub(crate) fn are_clean(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let threads = self.threads.into_iter();
        threads.map(|thread| thread.join().expect("a bystander is clean")).sum()
    }
}

fn exchange(mut endpoint: Endpoint, number: usize, stop: &AtomicBool) -> usize {
    let (mut sent, mut received) = (Context::new(&SHA256), Context::new(&SHA256));
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let len = 4 + (number * 7919 + count * 104_729) % LEN_MAX;
        let whole = message(MADE_UP, &made_up(count, len));
        sent.update(&whole);
        endpoint.send(&message(NDATA, format!("pass {}", whole.len()).as_bytes()));
        endpoint.send(&whole);
        let (message_type, payload) = endpoint.receive().unwrap();
        received.update(&message(message_type, &payload));
        count += 1;
        thread::sleep(PAUSE);
    }
    endpoint.send(&message(NDATA, b"exit 0"));
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
    assert_eq!(sent.finish().as_ref(), received.finish().as_ref(), "what came back");
    count
}
