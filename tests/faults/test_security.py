"""Which sockets commands open and for whom, and whether what is secret is written down: see `docs/cluster.md`."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image
from sweeps import Bench, until, words
from test_tracking_servers import free_port

from harness.store import load

pytestmark = pytest.mark.faults
TABLE = "one_machine"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1, ::1 and the first as the second kind, as `/proc/net/tcp` has them."""
LISTENS = "0A"
WATCHED = """
import socket, sys
NETWORK = (socket.AF_INET, socket.AF_INET6)
def watch(event, args):
    # What takes datagrams is bound and no more; urllib3 binds, and closes, a stream to see whether there is IPv6.
    if event == "socket.bind" and args[0].family in NETWORK and args[0].type != socket.SOCK_STREAM:
        print("OPEN", args[1], file=sys.stderr)
sys.addaudithook(watch)
listen = socket.socket.listen
def listening(self, *backlog):
    if self.family in NETWORK:
        print("OPEN", self.getsockname(), file=sys.stderr)
    return listen(self, *backlog)
socket.socket.listen = listening
from harness.cli.wsss import main
raise SystemExit(main(sys.argv[1:]))
"""


def parents_of_all() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    return found


def children(pid: int, parents: Mapping[int, int]) -> set[int]:
    """A process and all that it has started, directly or not."""
    found, new = {pid}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def mode_and_token(pid: int, parents: Mapping[int, int]) -> tuple[str, str]:
    """`RAY_AUTH_MODE` and `RAY_AUTH_TOKEN` of a process; where its title has been written over them, of its parent."""
    while pid > 1:
        entries = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        own = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        if "RAY_AUTH_TOKEN" in own and "RAY_AUTH_MODE" in own:
            return own["RAY_AUTH_MODE"], own["RAY_AUTH_TOKEN"]
        pid = parents[pid]
    return "", ""


def listening(pid: int) -> set[str]:
    """Where a process listens: `loopback` or `all`, with nothing of the port."""
    open_files = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            open_files.add(os.readlink(descriptor))
        except OSError:
            continue  # closed since
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in open_files:
                found.add("loopback" if fields[1].partition(":")[0] in LOOPBACK else "all")
    return found


def name_of(pid: int) -> str:
    """Of which kind a process of Ray is."""
    words = [Path(word).name for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    return next((w for w in words if w.endswith(".py")), words[0]).split(" ")[0]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's files of this test alone; the paths of its sockets may be 107 characters long."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def anyone() -> Iterator[None]:
    """No choice of Ray's mode but the sweep's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        yield


def test_sockets_of_a_sweep_want_its_token_and_no_secret_is_written(
    bench: Bench, ray_folder: Path, anyone: None
) -> None:
    planted = {name: secrets.token_hex(16) for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "login")}
    env = {**{name: value for name, value in planted.items() if name != "login"}, "RAY_TMPDIR": str(ray_folder)}
    server = f"127.0.0.1:{free_port()}"
    bench.fault("wait", go=str(bench.go))
    sweep = bench.start(f"mlflow=http://somebody:{planted['login']}@{server}", env=env)
    bench.wait_for_fault(sweep)
    found, parents = {}, parents_of_all()
    for pid in children(sweep.process.pid, parents):
        if where := listening(pid):
            found[pid] = (name_of(pid), where)
    token = ""
    for pid, (name, where) in found.items():
        print(f"{name} listens: {', '.join(sorted(where))}")
        if "all" in where and pid != sweep.process.pid:
            mode, token = mode_and_token(pid, parents)
            assert mode == "token", name
    assert token, "no process of Ray listens beyond this machine: the table is another one"
    bench.go.touch()
    sweep.end(0)
    until("Ray has ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in found), limit_s=60)

    words = ["export-mlflow", f"store={bench.store}", f"mlflow=sqlite:///{bench.folder}/mlflow.db"]
    subprocess.run([sys.executable, "-m", "harness.store", *words], check=True, capture_output=True)
    written = {p: p.read_bytes() for p in [*bench.folder.rglob("*"), *ray_folder.rglob("*")] if p.is_file()}
    assert bench.folder / "mlflow.db" in written
    assert any(p.name.startswith("gcs_server") for p in written), "Ray's logs are elsewhere"
    written[Path("what the sweep printed")] = sweep.text().encode()
    for what, secret in {**planted, "token of Ray": token}.items():
        held = [str(p) for p, content in written.items() if secret.encode() in content]
        assert held == [], f"{what} stands in {held}"


@pytest.mark.parametrize(
    "command",
    ["sweep {sweep} store={store} ray=off mlflow=off", "sweep status store={copy}",
     "train {train} store={store} ray=off", "evaluate run={key} split=val store={copy}",
     "predict run={key} images={photos} out={store} store={copy}",
     "store verify store={copy}", "store export-mlflow store={copy} mlflow=sqlite:///{store}.db",
     "leaderboard store={copy}", "page store={copy} out={store}.html", "data check data=shapes", "cluster token",
     "files"],
)  # fmt: skip
def test_other_commands_listen_nowhere(
    tmp_path: Path, whole: Callable[[Mapping[str, str]], Path], command: str
) -> None:
    copy, photos = tmp_path / "copy", tmp_path / "photos"
    shutil.copytree(whole({}), copy)
    photos.mkdir()
    Image.new("RGB", (48, 48), (90, 120, 60)).save(photos / "a.png")
    swept = words({})
    one_run = ("methods", "seeds", "trials", "search")
    train = ["method=cam", *(word for word in swept if word.partition("=")[0] not in one_run)]
    key = load(copy).runs["key"][0]
    given = command.format(
        sweep=" ".join(swept), train=" ".join(train), store=tmp_path / "store", copy=copy, photos=photos, key=key
    )
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *given.split()], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "OPEN" not in done.stderr
