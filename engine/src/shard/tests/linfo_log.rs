//! What a shard logs of its endpoints' LINFOs.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher};

use crate::LINFO_TARGET;
use crate::records::SessionId;

/// A line, and the session that it names.
#[derive(Default)]
pub(super) struct Line {
    pub(super) session: SessionId,
    pub(super) text: String,
}

type Lines = Arc<Mutex<Vec<Line>>>;

/// Keeps the lines that are logged within it.
pub(super) struct LinfoLog {
    dispatch: Dispatch,
    lines: Lines,
}

impl LinfoLog {
    /// An empty one.
    pub(super) fn new() -> Self {
        let lines = Lines::default();
        Self { dispatch: Dispatch::new(Collector(Arc::clone(&lines))), lines }
    }

    /// Keeps what `call` logs.
    pub(super) fn within<R>(&self, call: impl FnOnce() -> R) -> R {
        dispatcher::with_default(&self.dispatch, call)
    }

    /// The lines since the last call.
    pub(super) fn take(&self) -> Vec<Line> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

struct Collector(Lines);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == LINFO_TARGET
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    // A shard has no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "session" {
            self.session = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.text, "{value:?}").unwrap();
        }
    }
}
