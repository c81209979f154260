"""A real object store behind an S3 interface, for tests: OpenStack Swift with its s3api, on free loopback ports, in a folder.

It checks signatures, keeps buckets on disk and answers over connections, as the stores of hospitals do. Its servers are forks of one
process of the system's own Python, which has Debian's python3-swift: `tools/services swift`.

    with s3() as store:
        store.make_bucket("payloads")
        os.environ.update(store.environment)
"""

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
ACCESS_KEY = "test:tester"
SECRET_KEY = "testing"
KINDS = ("account", "container", "object", "proxy")
PATIENCE_SECONDS = 50.0


def s3_lacks() -> str | None:
    """Return why tests against an object store can't run here, None if they can."""
    imports = "import swift.proxy.server, swift.account.server, swift.container.server, swift.obj.server"
    try:
        asked = subprocess.run([SYSTEM_PYTHON, "-c", imports], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{error}: run `make services`"
    if asked.returncode:
        return f"{asked.stderr.strip().splitlines()[-1]}: run `make services`"
    try:
        import obstore  # noqa: F401
    except ModuleNotFoundError:
        return "obstore is not installed"
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, "user.folkmoot", b"1")
        except OSError as error:
            return f"the temporary folder keeps no extended attributes: {error}"
    return None


@dataclass(frozen=True)
class S3:
    """A store that answers."""

    port: int
    folder: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What the server's environment has to say."""
        return environment(self.endpoint)

    def make_bucket(self, name: str) -> None:
        """Make a bucket. obstore has no call for it, but signs one for an object of that name where buckets are."""
        import obstore
        from obstore.store import S3Store

        everything = S3Store(
            "all",
            endpoint=self.endpoint,
            virtual_hosted_style_request=True,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )
        url = obstore.sign(everything, "PUT", name, timedelta(minutes=1))
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()

    def files(self) -> list[Path]:
        """Return the files of all objects, as they are on the store's disk."""
        return sorted(self.folder.glob("devices/d1/objects*/**/*.data"))


def environment(endpoint: str, secret: str = SECRET_KEY) -> Mapping[str, str]:
    """Return what names an endpoint and who uses it, as obstore reads it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """Start a store in an empty folder; stop it at the end."""
    ports = {kind: _free_port() for kind in KINDS}
    _configure(folder, ports)
    log = (folder / "servers.log").open("w")
    servers = subprocess.Popen(
        [SYSTEM_PYTHON, "-c", _SERVE, str(folder), str(os.getpid()), *KINDS],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        running = S3(ports["proxy"], folder)
        for port in ports.values():
            _wait_until_it_listens(port, servers, folder)
        yield running
    finally:
        servers.kill()
        servers.wait()
        log.close()


_SERVE = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
def end_with_parent(parent):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
end_with_parent(int(sys.argv[2]))
import swift.account.server, swift.container.server, swift.obj.server, swift.proxy.server
import swift.common.middleware.s3api.s3api
from swift.common.utils import set_swift_dir
set_swift_dir(sys.argv[1])
from swift.common.wsgi import run_wsgi
parent = os.getpid()
for kind in sys.argv[3:]:
    if os.fork() == 0:
        end_with_parent(parent)
        os._exit(run_wsgi(f"{sys.argv[1]}/{kind}.conf", f"{kind}-server"))
for _ in sys.argv[3:]:
    os.wait()
"""
"""Each server leaves the process group that it was started in; so they end with their parent, and it ends with the tests."""

_RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(sys.argv[2::2], map(int, sys.argv[3::2])):
    ring = RingBuilder(4, 1, 0)
    place = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "device": "d1", "weight": 1.0, **place})
    ring.rebalance(seed=1)
    ring.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""

_COMMON = """[DEFAULT]
swift_dir = {folder}
user = {user}
bind_ip = 127.0.0.1
bind_port = {port}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
workers = 0
log_level = ERROR
log_address = {folder}/no-syslog
"""

_STORAGE = """[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY = """[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats bulk s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{nobody}
"""

_FILTERS = ("catch_errors", "gatekeeper", "listing_formats", "bulk", "s3api", "slo")


def _configure(folder: Path, ports: Mapping[str, int]) -> None:
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    for kind, port in ports.items():
        common = _COMMON.format(folder=folder, user=user, port=port)
        own = _STORAGE.format(kind=kind)
        if kind == "proxy":
            filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _FILTERS)
            own = _PROXY.format(nobody=_free_port()) + filters
        (folder / f"{kind}.conf").write_text(common + own)
    storage = [text for kind in KINDS[:-1] for text in (kind, str(ports[kind]))]
    subprocess.run([SYSTEM_PYTHON, "-c", _RINGS, str(folder), *storage], check=True, env={"PATH": os.environ["PATH"]})


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait_until_it_listens(port: int, servers: "subprocess.Popen[bytes]", folder: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if servers.poll() is not None:
            break
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    said = "\n".join(path.read_text() for path in folder.glob("*.log"))
    raise RuntimeError(f"the object store does not listen: {said}")
