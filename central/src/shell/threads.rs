//! Threads of their own for what nobody waits for: pushes, and the history. So a caller of the API waits neither behind a
//! thousand answers of a provider nor behind a file that is compressed, on a machine with few cores either.

use std::future::Future;
use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::CentralError;

/// How much these threads give way to others, as `nice` counts: with one more than nothing they would still get as much
/// as a caller's thread, with 19 hardly anything on a busy machine.
const NICE: i32 = 10;

/// Dropping it stops what runs on them, without waiting.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

fn give_way() {
    // Of this thread alone, on Linux. Where that is refused it is one among equals.
    let _ = rustix::process::setpriority_process(None, NICE);
}

impl Threads {
    /// # Errors
    /// If the system gives no threads.
    pub(crate) fn start(name: &str, threads: NonZeroUsize) -> Result<Threads, CentralError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.get())
            .thread_name(name)
            .on_thread_start(give_way)
            .enable_all()
            .build()
            .map_err(CentralError::Threads)?;
        Ok(Threads(Some(runtime)))
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.as_ref().expect("it is taken when this is dropped").spawn(future)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime that waits for its threads may not be dropped by a task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs a future on a thread that is there for it alone; what comes back ends with it.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn run<F>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<()>, CentralError>
where
    F: Future<Output = ()>,
{
    let (done, ended) = oneshot::channel();
    let worker = name.to_owned();
    let run = move || {
        give_way();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(worker)
            .on_thread_start(give_way)
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                runtime.block_on(make());
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "a thread cannot be started"),
        }
        // Nobody may be waiting.
        let _ = done.send(());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(CentralError::Threads)?;
    Ok(tokio::spawn(async move {
        // Without an answer it panicked, and is over as well.
        let _ = ended.await;
    }))
}
