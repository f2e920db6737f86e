"""Requests that OpenAPI's document allows and no client sends, to the socket that is named.

None may get a 5xx, or take long, or show what is of another project. Names are those of what is there, as often as not.
"""

import contextlib
import http.client
import json
import random
import socket
import sys
import time

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase

SOCKET, SECONDS = sys.argv[1], float(sys.argv[2])
# What only the project `shop` has.
OTHERS = "hidden-from-others"
NAMES = {
    "name": {
        "instances": ["web"],
        "networks": ["condo0", "lan"],
        "projects": ["default", "shop"],
        "profiles": ["default", "small"],
        "storage-pools": ["default"],
    },
    "snapshot": ["early"],
    "backup": ["kept"],
    "alias": ["busybox"],
    "address": ["192.0.2.1"],
    "file": ["console.log"],
    "fingerprint": [],
}
QUERIES = {
    "recursion": ["0", "1", "2"],
    "path": ["/etc/passwd", "/root/../etc", "/none", "/etc"],
    "filter": ["status eq Running", "name eq web and type eq container"],
    "project": ["default", "shop", "none"],
}
# Of each operation.
EXAMPLES = 16
# Clients say how long they wait; an answer without a wait is due at once.
PATIENCE = 30


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(SOCKET)


def send(method, path, body=None, headers=None):
    connection = Connection("condo")
    # An answer may come before all of the body was read.
    with contextlib.suppress(BrokenPipeError):
        connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def ask(method, path, body=None):
    status, text = send(method, path, None if body is None else json.dumps(body))
    answer = json.loads(text)
    if status == 202:
        answer = json.loads(send("GET", answer["operation"] + "/wait?timeout=30")[1])
    return status, answer["metadata"]


def furnish():
    """Makes what the names mean, as far as requests have taken it away."""
    source = {"type": "image", "alias": "busybox"}
    if not any("busybox" in str(image) for image in ask("GET", "/1.0/images?recursion=1")[1]):
        sys.exit("the image is gone")
    wanted = [
        ("/1.0/projects", {"name": "shop"}, "shop"),
        ("/1.0/networks", {"name": "lan", "config": {"ipv4.address": "10.78.0.1/24"}}, "lan"),
        ("/1.0/profiles", {"name": "small", "config": {"limits.processes": "50"}}, "small"),
        ("/1.0/instances", {"name": "web", "source": source}, "web"),
        ("/1.0/instances?project=shop", {"name": OTHERS, "source": source}, OTHERS),
        ("/1.0/instances/web/snapshots", {"name": "early"}, "early"),
        ("/1.0/instances/web/backups", {"name": "kept"}, "kept"),
    ]
    # What earlier requests have begun may still take something of it away.
    deadline = time.monotonic() + 30
    while missing := [(path, body) for path, body, name in wanted if status_of(path, name) != 200]:
        said = [ask("POST", path, body) for path, body in missing]
        assert time.monotonic() < deadline, (missing, said)


def status_of(path, name):
    kind, _, query = path.partition("?")
    return send("GET", f"{kind}/{name}?{query}")[0]


def meant(case, choose):
    """The case with names of what is there."""
    kind = case.path.split("/")[2] if case.path.count("/") > 1 else ""
    for parameter in case.path_parameters or {}:
        names = NAMES.get(parameter, [])
        names = names.get(kind, []) if isinstance(names, dict) else names
        if names and choose.random() < 0.8:
            case.path_parameters[parameter] = choose.choice(names)
    for parameter in case.query or {}:
        if choose.random() < 0.5:
            case.query[parameter] = choose.choice(QUERIES.get(parameter, ["true"]))
    return case


def judge(request, status, text, took):
    said = f"{request.method} {request.path_url} {request.body!r}: {status} {text[:500]!r}"
    assert status < 500, said
    assert took < PATIENCE / 2, f"{took} s: {said}"
    # The host's figures are of all projects, a project's own page names what is in it, and who may take images and networks away hears
    # who needs them.
    of_all = request.path_url.startswith(("/1.0/metrics", "/1.0/projects"))
    of_host = status >= 400 and request.path_url.startswith(("/1.0/images", "/1.0/networks", "/1.0/profiles"))
    if "project=shop" not in request.path_url and not of_all and not of_host:
        assert OTHERS.encode() not in text, said
    if status >= 400:
        assert json.loads(text)["type"] == "error", said


def fuzz(operation, choose, examples):
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def try_it(case):
        arguments = meant(case, choose).as_transport_kwargs(base_url="http://condo")
        known = {"method", "url", "headers", "data", "json", "params", "cookies", "files"}
        request = requests.Request(**{key: value for key, value in arguments.items() if key in known}).prepare()
        begun = time.monotonic()
        status, text = send(request.method, request.path_url, request.body, dict(request.headers))
        judge(request, status, text, time.monotonic() - begun)
        counts[status] = counts.get(status, 0) + 1

    try_it()


counts = {}
document = json.loads(send("GET", "/1.0/openapi.json")[1])
schema = schemathesis.openapi.from_dict(document)
operations = [found.ok() for found in schema.get_all_operations()]
# What takes things away comes last.
operations.sort(key=lambda operation: operation.method.lower() == "delete")
furnish()
NAMES["fingerprint"] = [image["fingerprint"] for image in ask("GET", "/1.0/images?recursion=1")[1]]
choose = random.Random(1)
begun = time.monotonic()
tried = 0
for operation in operations:
    left = SECONDS - (time.monotonic() - begun)
    if left <= 0:
        break
    furnish()
    fuzz(operation, choose, EXAMPLES)
    tried += 1
print(f"{tried} of {len(operations)} operations, answers {dict(sorted(counts.items()))}")
