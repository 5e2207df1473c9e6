//! Where pushes run: threads of their own, so that a caller of the API waits neither behind a thousand answers of a
//! provider nor behind a stretch of a walk.

use std::future::Future;
use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::CentralError;

/// How much these threads give way to others, as `nice` counts: with one more than nothing they would still get as much
/// as a caller's thread, with 19 hardly anything on a busy machine.
const NICE: i32 = 10;

/// Dropping it stops what runs on them, without waiting.
#[derive(Debug)]
pub(crate) struct PushThreads(Option<Runtime>);

impl PushThreads {
    /// # Errors
    /// If the system gives no threads.
    pub(crate) fn start(threads: NonZeroUsize) -> Result<PushThreads, CentralError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.get())
            .thread_name("carillon-push")
            .on_thread_start(|| {
                // Of this thread alone, on Linux. Where that is refused it is one among equals.
                let _ = rustix::process::setpriority_process(None, NICE);
            })
            .enable_all()
            .build()
            .map_err(CentralError::Threads)?;
        Ok(PushThreads(Some(runtime)))
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.as_ref().expect("it is taken when this is dropped").spawn(future)
    }
}

impl Drop for PushThreads {
    fn drop(&mut self) {
        // A runtime that waits for its threads may not be dropped by a task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
