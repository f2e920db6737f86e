//! What a container's process is: program, environment, credentials, limits; and the protection of condo's own program.
//!
//! A [`Process`] is decided from the spec (or from `exec`'s arguments) before any side effect; init then walks through
//! [`Process::lower`] and [`Program::exec`](program::Program::exec).

pub mod affinity;
pub mod capabilities;
pub mod credentials;
pub mod environment;
pub mod inherited;
pub mod io_priority;
pub mod limits;
pub mod memory_policy;
pub mod personality;
pub mod program;
pub mod protect;
mod ranges;
pub mod scheduler;
pub mod signal;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use oci_spec::runtime as oci;

use crate::error::{Error, Result};
use crate::sys::cred::FsIdentity;
use affinity::Affinity;
use capabilities::Capabilities;
use credentials::Credentials;
use io_priority::IoPriority;
use limits::Limits;
use memory_policy::MemoryPolicy;
use personality::Personality;
use scheduler::Scheduler;

/// A process to be, as decided from the spec's `process`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The program and its arguments; never empty.
    pub args: Vec<OsString>,
    /// `KEY=value` lines, one for each variable.
    pub env: Vec<OsString>,
    /// Absolute working directory.
    pub cwd: PathBuf,
    /// Whether standard input, output and error are a terminal of its own.
    pub terminal: bool,
    /// The terminal's size in rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Users, groups, umask.
    pub credentials: Credentials,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// Resource limits and the out-of-memory score.
    pub limits: Limits,
    /// Policy and parameters of the processor's scheduler.
    pub scheduler: Option<Scheduler>,
    /// Class and level of input and output.
    pub io_priority: Option<IoPriority>,
    /// The processors of a process of `exec`.
    pub affinity: Affinity,
    /// The container's execution domain, see [`Process::of_container`].
    pub personality: Option<Personality>,
    /// The container's memory policy, see [`Process::of_container`].
    pub memory_policy: Option<MemoryPolicy>,
    /// Whether set-user-ID programs and file capabilities stop working.
    pub no_new_privileges: bool,
    /// AppArmor profile to change to on exec.
    pub apparmor_profile: Option<String>,
    /// SELinux label to change to on exec.
    pub selinux_label: Option<String>,
}

impl Process {
    /// Reads and checks a `process` object of the spec.
    ///
    /// # Errors
    /// Names the field: no arguments, a relative `cwd`, an environment line without `=`, a NUL byte, limits out of order.
    pub fn from_spec(process: &oci::Process) -> Result<Self> {
        let args = bytes(process.args().as_deref());
        names_program(&args)?;
        let env = bytes(process.env().as_deref());
        no_nul("process.args", &args)?;
        no_nul("process.env", &env)?;
        environment::check(&env)?;
        if !process.cwd().is_absolute() {
            let problem = "must be an absolute path";
            return Err(Error::invalid("process.cwd", process.cwd().display(), problem));
        }
        Ok(Self {
            args,
            env: environment::each_once(&env),
            cwd: process.cwd().clone(),
            terminal: process.terminal().unwrap_or(false),
            console_size: process
                .console_size()
                .map(|b| (clamp(b.height()), clamp(b.width()))),
            credentials: Credentials::from_spec(process.user())?,
            capabilities: Capabilities::from_spec(process.capabilities().as_ref())?,
            limits: Limits::from_spec(process)?,
            scheduler: process
                .scheduler()
                .as_ref()
                .map(Scheduler::from_spec)
                .transpose()?,
            io_priority: process
                .io_priority()
                .as_ref()
                .map(IoPriority::from_spec)
                .transpose()?,
            affinity: Affinity::from_spec(process.exec_cpu_affinity().as_ref())?,
            personality: None,
            memory_policy: None,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            apparmor_profile: process.apparmor_profile().clone().filter(|p| !p.is_empty()),
            selinux_label: process.selinux_label().clone().filter(|l| !l.is_empty()),
        })
    }

    /// Puts another program and its arguments in place of its own.
    ///
    /// # Errors
    /// No program.
    pub fn set_args(&mut self, args: &[OsString]) -> Result<()> {
        names_program(args)?;
        self.args = args.to_vec();
        Ok(())
    }

    /// Lays further variables over its own.
    ///
    /// # Errors
    /// Names a line that is not `NAME=VALUE`.
    pub fn add_env(&mut self, env: &[OsString]) -> Result<()> {
        environment::check(env)?;
        self.env.extend_from_slice(env);
        self.env = environment::each_once(&self.env);
        Ok(())
    }

    /// Adds what every process of a container has: `linux.personality` and `linux.memoryPolicy`.
    ///
    /// # Errors
    /// Names the field.
    pub fn of_container(mut self, linux: Option<&oci::Linux>) -> Result<Self> {
        let personality = linux.and_then(|l| l.personality().as_ref());
        let memory_policy = linux.and_then(|l| l.memory_policy().as_ref());
        self.personality = personality.map(Personality::from_spec);
        self.memory_policy = memory_policy.map(MemoryPolicy::from_spec).transpose()?;
        Ok(self)
    }

    /// The parent's part: priorities of a process that waits, which its own user namespace could not give it.
    pub fn prioritise(&self, pid: i32) -> Result<()> {
        if let Some(priority) = self.io_priority {
            priority.apply(pid)?;
        }
        match &self.scheduler {
            Some(scheduler) => scheduler.apply(pid),
            None => Ok(()),
        }
    }

    /// The process's part, while no filter stands in its way: what its program keeps through `execve(2)`.
    pub fn acclimatise(&self) -> Result<()> {
        if let Some(policy) = &self.memory_policy {
            policy.assume()?;
        }
        match self.personality {
            Some(personality) => personality.assume(),
            None => Ok(()),
        }
    }

    /// Takes on the user and gives up all privileges but the wanted ones, with the seccomp filter as late as possible.
    ///
    /// Without no-new-privs a filter needs `CAP_SYS_ADMIN`, so it is installed before the capabilities go; with it, the filter
    /// comes last and only has to allow `execve(2)`.
    pub fn lower(&self, seccomp: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        self.capabilities.bound()?;
        self.credentials.assume()?;
        // A change of user makes a process visible again where the host wants dumps of such (`fs.suid_dumpable`).
        protect::hide()?;
        if self.no_new_privileges {
            self.capabilities.keep_only()?;
            seccomp()
        } else {
            capabilities::raise_effective()?;
            seccomp()?;
            self.capabilities.keep_only()
        }
    }
}

impl Process {
    /// Does `work` with the user's rights to files, and comes back: which program is found depends on who looks.
    ///
    /// # Errors
    /// Those of `work`, and `EPERM` without `CAP_SETUID` and `CAP_SETGID`.
    pub fn as_user<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let who = &self.credentials;
        who.adopt_groups()?;
        let identity = FsIdentity::assume(who.uid, who.gid)?;
        self.capabilities.lend()?;
        let done = work();
        drop(identity);
        protect::hide()?;
        done
    }
}

fn names_program(args: &[OsString]) -> Result<()> {
    match args.first() {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(Error::invalid("process.args", "", "must name a program")),
    }
}

fn bytes(texts: Option<&[String]>) -> Vec<OsString> {
    texts.unwrap_or_default().iter().map(OsString::from).collect()
}

fn clamp(length: u64) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn no_nul(field: &str, values: &[OsString]) -> Result<()> {
    match values.iter().position(|v| v.as_bytes().contains(&0)) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(
            format!("{field}[{at}]"),
            values[at].to_string_lossy().escape_debug(),
            "must not contain a NUL byte",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Result<Process> {
        Process::from_spec(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn the_shortest_process_is_understood() {
        let p = process(r#"{"user":{"uid":1,"gid":2},"args":["sh"],"cwd":"/"}"#).unwrap();
        assert_eq!(
            (p.args.as_slice(), p.terminal),
            ([OsString::from("sh")].as_slice(), false)
        );
        assert_eq!((p.credentials.uid, p.credentials.gid), (1, 2));
    }

    #[test]
    fn mistakes_are_named() {
        for (json, text) in [
            (
                r#"{"user":{},"args":[],"cwd":"/"}"#,
                "process.args: `` must name a program",
            ),
            (
                r#"{"user":{},"args":["a"],"cwd":"x"}"#,
                "process.cwd: `x` must be an absolute path",
            ),
            (
                r#"{"user":{},"args":["a","b\u0000"],"cwd":"/"}"#,
                "process.args[1]: `b\\0` must not contain a NUL byte",
            ),
            (
                r#"{"user":{"uid":4294967295},"args":["a"],"cwd":"/"}"#,
                "process.user.uid: `4294967295` means no change to the kernel; ids end at 4294967294",
            ),
            (
                r#"{"user":{"additionalGids":[1,4294967295]},"args":["a"],"cwd":"/"}"#,
                "process.user.additionalGids[1]: `4294967295` means no change to the kernel; ids end at 4294967294",
            ),
        ] {
            assert_eq!(process(json).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_container_s_fields_reach_its_processes() {
        let linux = r#"{"personality":{"domain":"LINUX32"},"memoryPolicy":{"mode":"MPOL_LOCAL"}}"#;
        let linux: oci::Linux = serde_json::from_str(linux).unwrap();
        let p = process(r#"{"user":{},"args":["a"],"cwd":"/"}"#).unwrap();
        assert_eq!(p, p.clone().of_container(None).unwrap());
        let p = p.of_container(Some(&linux)).unwrap();
        assert!(p.personality.is_some() && p.memory_policy.is_some());
    }
}
