//! Images without an init: their program is process 1, as their configuration has it.

use anyhow::{Result, ensure};
use serde_json::json;

use super::house::{House, eventually};
use crate::harness;
use crate::image::Tar;
use crate::image::saved::{self, Packed, Saved};

tests![a_program_runs_as_its_image_says];

/// Says what it is, and ends when it is asked by the signal of the image.
const PROGRAM: &str =
    "busybox id; busybox pwd; echo $A; trap 'echo asked; exit 7' QUIT; while :; do busybox sleep 1; done";

fn a_program_runs_as_its_image_says() -> Result<()> {
    needs!(root, busybox);
    let mut house = House::new()?;
    let lower = Tar::new()
        .dir("./", 0o755)
        .file("bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)
        .symlink("bin/sh", "busybox")
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n",
        )
        .file("etc/group", 0o644, b"web:x:1000:\nlog:x:7:web\ncrew:x:8:\n")
        .end();
    let upper = Tar::new().owned(b'5', ("srv/", ""), (0o750, 1000), b"").end();
    let config = json!({
        "Env": ["PATH=/sbin:/bin", "A=of the image"],
        "Entrypoint": ["sh", "-c"],
        "Cmd": [PROGRAM],
        "User": "web:crew",
        "WorkingDir": "/srv",
        "StopSignal": "SIGQUIT",
    });
    let image = Saved::new(&config, &[(lower, Packed::Gzip), (upper, Packed::Zstd)])?;
    let archive = harness::tempdir().join("app.tar");
    std::fs::write(&archive, saved::archive(&image.layout()?))?;
    house.ok(&format!("image import {} --name app", archive.display()))?;
    let shown: serde_json::Value = serde_json::from_str(&house.ok("image show app --json")?)?;
    ensure!(
        shown["init"] == json!(["/bin/sh", "-c", PROGRAM]) && shown["layers"] == 2,
        "{shown}"
    );

    house.ok("create web --image app --start")?;
    eventually("it says where it is", || {
        Ok(house.ok("logs web")?.contains("of the image"))
    })?;
    let log = house.ok("logs web")?;
    for part in [
        "uid=1000(web) gid=8(crew) groups=7(log)",
        "/srv\r\n",
        "of the image",
    ] {
        ensure!(log.contains(part), "`{part}` is not in {log}");
    }
    let capabilities = house.sh("web", "busybox grep CapEff /proc/1/status")?;
    ensure!(capabilities.ends_with("0000000000000000"), "{capabilities}");
    house.refused("image remove app", "is in use by `web`")?;
    house.ok("stop web")?;
    ensure!(house.ok("logs web")?.contains("asked") && house.show("web")?["last_exit"]["status"] == 7);
    house.ok("delete web")?;
    house.ok("image remove app")?;
    ensure!(house.ok("image prune --json")?.trim() == "[]");
    // The folder of layers stays.
    house.settle_in();
    house.leave()
}
