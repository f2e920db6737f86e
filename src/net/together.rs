//! Work that takes as long for one as for many.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Threads that want the same work done for different things. Who comes while it is being done waits, and then does it for all that
/// have come meanwhile.
#[derive(Debug)]
pub(super) struct Together<T> {
    waiting: Mutex<Vec<T>>,
    turn: Mutex<()>,
}

impl<T: Clone + PartialEq> Together<T> {
    /// Nobody yet.
    pub(super) const fn new() -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            turn: Mutex::new(()),
        }
    }

    /// Sees to it that the work is done for these things.
    ///
    /// # Errors
    /// Those of the work. Then the others do it again for theirs.
    pub(super) fn work(&self, own: &[T], work: impl FnOnce(&[T]) -> Result<()>) -> Result<()> {
        held(&self.waiting).extend_from_slice(own);
        let _turn = held(&self.turn);
        let all = std::mem::take(&mut *held(&self.waiting));
        if all.is_empty() {
            return Ok(());
        }
        let done = work(&all);
        if done.is_err() {
            let others = all.into_iter().filter(|thing| !own.contains(thing));
            held(&self.waiting).extend(others);
        }
        done
    }
}

/// What somebody left who panicked is as good as anything.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn who_waits_is_worked_for_by_one() {
        let (together, times) = (Together::new(), AtomicUsize::new(0));
        let (begun, all_wait) = (Barrier::new(2), Barrier::new(9));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                together.work(&[0], |things| {
                    assert_eq!(things, [0]);
                    begun.wait();
                    all_wait.wait();
                    // All have come by then.
                    while held(&together.waiting).len() < 8 {
                        std::thread::yield_now();
                    }
                    Ok(())
                })
            });
            begun.wait();
            for n in 1..=8 {
                let (together, times, all_wait) = (&together, &times, &all_wait);
                scope.spawn(move || {
                    all_wait.wait();
                    together.work(&[n], |things| {
                        times.fetch_add(things.len(), Ordering::Relaxed);
                        assert_eq!(things.len(), 8);
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(times.into_inner(), 8);
    }

    #[test]
    fn a_failure_leaves_the_others_to_themselves() {
        let together = Together::new();
        held(&together.waiting).push(2);
        let failed = together.work(&[1], |_| Err(Error::Status("no".into())));
        assert!(failed.is_err());
        together
            .work(&[], |things| {
                assert_eq!(things, [2]);
                Ok(())
            })
            .unwrap();
    }
}
