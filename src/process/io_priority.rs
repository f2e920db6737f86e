//! Class and level of a process's input and output (`ioprio_set(2)`), set by the parent on the new process.

use oci_spec::runtime::{IOPriorityClass, LinuxIOPriority};

use crate::error::{During, Error, Result};
use crate::sys::task;

/// `IOPRIO_CLASS_SHIFT` of `linux/ioprio.h`.
const CLASS_SHIFT: i32 = 13;

/// A class and a level, as the kernel packs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority(i32);

impl IoPriority {
    /// Reads `process.ioPriority`.
    ///
    /// # Errors
    /// Names a level that is not from 0 to 7.
    pub fn from_spec(spec: &LinuxIOPriority) -> Result<Self> {
        let class = match spec.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        match i32::try_from(spec.priority()) {
            Ok(level @ 0..=7) => Ok(Self(class << CLASS_SHIFT | level)),
            _ => Err(Error::invalid(
                "process.ioPriority.priority",
                spec.priority(),
                "must be from 0 (highest) to 7 (lowest)",
            )),
        }
    }

    /// Puts it in force for a process that waits.
    pub fn apply(self, pid: i32) -> Result<()> {
        task::set_io_priority(pid, self.0)
            .during(|| "set `process.ioPriority` (the class IOPRIO_CLASS_RT needs CAP_SYS_NICE)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<IoPriority> {
        IoPriority::from_spec(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn classes_become_the_kernel_s_numbers() {
        for (class, number) in [("RT", 0x2000), ("BE", 0x4000), ("IDLE", 0x6000)] {
            let json = format!(r#"{{"class":"IOPRIO_CLASS_{class}","priority":5}}"#);
            assert_eq!(read(&json).unwrap(), IoPriority(number + 5));
        }
    }

    #[test]
    fn levels_are_from_0_to_7() {
        for bad in ["-1", "8", "4294967296"] {
            let json = format!(r#"{{"class":"IOPRIO_CLASS_BE","priority":{bad}}}"#);
            let e = read(&json).unwrap_err().to_string();
            assert!(
                e.starts_with(&format!("process.ioPriority.priority: `{bad}` must")),
                "{e}"
            );
        }
    }
}
