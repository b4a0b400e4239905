//! What stands in the engine's `sync.rs`, of loom. Its `Arc` is std's, since loom's cannot be the receiver of a method.

pub(crate) use std::sync::{Arc, PoisonError};

pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

/// std's queues, which loom lacks, with their promises and nothing of how they keep them.
pub(crate) mod mpsc {
    use std::collections::VecDeque;
    use std::sync::Arc;
    pub(crate) use std::sync::mpsc::TrySendError;
    use std::sync::mpsc::{RecvError, SendError, TryRecvError};
    use std::thread;

    use loom::sync::{Condvar, Mutex, MutexGuard};

    /// More room makes more orders and finds nothing more.
    const ROOM_MAX: usize = 2;

    #[derive(Debug)]
    struct Queue<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    #[derive(Debug)]
    struct State<T> {
        waiting: VecDeque<T>,
        room: usize,
        senders: usize,
        is_received: bool,
    }

    impl<T> Queue<T> {
        fn lock(&self) -> MutexGuard<'_, State<T>> {
            self.state.lock().unwrap()
        }

        /// A model that has failed is unwound outside of it, where nothing of loom's can be used.
        fn at_end(&self, end: impl FnOnce(&mut State<T>)) {
            if !thread::panicking() {
                end(&mut self.lock());
                self.changed.notify_all();
            }
        }
    }

    #[derive(Debug)]
    pub(crate) struct SyncSender<T>(Arc<Queue<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Queue<T>>);

    pub(crate) fn sync_channel<T>(len: usize) -> (SyncSender<T>, Receiver<T>) {
        with_room(len.min(ROOM_MAX))
    }

    fn with_room<T>(room: usize) -> (SyncSender<T>, Receiver<T>) {
        let waiting = VecDeque::new();
        let state = Mutex::new(State { waiting, room, senders: 1, is_received: true });
        let queue = Arc::new(Queue { state, changed: Condvar::new() });
        (SyncSender(Arc::clone(&queue)), Receiver(queue))
    }

    /// Of a queue without bounds.
    #[derive(Debug)]
    pub(crate) struct Sender<T>(SyncSender<T>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = with_room(usize::MAX);
        (Sender(sender), receiver)
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
            self.0.try_send(message).map_err(|error| match error {
                TrySendError::Full(message) | TrySendError::Disconnected(message) => {
                    SendError(message)
                }
            })
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> SyncSender<T> {
        pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.lock();
            if !state.is_received {
                return Err(TrySendError::Disconnected(message));
            }
            if state.waiting.len() == state.room {
                return Err(TrySendError::Full(message));
            }
            state.waiting.push_back(message);
            self.0.changed.notify_all();
            Ok(())
        }
    }

    impl<T> Clone for SyncSender<T> {
        fn clone(&self) -> Self {
            self.0.lock().senders += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for SyncSender<T> {
        fn drop(&mut self) {
            self.0.at_end(|state| state.senders -= 1);
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut state = self.0.lock();
            let none = match state.senders {
                0 => TryRecvError::Disconnected,
                _ => TryRecvError::Empty,
            };
            state.waiting.pop_front().ok_or(none)
        }

        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            let mut state = self.0.lock();
            while state.waiting.is_empty() && state.senders > 0 {
                state = self.0.changed.wait(state).unwrap();
            }
            state.waiting.pop_front().ok_or(RecvError)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.at_end(|state| {
                state.is_received = false;
                state.waiting.clear();
            });
        }
    }
}
