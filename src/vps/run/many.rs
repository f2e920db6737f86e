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

/// From so many VPSs on each processor looks at some of them: to open the instance for it takes as long as to look at a few.
const MANY: usize = 64;

/// What became of each, by its place.
type Results<T> = Mutex<Vec<Option<Result<T>>>>;

impl Condo {
    /// Does the work for each VPS; what became of each, in their order. The failure of one does not keep the others from it.
    pub fn for_each(
        &self,
        names: &[Name],
        work: impl Fn(&Self, &Name) -> Result<()> + Sync,
    ) -> Vec<(Name, Result<()>)> {
        let results = self.of_each(names, PER_PROCESSOR, work);
        names.iter().cloned().zip(results).collect()
    }

    /// What there is to see of each, in their order.
    pub(in crate::vps) fn look_at_each<I: Sync, T: Send>(
        &self,
        items: &[I],
        look: impl Fn(&Self, &I) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        if items.len() < MANY {
            return items.iter().map(|item| look(self, item)).collect();
        }
        self.of_each(items, 1, look).into_iter().collect()
    }

    /// The same as [`Condo::for_each`] for whatever there is one of for each, with what comes of it; so many are worked on at once for
    /// each processor.
    fn of_each<I: Sync, T: Send>(
        &self,
        items: &[I],
        per_processor: usize,
        work: impl Fn(&Self, &I) -> Result<T> + Sync,
    ) -> Vec<Result<T>> {
        if let [one] = items {
            return vec![work(self, one)];
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = items.len().min(processors * per_processor).min(AT_MOST);
        let root = self.root();
        let next = AtomicUsize::new(0);
        let results: Results<T> = Mutex::new(items.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| work_off(root, items, &next, &results, &work));
            }
        });
        let results = results.into_inner().unwrap_or_default();
        let undone = || Err(Error::Busy("nobody came to it".into()));
        let of_each = results.into_iter().map(|result| result.unwrap_or_else(undone));
        of_each.collect()
    }
}

/// Takes one after the other that nobody else has taken. A database is one thread's, so each opens the instance anew.
fn work_off<I, T>(
    root: Option<&Path>,
    items: &[I],
    next: &AtomicUsize,
    results: &Results<T>,
    work: impl Fn(&Condo, &I) -> Result<T>,
) {
    let own = Condo::open(root);
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(item) = items.get(at) else { return };
        let result = match &own {
            Ok(condo) => work(condo, item),
            Err(e) => Err(Error::Status(e.to_string())),
        };
        if let Ok(mut results) = results.lock() {
            results[at] = Some(result);
        }
    }
}
