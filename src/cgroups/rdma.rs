//! Handles and objects of RDMA adapters.

use std::collections::HashMap;

use oci_spec::runtime::LinuxRdma;

use super::setting::{Setting, word};
use crate::error::Result;

/// One line of `rdma.max` per adapter, on v1 and v2 alike; what is not said is not changed.
pub(super) fn settings(adapters: &HashMap<String, LinuxRdma>) -> Result<Vec<Setting>> {
    for adapter in adapters.keys() {
        word("linux.resources.rdma", adapter)?;
    }
    let mut settings: Vec<Setting> = adapters
        .iter()
        .filter_map(|(adapter, limits)| {
            let handles = limits.hca_handles().map(|n| format!(" hca_handle={n}"));
            let objects = limits.hca_objects().map(|n| format!(" hca_object={n}"));
            let line: String = handles.into_iter().chain(objects).collect();
            (!line.is_empty()).then(|| Setting::new("rdma.max", format!("{adapter}{line}")))
        })
        .collect();
    settings.sort_by(|a, b| a.value.cmp(&b.value));
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    #[test]
    fn one_line_per_adapter() {
        let json = r#"{"mlx5_1":{"hcaHandles":3,"hcaObjects":9},"mlx4_0":{"hcaObjects":7},"idle0":{}}"#;
        assert_eq!(
            lines(&settings(&serde_json::from_str(json).unwrap()).unwrap()),
            [
                "rdma.max=mlx4_0 hca_object=7",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=9"
            ]
        );
    }

    #[test]
    fn a_name_cannot_become_another_line() {
        for bad in ["", "a b", "a\\nb"] {
            let json = format!(r#"{{"{bad}":{{"hcaHandles":1}}}}"#);
            let e = settings(&serde_json::from_str(&json).unwrap()).unwrap_err();
            assert_eq!(
                e.to_string(),
                format!("linux.resources.rdma: `{bad}` must be one word")
            );
        }
    }
}
