//! A stack of undo steps: what was begun and not finished is taken back, last first.

use crate::error::{Failures, Result};

type Step<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// Steps that take back what was done so far. Dropping the stack runs them, last first; [`Undo::disarm`] keeps the work.
///
/// A step must be idempotent and treat "already gone" as success.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    /// An empty stack.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stack of one step, for a resource that lives beside it.
    pub fn of(step: impl FnOnce() -> Result<()> + 'a) -> Self {
        let mut undo = Self::new();
        undo.push(step);
        undo
    }

    /// Adds the step that takes back what was just done.
    pub fn push(&mut self, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push(Box::new(step));
    }

    /// The work is complete: nothing will be taken back.
    pub fn disarm(mut self) {
        self.steps.clear();
    }

    /// Takes everything back now and reports what could not be.
    pub fn run(mut self) -> Result<()> {
        self.unwind()
    }

    fn unwind(&mut self) -> Result<()> {
        let mut failures = Failures::default();
        while let Some(step) = self.steps.pop() {
            failures.note(step());
        }
        failures.into_result()
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.unwind() {
            log::warn!("clean-up after a failure is incomplete: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn steps_run_last_first_on_drop() {
        let seen = RefCell::new(Vec::new());
        {
            let mut undo = Undo::new();
            for n in 1..=3 {
                let seen = &seen;
                undo.push(move || {
                    seen.borrow_mut().push(n);
                    Ok(())
                });
            }
        }
        assert_eq!(*seen.borrow(), [3, 2, 1]);
    }

    #[test]
    fn a_failing_step_does_not_stop_the_others_and_disarm_keeps_the_work() {
        let seen = RefCell::new(0);
        let mut undo = Undo::new();
        undo.push(|| {
            *seen.borrow_mut() += 1;
            Ok(())
        });
        undo.push(|| Err(crate::error::Error::Status("no".into())));
        assert!(undo.run().is_err());
        assert_eq!(*seen.borrow(), 1);

        let mut kept = Undo::new();
        kept.push(|| {
            *seen.borrow_mut() += 1;
            Ok(())
        });
        kept.disarm();
        assert_eq!(*seen.borrow(), 1);
    }
}
