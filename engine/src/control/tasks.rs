//! What the control thread's loop and its tasks, which hold the conversations with brokers and proxies, tell each other.
//!
//! Not here: what the tasks do (`publication.rs`, `set_up.rs`).

use tokio::sync::{mpsc, watch};

use super::new_config::NewConfig;
use super::peer::Stop;
use super::publication::news::{PublicationId, PublicationNews};
use super::set_up::SetUpEnd;

/// What a task tells the loop.
pub(super) enum TaskNews {
    /// The set-up of a backlog connection has ended.
    SetUp(SetUpEnd),
    /// Something became of a publication.
    Publication(PublicationId, PublicationNews),
    /// A reload has read the configuration; if not, why.
    ConfigRead(Result<Box<NewConfig>, String>),
}

/// The loop's side.
pub(super) struct Tasks {
    /// Not bounded: a task sends one or two at a time, a reload one, and there are few of them.
    news: mpsc::UnboundedReceiver<TaskNews>,
    /// News that ended a wait.
    heard: Option<TaskNews>,
    stop: watch::Sender<bool>,
    link: TaskLink,
}

/// A task's side.
#[derive(Clone)]
pub(super) struct TaskLink {
    news: mpsc::UnboundedSender<TaskNews>,
    /// That it is to end.
    pub(super) stop: Stop,
}

impl Tasks {
    /// No task yet.
    pub(super) fn new() -> Self {
        let (sender, news) = mpsc::unbounded_channel();
        let (stop, stop_of_task) = Stop::new();
        let link = TaskLink { news: sender, stop: stop_of_task };
        Self { news, heard: None, stop, link }
    }

    /// For one more task.
    pub(super) fn link(&self) -> TaskLink {
        self.link.clone()
    }

    /// Waits for news; [`Self::next`] gives it. A wait that is dropped loses none.
    pub(super) async fn hear(&mut self) {
        self.heard = self.news.recv().await;
    }

    /// The next news, if there is any.
    pub(super) fn next(&mut self) -> Option<TaskNews> {
        self.heard.take().or_else(|| self.news.try_recv().ok())
    }

    /// Tells every task to end.
    pub(super) fn stop(&self) {
        // It fails only when no task is left to hear it.
        let _ = self.stop.send(true);
    }
}

impl TaskLink {
    /// Tells the loop.
    pub(super) fn tell(&self, news: TaskNews) {
        // Nobody listens when the run is over.
        let _ = self.news.send(news);
    }
}
