//! From which NUMA nodes a container's memory comes (`set_mempolicy(2)`).

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};

use super::ranges;
use crate::error::{During, Error, Result};
use crate::sys::task;

/// The most nodes a kernel can be built for (`CONFIG_NODES_SHIFT` is at most 10).
const MAX_NODES: usize = 1024;
/// `MPOL_F_STATIC_NODES`, `MPOL_F_RELATIVE_NODES`, `MPOL_F_NUMA_BALANCING` of `linux/mempolicy.h`.
const STATIC: i32 = 1 << 15;
const RELATIVE: i32 = 1 << 14;
const BALANCING: i32 = 1 << 13;

/// Modes by the numbers of `linux/mempolicy.h`, which are their places here.
pub const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
/// The flags of modes.
pub const FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

/// A policy that all processes of a container begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// The mode with its flags.
    mode: i32,
    /// A bit for each node.
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// Reads `linux.memoryPolicy`.
    ///
    /// # Errors
    /// Names the field: a malformed list, nodes or flags that the mode has no use for, nodes that it needs.
    pub fn from_spec(spec: &LinuxMemoryPolicy) -> Result<Self> {
        let list = spec.nodes().as_deref().filter(|list| !list.is_empty());
        let nodes = match list {
            Some(list) => mask(&ranges::numbers("linux.memoryPolicy.nodes", list, MAX_NODES)?),
            None => Vec::new(),
        };
        let takes_nodes = !matches!(spec.mode(), Mode::MpolDefault | Mode::MpolLocal);
        let needs_nodes = takes_nodes && spec.mode() != Mode::MpolPreferred;
        let invalid = |problem: &str| {
            let field = "linux.memoryPolicy.nodes";
            let problem = format!("{problem} with the mode {}", spec.mode());
            Err(Error::invalid(field, list.unwrap_or_default(), problem))
        };
        match (takes_nodes, needs_nodes, nodes.is_empty()) {
            (false, _, false) => return invalid("must be left out"),
            (_, true, true) => return invalid("must name nodes"),
            _ => {}
        }
        Ok(Self {
            mode: mode(spec.mode()) | flags(spec, !nodes.is_empty())?,
            nodes,
        })
    }

    /// Takes it on; programs keep it through `execve(2)`, and their children have it as well.
    pub fn assume(&self) -> Result<()> {
        task::set_memory_policy(self.mode, &self.nodes)
            .during(|| "set `linux.memoryPolicy` (does this kernel have the mode, and the container's cpuset the nodes?)")
    }
}

fn mode(mode: Mode) -> i32 {
    match mode {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    }
}

fn flags(spec: &LinuxMemoryPolicy, has_nodes: bool) -> Result<i32> {
    let mut bits = 0;
    for (index, flag) in spec.flags().iter().flatten().enumerate() {
        let invalid = |problem: &str| {
            let field = format!("linux.memoryPolicy.flags[{index}]");
            Err(Error::invalid(field, flag, problem))
        };
        bits |= match flag {
            Flag::MpolFNumaBalancing if matches!(spec.mode(), Mode::MpolBind | Mode::MpolPreferredMany) => {
                BALANCING
            }
            Flag::MpolFNumaBalancing => {
                return invalid("is for the modes MPOL_BIND and MPOL_PREFERRED_MANY only");
            }
            _ if !has_nodes => return invalid("says how nodes are counted, and there are none"),
            Flag::MpolFRelativeNodes => RELATIVE,
            Flag::MpolFStaticNodes => STATIC,
        };
        if bits & (STATIC | RELATIVE) == STATIC | RELATIVE {
            return invalid("cannot be combined: nodes are static or relative");
        }
    }
    Ok(bits)
}

fn mask(nodes: &[usize]) -> Vec<u64> {
    let highest = nodes.iter().max().copied().unwrap_or(0);
    let mut words = vec![0; highest / 64 + 1];
    for node in nodes {
        words[node / 64] |= 1 << (node % 64);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MemoryPolicy> {
        MemoryPolicy::from_spec(&serde_json::from_str(&format!("{{{json}}}")).unwrap())
    }

    #[test]
    fn modes_are_the_kernel_s_numbers() {
        for (number, name) in MODES.iter().enumerate() {
            let parsed: Mode = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(mode(parsed), number as i32, "{name}");
        }
        for name in FLAGS {
            serde_json::from_str::<Flag>(&format!("\"{name}\"")).unwrap();
        }
    }

    #[test]
    fn a_policy_becomes_a_mode_and_a_mask() {
        let bind = read(
            r#""mode":"MPOL_BIND","nodes":"0-1,64","flags":["MPOL_F_STATIC_NODES","MPOL_F_NUMA_BALANCING"]"#,
        )
        .unwrap();
        assert_eq!((bind.mode, bind.nodes), (2 | STATIC | BALANCING, vec![3, 1]));
        assert!(read(r#""mode":"MPOL_LOCAL""#).unwrap().nodes.is_empty());
        read(r#""mode":"MPOL_PREFERRED""#).unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        for (json, text) in [
            (
                r#""mode":"MPOL_DEFAULT","nodes":"0""#,
                "linux.memoryPolicy.nodes: `0` must be left out",
            ),
            (
                r#""mode":"MPOL_BIND""#,
                "linux.memoryPolicy.nodes: `` must name nodes with the mode MPOL_BIND",
            ),
            (
                r#""mode":"MPOL_BIND","nodes":"x""#,
                "linux.memoryPolicy.nodes: `x` must be a list",
            ),
            (
                r#""mode":"MPOL_BIND","nodes":"1024""#,
                "linux.memoryPolicy.nodes: `1024`",
            ),
            (
                r#""mode":"MPOL_INTERLEAVE","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]"#,
                "linux.memoryPolicy.flags[0]: `MPOL_F_NUMA_BALANCING` is for",
            ),
            (
                r#""mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]"#,
                "linux.memoryPolicy.flags[1]: `MPOL_F_RELATIVE_NODES` cannot",
            ),
            (
                r#""mode":"MPOL_LOCAL","flags":["MPOL_F_STATIC_NODES"]"#,
                "linux.memoryPolicy.flags[0]: `MPOL_F_STATIC_NODES` says",
            ),
        ] {
            let e = read(json).unwrap_err().to_string();
            assert!(e.starts_with(text), "{json}: {e}");
        }
    }
}
