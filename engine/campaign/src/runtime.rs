//! The runtime of one thread. Its end waits for nobody: a name that is being looked up is a call of the system which cannot
//! be ended, and may last for minutes. Not what runs on it.

use std::future::Future;
use std::io;

pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?)))
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it is taken out by the drop alone").block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_of_a_runtime_does_not_wait_for_a_lookup_that_is_under_way() {
        let (answer, lookup) = channel::<()>();
        let (tell, ended) = channel();
        std::thread::spawn(move || {
            let runtime = Runtime::new().expect("a runtime");
            // As tokio looks up a name.
            runtime.block_on(async { drop(tokio::task::spawn_blocking(move || lookup.recv())) });
            drop(runtime);
            tell.send(())
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(()));
        drop(answer);
        assert_eq!(
            ended.recv_timeout(Duration::from_secs(60)),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
