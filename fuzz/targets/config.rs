//! `config.json`: whatever it says, deciding has no side effects, and a plan that is made can be carried out.
#![no_main]

use condo::runtime::bundle::{self, Bundle};
use condo::runtime::id::Id;
use condo::runtime::plan::{Choices, Plan};
use condo_fuzz::{check_plan, hosts, is_a_user_s_error};
use libfuzzer_sys::fuzz_target;

fn decide(data: &[u8], host: &condo::host::Host) -> condo::error::Result<Plan> {
    let bundle = Bundle {
        path: "/bundle".into(),
        spec: bundle::parse(data)?,
        raw: data.to_vec(),
    };
    Plan::on_rootfs(
        &bundle,
        "/bundle/rootfs".as_ref(),
        &Id::new("fuzz")?,
        host,
        Choices::default(),
    )
}

fuzz_target!(|data: &[u8]| {
    for host in &hosts() {
        match decide(data, host) {
            Ok(plan) => {
                check_plan(&plan);
                // Maps of the config have no order; what is made of them has.
                let again = decide(data, host).map(|plan| format!("{plan:?}"));
                assert_eq!(again.ok(), Some(format!("{plan:?}")));
            }
            Err(e) => assert!(is_a_user_s_error(&e), "{e:?}"),
        }
    }
});
