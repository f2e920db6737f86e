//! Memory that outlives the process that writes it.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// A mapping of a file in memory (`memfd_create(2)`). Processes that are cloned from this one have it as well.
#[derive(Debug)]
pub struct SharedMemory {
    place: NonNull<libc::c_void>,
    length: usize,
}

impl SharedMemory {
    /// So many bytes, all of them 0, and the file, for processes that are to read it and are not cloned from this one: the mapping does not
    /// need it. `name` is what `/proc/PID/maps` shows.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` for no bytes.
    pub fn new(name: &str, length: usize) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC)?;
        ftruncate(&file, length as u64)?;
        let size = NonZeroUsize::new(length).ok_or(nix::errno::Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice, of a file that nobody makes shorter.
        let place = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok((Self { place, length }, file))
    }

    /// What is in it. It begins at a page, and so is aligned for whatever the kernel puts there.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is of that length and goes with this value. Within this process it is this value's alone; others look at it
        // when this process has ended.
        unsafe { std::slice::from_raw_parts_mut(self.place.as_ptr().cast(), self.length) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is of that length, and nothing that borrows from it is left.
        let _ = unsafe { munmap(self.place, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_in_the_file() {
        let (mut memory, file) = SharedMemory::new("test", 8192).unwrap();
        assert!(memory.bytes().iter().all(|byte| *byte == 0));
        memory.bytes()[8191] = 7;
        let mut last = [0];
        rustix::io::pread(&file, &mut last, 8191).unwrap();
        assert_eq!(last, [7]);
        assert!(SharedMemory::new("test", 0).is_err());
    }
}
