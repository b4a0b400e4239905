//! Which operations of a session are under way.
//!
//! Not here: starting them (`apply.rs`). Invariant: what is under way here is under way at the driver.

/// Which operations are under way; each at most once.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) endpoint_receive: bool,
    pub(super) endpoint_send: bool,
    pub(super) mlet_receive: bool,
    pub(super) mlet_send: bool,
    /// Of a pipe that is offered.
    pub(super) mlet_watch: bool,
    /// The receive from the mlet is linked to the send to the endpoint, and begins when that has ended.
    pub(super) mlet_receive_linked: bool,
    /// Cancellations of the above.
    pub(super) cancels: u8,
}

impl UnderWay {
    pub(super) fn is_nothing(&self) -> bool {
        !self.on_endpoint() && !self.on_mlet() && self.cancels == 0
    }

    pub(super) fn on_endpoint(&self) -> bool {
        self.endpoint_receive || self.endpoint_send
    }

    pub(super) fn on_mlet(&self) -> bool {
        self.mlet_receive || self.mlet_send || self.mlet_watch
    }
}
