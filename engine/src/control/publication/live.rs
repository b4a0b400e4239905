//! What is published at the broker, as long as its conversation lasts.
//!
//! Not here: the conversation (`publication.rs`).

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::super::peer::PeerError;
use super::trouble::Trouble;

/// What is published, and stays so until this ends: a task holds its conversation.
pub(super) struct LivePublication {
    /// It ends the conversation with the broker when this is dropped.
    pub(super) leave: oneshot::Sender<()>,
    pub(super) task: JoinHandle<Result<(), Trouble>>,
}

impl LivePublication {
    /// Takes leave of the broker.
    async fn end(self) {
        drop(self.leave);
        // How it ends makes no difference any more.
        let _ = self.task.await;
    }
}

/// What is published is so no more. False if nothing was.
pub(super) async fn withdraw(standing: &mut Option<LivePublication>) -> bool {
    match standing.take() {
        Some(standing) => {
            standing.end().await;
            true
        }
        None => false,
    }
}

/// Waits until what stands has come to its end, or another plan is to take its place.
pub(super) async fn stands_no_more<T>(
    standing: &mut Option<LivePublication>,
    plan: &mut watch::Receiver<T>,
) -> Result<(), Trouble> {
    let ended = tokio::select! {
        ended = end_of(standing) => ended,
        changed = plan.changed() => {
            if changed.is_ok() {
                // It is taken by whoever publishes it.
                plan.mark_changed();
            }
            return Ok(());
        }
    };
    *standing = None;
    ended
}

/// Waits until what stands ends by itself; for ever if nothing does.
pub(super) async fn end_of(standing: &mut Option<LivePublication>) -> Result<(), Trouble> {
    match standing {
        // It fails only if the task panicked, and then there is nobody to go on.
        Some(LivePublication { task, .. }) => {
            task.await.unwrap_or(Err(Trouble::Peer(PeerError::Stopped)))
        }
        None => std::future::pending().await,
    }
}
