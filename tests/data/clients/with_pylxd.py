"""The life of a VPS as pylxd has it, at the socket that is named."""

import sys

import pylxd

client = pylxd.Client(endpoint=sys.argv[1])
assert client.trusted
assert [image.aliases[0]["name"] for image in client.images.all()] == ["busybox"]

config = {"name": "web", "source": {"type": "image", "alias": "busybox"}, "config": {"limits.memory": "64MiB"}}
web = client.instances.create(config, wait=True)
web.start(wait=True)
web.sync()
assert web.status == "Running", web.status
ended = web.execute(["sh", "-c", "echo out; echo err >&2; exit 3"])
assert (ended.exit_code, ended.stdout, ended.stderr) == (3, "out\n", "err\n"), ended

web.files.put("/root/file", b"content", mode=0o640, uid=7)
assert web.files.get("/root/file") == b"content"
assert web.execute(["stat", "-c", "%a %u", "/root/file"]).stdout == "640 7\n"
web.files.delete("/root/file")

web.config["limits.processes"] = "99"
web.save(wait=True)
assert client.instances.get("web").config["limits.processes"] == "99"

snapshot = web.snapshots.create("early", wait=True)
assert [one.name for one in web.snapshots.all()] == ["early"]
snapshot.delete(wait=True)

assert web.state().network["eth0"]["addresses"][0]["family"] == "inet"
web.freeze(wait=True)
web.unfreeze(wait=True)
web.stop(force=True, wait=True)
web.rename("db", wait=True)
assert [one.name for one in client.instances.all()] == ["db"]

image = client.instances.get("db").publish(wait=True)
image.add_alias("golden", "made here")
assert client.images.get_by_alias("golden").fingerprint == image.fingerprint
exported = image.export().read()
image.delete(wait=True)
again = client.images.create(exported, wait=True)
assert again.fingerprint == image.fingerprint
again.delete(wait=True)

profile = client.profiles.create("small", config={"limits.memory": "32MiB"})
profile.delete()
assert "condo0" in [network.name for network in client.networks.all()]

try:
    client.instances.create({"name": "x", "source": {"type": "image", "alias": "none"}}, wait=True)
    raise SystemExit("an instance of no image was made")
except pylxd.exceptions.LXDAPIException as refused:
    assert "none" in str(refused), refused

client.instances.get("db").delete(wait=True)
assert client.instances.all() == []
print("done")
