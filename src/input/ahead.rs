//! Loads images while something else computes: a batch ahead of it and not more, so that memory does not grow with
//! their number.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

use crate::error::{Context, Error, Reason, Result, ensure};

/// How much is loaded at a time.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// Images that are handed on together.
    pub batch_size: usize,
    /// Threads that load.
    pub workers: usize,
}

impl Ahead {
    /// Has threads of their own call `load` for images, by their numbers, and hands what it gives to `each`, in the
    /// order of the images and a batch at a time. `each` may end the work by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// What `each` returns; [`Error::Compute`] if the batch size or the number of workers is 0.
    pub fn load<T: Send, E: From<Error>>(
        self,
        images: impl IntoIterator<Item = usize>,
        load: impl Fn(usize) -> T + Sync,
        mut each: impl FnMut(Vec<(usize, T)>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let threads = self.threads().map_err(Error::Compute)?;
        let stopped = AtomicBool::new(false);
        let load = |image| (!stopped.load(Ordering::Relaxed)).then(|| load(image));
        threads.in_place_scope(|scope| {
            let images = images.into_iter().fuse();
            let mut queue = Queue { scope, load: &load, ahead: self, images, waiting: VecDeque::new() };
            // On every way out, also on errors, queued images are skipped.
            let _stop = StopOnDrop(&stopped);
            loop {
                let batch = queue.next_batch();
                if batch.is_empty() || each(batch)?.is_break() {
                    return Ok(());
                }
            }
        })
    }

    /// The threads that load.
    fn threads(&self) -> Result<ThreadPool, Reason> {
        let Self { batch_size, workers } = *self;
        ensure!(batch_size > 0 && workers > 0, "a batch of at least one image and a worker are needed");
        ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|index| format!("decode {index}"))
            .build()
            .context("cannot start the threads that decode")
    }
}

/// Sets a flag when it is dropped.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is loaded of images, in their order, however long each takes.
struct Queue<'scope, 'env, I, F, T> {
    scope: &'env Scope<'scope>,
    /// Gives nothing when the work has ended.
    load: &'scope F,
    ahead: Ahead,
    images: I,
    /// Images that are being loaded.
    waiting: VecDeque<(usize, mpsc::Receiver<T>)>,
}

impl<'scope, I, F, T> Queue<'scope, '_, I, F, T>
where
    I: Iterator<Item = usize>,
    F: Fn(usize) -> Option<T> + Sync,
    T: Send + 'scope,
{
    /// The next images; fewer than a batch only at the end.
    fn next_batch(&mut self) -> Vec<(usize, T)> {
        let Ahead { batch_size, workers } = self.ahead;
        for _ in 0..batch_size.max(2 * workers) + batch_size - self.waiting.len() {
            let Some(image) = self.images.next() else { break };
            self.begin(image);
        }
        let batch = self.waiting.drain(..batch_size.min(self.waiting.len()));
        // One is missing only after a panic, which ends the scope.
        batch.filter_map(|(image, loaded)| Some((image, loaded.recv().ok()?))).collect()
    }

    /// Has a thread load an image.
    fn begin(&mut self, image: usize) {
        let (done, loaded) = mpsc::sync_channel(1);
        let load = self.load;
        self.scope.spawn(move |_| {
            if let Some(value) = load(image) {
                // Fails only if the work has ended meanwhile, and the image is not needed.
                drop(done.send(value));
            }
        });
        self.waiting.push_back((image, loaded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn batches_come_in_order_whoever_is_first() {
        let load = |image: usize| {
            std::thread::sleep(Duration::from_micros((image as u64 * 7919) % 800));
            image * image
        };
        for (batch_size, workers) in [(1, 1), (4, 3), (7, 2), (100, 4)] {
            let mut sizes = Vec::new();
            let mut all = Vec::new();
            let each = |batch: Vec<(usize, usize)>| {
                sizes.push(batch.len());
                all.extend(batch);
                Ok::<_, Error>(ControlFlow::Continue(()))
            };
            Ahead { batch_size, workers }.load((0..30).rev(), load, each).unwrap();
            assert_eq!(all, (0..30).rev().map(|image| (image, image * image)).collect::<Vec<_>>());
            assert!(sizes[..sizes.len() - 1].iter().all(|size| *size == batch_size), "{sizes:?}");
        }
    }

    #[test]
    fn not_much_more_is_loaded_than_is_used() {
        let loaded = std::sync::atomic::AtomicUsize::new(0);
        let load = |_| loaded.fetch_add(1, Ordering::Relaxed);
        let mut batches = 0;
        let stop = |_: Vec<_>| {
            batches += 1;
            Ok::<_, Error>(if batches == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        Ahead { batch_size: 4, workers: 2 }.load(0.., load, stop).unwrap();
        assert!((8..=12).contains(&loaded.load(Ordering::Relaxed)), "{loaded:?}");
        let nothing = Ahead { batch_size: 0, workers: 2 }.load(0..1, |_| 0, |_| Ok(ControlFlow::Continue(())));
        assert!(matches!(nothing, Err(Error::Compute(_))));
    }
}
