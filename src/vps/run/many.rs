//! Work on many VPSs, several at a time: most of it waits for the kernel, for networks to be taken down and for grace periods.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// How many are worked on at once for each processor.
const PER_PROCESSOR: usize = 4;
/// How many are worked on at once at most: each has the database open.
const AT_MOST: usize = 32;

/// What became of each, by its place among the names.
type Results = Vec<Option<Result<()>>>;

impl Condo {
    /// Does the work for each VPS; what became of each, in their order. The failure of one does not keep the others from it.
    pub fn for_each(
        &self,
        names: &[Name],
        work: impl Fn(&Self, &Name) -> Result<()> + Sync,
    ) -> Vec<(Name, Result<()>)> {
        if let [one] = names {
            return vec![(one.clone(), work(self, one))];
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = names.len().min(processors * PER_PROCESSOR).min(AT_MOST);
        let root = self.root();
        let next = AtomicUsize::new(0);
        let results: Mutex<Results> = Mutex::new(names.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| work_off(root, names, &next, &results, &work));
            }
        });
        let results = results.into_inner().unwrap_or_default();
        let undone = || Err(Error::Busy("nobody came to it".into()));
        let of_each = results.into_iter().map(|result| result.unwrap_or_else(undone));
        names.iter().cloned().zip(of_each).collect()
    }
}

/// Takes one after the other that nobody else has taken. A database is one thread's, so each opens the instance anew.
fn work_off(
    root: Option<&Path>,
    names: &[Name],
    next: &AtomicUsize,
    results: &Mutex<Results>,
    work: impl Fn(&Condo, &Name) -> Result<()>,
) {
    let own = Condo::open(root);
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(name) = names.get(at) else { return };
        let result = match &own {
            Ok(condo) => work(condo, name),
            Err(e) => Err(Error::Status(e.to_string())),
        };
        if let Ok(mut results) = results.lock() {
            results[at] = Some(result);
        }
    }
}
