//! CRIU's protocol (`criu swrk FD`): its messages, as far as condo speaks them.
//!
//! The numbers are those of CRIU's `images/rpc.proto`. What is left out of a request keeps CRIU's own default; what an answer
//! has beyond this is skipped.

use prost::Message;

/// A request. A notification is answered by one of kind [`Kind::Notify`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    pub(super) notify_success: Option<bool>,
    #[prost(message, optional, tag = "5")]
    pub(super) features: Option<Features>,
}

/// What is asked, and what an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// An answer, or a notification.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Response {
    /// A newer CRIU may have kinds that are not in [`Kind`].
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(bool, required, tag = "2")]
    pub(super) success: bool,
    #[prost(message, optional, tag = "5")]
    pub(super) notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    pub(super) errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub(super) features: Option<Features>,
    #[prost(string, optional, tag = "9")]
    pub(super) message: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub(super) version: Option<Version>,
}

/// A point on the way that has been reached; the operation goes on when it has been answered.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Notify {
    #[prost(string, tag = "1")]
    pub(super) script: String,
    #[prost(int32, tag = "2")]
    pub(super) pid: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Features {
    #[prost(bool, optional, tag = "1")]
    pub(super) mem_track: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub(super) lazy_pages: Option<bool>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Version {
    #[prost(int32, required, tag = "1")]
    pub(super) major: i32,
    #[prost(int32, required, tag = "2")]
    pub(super) minor: i32,
    #[prost(int32, tag = "4")]
    pub(super) sublevel: i32,
}

/// `criu_opts`. Descriptors in it are numbers of the process that made the socket, unless said otherwise.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Options {
    #[prost(int32, required, tag = "1")]
    pub(super) images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub(super) pid: Option<i32>,
    #[prost(bool, tag = "3")]
    pub(super) leave_running: bool,
    #[prost(bool, tag = "4")]
    pub(super) ext_unix_sk: bool,
    #[prost(bool, tag = "5")]
    pub(super) tcp_established: bool,
    #[prost(bool, tag = "6")]
    pub(super) evasive_devices: bool,
    #[prost(bool, tag = "7")]
    pub(super) shell_job: bool,
    #[prost(bool, tag = "8")]
    pub(super) file_locks: bool,
    #[prost(int32, tag = "9")]
    pub(super) log_level: i32,
    #[prost(string, tag = "10")]
    pub(super) log_file: String,
    #[prost(message, optional, tag = "11")]
    pub(super) page_server: Option<PageServer>,
    #[prost(bool, tag = "12")]
    pub(super) notify_scripts: bool,
    #[prost(string, tag = "13")]
    pub(super) root: String,
    #[prost(string, optional, tag = "14")]
    pub(super) parent_img: Option<String>,
    #[prost(bool, tag = "15")]
    pub(super) track_mem: bool,
    #[prost(bool, tag = "16")]
    pub(super) auto_dedup: bool,
    #[prost(int32, optional, tag = "17")]
    pub(super) work_dir_fd: Option<i32>,
    #[prost(bool, tag = "18")]
    pub(super) link_remap: bool,
    #[prost(message, repeated, tag = "23")]
    pub(super) ext_mnt: Vec<ExtMount>,
    #[prost(bool, tag = "24")]
    pub(super) manage_cgroups: bool,
    #[prost(message, repeated, tag = "25")]
    pub(super) cg_root: Vec<CgroupRoot>,
    #[prost(bool, tag = "26")]
    pub(super) rst_sibling: bool,
    #[prost(message, repeated, tag = "27")]
    pub(super) inherit_fd: Vec<InheritFd>,
    /// Required, so that it is sent where it is 0 as well: without it CRIU goes by `manage_cgroups`.
    #[prost(int32, required, tag = "34")]
    pub(super) manage_cgroups_mode: i32,
    #[prost(string, repeated, tag = "37")]
    pub(super) external: Vec<String>,
    #[prost(uint32, tag = "38")]
    pub(super) empty_ns: u32,
    #[prost(message, repeated, tag = "39")]
    pub(super) join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = "44")]
    pub(super) freeze_cgroup: Option<String>,
    #[prost(bool, tag = "46")]
    pub(super) tcp_skip_in_flight: bool,
    #[prost(bool, tag = "48")]
    pub(super) lazy_pages: bool,
    #[prost(bool, tag = "50")]
    pub(super) orphan_pts_master: bool,
    #[prost(string, optional, tag = "51")]
    pub(super) config_file: Option<String>,
    #[prost(bool, tag = "52")]
    pub(super) tcp_close: bool,
    #[prost(string, optional, tag = "53")]
    pub(super) lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub(super) lsm_mount_context: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PageServer {
    #[prost(string, tag = "1")]
    pub(super) address: String,
    #[prost(int32, tag = "2")]
    pub(super) port: i32,
}

/// Dump: the mount point `key` is not saved but called `value`. Restore: what was called `key` is `value` on the host.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ExtMount {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, required, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub(super) controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub(super) path: String,
}

/// The number is CRIU's own.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(int32, required, tag = "2")]
    pub(super) fd: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub(super) kind: String,
    #[prost(string, required, tag = "2")]
    pub(super) file: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_bytes_that_criu_reads() {
        let request = Request {
            kind: Kind::Dump as i32,
            options: Some(Options {
                images_dir_fd: 3,
                tcp_established: true,
                lsm_mount_context: Some("x".into()),
                ..Options::default()
            }),
            ..Request::default()
        };
        // Tag and wire type, then the value: type 1; options of 11 bytes: fd 3, flag 5, field 34 although it is 0, and field 63.
        // The tags of both take two bytes.
        let bytes = [8, 1, 18, 11, 8, 3, 40, 1, 0x90, 2, 0, 0xfa, 3, 1, b'x'];
        assert_eq!(request.encode_to_vec(), bytes);
    }

    #[test]
    fn an_answer_of_a_newer_criu_is_read() {
        // Kind 99, success, an unknown field 77 and a notification.
        let bytes = [8, 99, 16, 1, 0xe8, 4, 1, 42, 4, 10, 2, b'h', b'i'];
        let response = Response::decode(&bytes[..]).unwrap();
        assert_eq!((response.kind, response.success), (99, true));
        assert_eq!(response.notify.unwrap().script, "hi");
        assert!(Response::decode(&[8][..]).is_err());
    }
}
