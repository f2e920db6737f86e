//! Huge pages, by page size.

use oci_spec::runtime::LinuxHugepageLimit;

use super::setting::{Setting, Version};
use crate::error::{Error, Result};

/// Two settings per page size: pages in use, and (since Linux 5.7) pages reserved, so that a process is refused at `mmap(2)`
/// instead of dying on a page fault. Below zero is "no limit".
pub(super) fn settings(limits: &[LinuxHugepageLimit], version: Version) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for limit in limits {
        let size = limit.page_size();
        if !is_page_size(size) {
            return Err(Error::invalid(
                "linux.resources.hugepageLimits.pageSize",
                size,
                "must be a size such as `2MB` or `1GB`",
            ));
        }
        let (file, none) = match version {
            Version::V1 => ("limit_in_bytes", "-1"),
            Version::V2 => ("max", "max"),
        };
        let value = if limit.limit() < 0 {
            none.into()
        } else {
            limit.limit().to_string()
        };
        settings.push(Setting::new(format!("hugetlb.{size}.{file}"), &value));
        settings.push(Setting::optional(format!("hugetlb.{size}.rsvd.{file}"), &value));
    }
    Ok(settings)
}

fn is_page_size(size: &str) -> bool {
    let number = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let unit = &size[number.len()..];
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    digits && matches!(unit, "KB" | "MB" | "GB") && number.parse::<u32>().is_ok_and(u32::is_power_of_two)
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    fn golden(json: &str, version: Version) -> Result<Vec<String>> {
        let limits: Vec<LinuxHugepageLimit> = serde_json::from_str(json).unwrap();
        settings(&limits, version).map(|s| lines(&s))
    }

    #[test]
    fn use_and_reservation_are_limited_alike() {
        let json = r#"[{"pageSize":"2MB","limit":4194304}]"#;
        assert_eq!(
            golden(json, Version::V2).unwrap(),
            ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"]
        );
        assert_eq!(
            golden(json, Version::V1).unwrap(),
            [
                "hugetlb.2MB.limit_in_bytes=4194304",
                "hugetlb.2MB.rsvd.limit_in_bytes=4194304"
            ]
        );
    }

    #[test]
    fn a_page_size_cannot_name_another_file() {
        for bad in ["", "2", "../../memory", "2mb", "3MB", "+2MB", "MB"] {
            let json = format!(r#"[{{"pageSize":"{bad}","limit":1}}]"#);
            assert!(golden(&json, Version::V2).is_err(), "{bad}");
        }
    }
}
