"""`ray up` on three machines, a sweep with a power-off in its middle, `ray down`: `pytest -m cluster tests/cluster`.

The machines are made of this one (`hosts.py`), so it takes root; their environment is that of the tests, seen through
an overlay. What is typed and what is printed lands in `transcript.txt` in pytest's folder of the test, whose path it
prints. Minutes on two free cores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from hosts import Host, Hosts, missing

import harness.store as store

ROOT = Path(__file__).parents[2]
BIN = Path(sys.prefix) / "bin"
WORDS = (
    "methods=pce,ema labels=points data=shapes data.n_train=16 data.n_val=4 data.n_test=4 crop=48 batch=4 group=2 "
    "iterations=40 checkpoint_every=10 trials=1 seeds=2 threads=1 search=rules gpus=0 mlflow=off"
)
"""Four runs: two methods, two seeds."""
SLOW = 10 if os.environ.get("CI") else 40
"""Seconds of a free machine times this are waited for: hosts share its cores."""
pytestmark = pytest.mark.cluster


class Shell:
    """The machine that a person types at, and the record of it."""

    def __init__(self, home: Path, record: Path):
        self.home, self.record = home, record
        self.env = {
            "HOME": str(home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def note(self, text: str) -> None:
        with self.record.open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n")

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def end(
        self, process: subprocess.Popen[str], shown: str, code: int = 0, keep: str = "", since: str = "", to: str = ""
    ) -> str:
        """Waits for a command; records it with those lines that `keep` matches, from one that `since` matches up to
        one that `to` does, as at a home of its own."""
        said, _ = process.communicate(timeout=60 * SLOW)
        lines = [LOGGED.sub("", line) for line in plain(said).splitlines() if not LIVE.search(line)]
        first = next((i for i, line in enumerate(lines) if re.match(since, line)), 0)
        last = next((i for i, line in enumerate(lines) if to and re.match(to, line)), len(lines))
        lines = lines[first:last]
        record = "\n".join(
            [f"$ {shown}", *(line for line in lines if line and (not keep or re.search(keep, line))), ""]
        )
        self.note(record.replace(str(self.home), "~").replace("~/local.yaml", "local.yaml"))
        assert process.returncode == code, f"{shown}: rc {process.returncode}\n{said[-6000:]}"
        return plain(said)

    def run(self, *command: str, code: int = 0, keep: str = "") -> str:
        return self.end(self.start(*command), " ".join(command).replace(str(BIN) + "/", ""), code, keep)


LIVE = re.compile(r"^ ?\S+  (trial|final) \d+  |^ +\S+ +\d+/\d+  |runs closed|^ *study +closed")
"""Rows of the progress display, which are drawn again every second."""
LOGGED = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+\s+\w+ \S+ -- ")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def wait(what: str, seconds: float, true) -> None:
    until = time.monotonic() + seconds * SLOW
    while not true():
        assert time.monotonic() < until, f"{what}: not within {seconds * SLOW:.0f} s"
        time.sleep(1.0)


def equip(host: Host) -> None:
    """What a machine of one's own has before `ray up`: Python, uv with its cache, an environment."""
    lines = [
        f"export PATH={sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "export UV_OFFLINE=1 UV_LINK_MODE=symlink UV_COMPILE_BYTECODE=0 OMP_NUM_THREADS=1",
        # Machines of one core each: what runs on them shares those of this one.
        """export RAY_OVERRIDE_RESOURCES='{"CPU": 1}'""",
    ]
    home = host.root / "root"
    (home / ".bashrc").write_text("\n".join(lines) + "\n")
    (home / ".profile").write_text("")
    (home / ".bash_profile").unlink(missing_ok=True)
    (home / "wsss-harness").mkdir()
    (home / "wsss-harness/.venv").symlink_to(sys.prefix)


def fill_cache(folder: Path) -> None:
    """Puts into uv's cache what the extra `cluster` needs and the tests' environment lacks: hosts have no network."""
    uv = [shutil.which("uv") or f"{sys.base_prefix}/bin/uv"]
    asked = ["export", "--frozen", "--extra", "cluster", "--no-dev", "--no-emit-project", "--no-hashes", "-q"]
    listed = subprocess.run([*uv, *asked], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    here = {re.sub(r"[-_.]+", "-", d.name).lower() for d in metadata.distributions()}
    lines = [x for x in listed.splitlines() if "==" in x and x.split("==")[0] not in here]
    (folder / "lacking.txt").write_text("\n".join(lines))
    into = ["pip", "install", "-q", "--no-deps", "--python", sys.executable, "--target", str(folder / "lacking")]
    done = subprocess.run([*uv, *into, "-r", str(folder / "lacking.txt")], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"uv's cache lacks packages and cannot get them: {done.stderr.strip().splitlines()[-1]}")


def joined(head: Host) -> int:
    """Machines, of one core each, that the head knows."""
    said = head.run(f"RAY_AUTH_MODE=token {BIN}/ray status", timeout=120).stdout
    return max((int(n) for n in re.findall(r"/(\d+)\.0 CPU", said)), default=0)


def listening(host: Host) -> dict[int, set[str]]:
    """Addresses at which a machine takes connections, by port."""
    found: dict[int, set[str]] = {}
    for line in host.run("ss -Hltn", timeout=120).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.setdefault(int(port), set()).add(address)
    return found


def rows(folder: Path) -> list[tuple[str, str]]:
    if not folder.is_dir():
        return []
    return store.load(folder, ["runs"]).runs.select("key", "status").rows()


def scores(folder: Path) -> list[tuple[object, ...]]:
    """Every count of every run."""
    return sorted(store.load(folder, ["counts"]).counts.rows())


@pytest.fixture
def hosts(tmp_path):
    if why := missing():
        pytest.skip(f"hosts cannot be made here: {why}")
    fill_cache(tmp_path)
    with Hosts(3) as made:
        for host in made.all:
            equip(host)
        yield made


def test_ray_up_a_sweep_with_a_power_off_ray_down(hosts, tmp_path):
    home, record = tmp_path / "home", tmp_path / "transcript.txt"
    home.mkdir()
    shell = Shell(home, record)
    print(f"transcript: {record}")
    text = (ROOT / "docs/cluster/local.yaml").read_text()
    for word, value in {
        "HEAD-FILL-IN": hosts.all[0].address,
        "WORKER-1-FILL-IN": hosts.all[1].address,
        "WORKER-2-FILL-IN": hosts.all[2].address,
        "USER-FILL-IN": "root",
        "~/.ssh/id_ed25519": str(hosts.key),
    }.items():
        text = text.replace(word, value)
    file = home / "local.yaml"
    file.write_text(text)
    shared = hosts.shared / "results"

    shell.run(str(BIN / "wsss"), "cluster", "token")
    shell.run(str(BIN / "wsss"), "cluster", "check", f"file={file}")
    shell.run(str(BIN / "ray"), "up", "-y", str(file), keep=r"New status|Ray runtime started")
    wait("Ray on all machines", 30, lambda: joined(hosts.all[0]) == 3)
    shell.note("(Ray runs on all three machines)\n")
    open_to = listening(hosts.all[0])
    assert open_to[8265] == {"127.0.0.1"}, "the dashboard and Jobs are for this machine alone"
    assert {6379, 10001} <= set(open_to), open_to
    assert [port for port in open_to if port <= 1024] == [22], open_to

    line = f"cd ~/wsss-harness && RAY_AUTH_MODE=token wsss sweep {WORDS} store=/shared/results address=auto"
    execute = [str(BIN / "ray"), "exec", str(file), line]
    shown = f"ray exec local.yaml '{line}'"

    hosts.all[1].run("mount -t tmpfs tmpfs /shared", timeout=120)
    # What runs there ends with 2; `ray exec` itself knows but 0 and 1.
    said = shell.end(shell.start(*execute), shown, code=1, keep=r"^(error|    fix)")
    assert f"node host2 ({hosts.all[1].address}): it does not see the store /shared/results" in said
    assert len([x for x in said.splitlines() if x.startswith("error:")]) == 1
    assert rows(shared) == [], "nothing has run"
    hosts.all[1].run("umount /shared", timeout=120)

    sweep = shell.start(*execute)
    running: list[str] = []

    def trains_on_a_worker() -> bool:
        assert sweep.poll() is None, sweep.communicate()[0][-6000:]
        beats = [json.loads(p.read_text()) for p in shared.glob("work/*/progress.json")]
        running[:] = [b["host"] for b in beats if b.get("stage") == "train" and 10 <= b.get("step", 0) < 36]
        return bool(set(running) & {"host2", "host3"})

    wait("a run that trains on a worker", 60, trains_on_a_worker)
    victim = next(h for h in hosts.all[1:] if f"host{h.index}" in running)
    victim.kill()
    shell.note(f"(in the middle of what follows host{victim.index} is powered off, while a run trains on it)\n")
    again = tmp_path / "undisturbed"
    alone = [str(BIN / "wsss"), "sweep", *WORDS.split(), f"store={again}", "ray=off"]
    undisturbed = shell.start(*alone)  # while Ray waits for the machine
    said = shell.end(sweep, shown, since="sweep ", to="Where to look next")
    # A terminal breaks its lines.
    assert "its machine went away, the run starts again from its newest checkpoint" in " ".join(said.split())
    assert "(raylet)" not in said
    done = rows(shared)
    assert len(done) == len({key for key, _ in done}) == 4, done
    assert {status for _, status in done} == {"done"}

    submit = f"RAY_AUTH_MODE=token ray job submit --address http://127.0.0.1:8265 -- bash -c '{line}'"
    job = shell.start(str(BIN / "ray"), "exec", str(file), submit)
    kept = r"submitted successfully|' succeeded|trial 0 is done"
    said = shell.end(job, f'ray exec local.yaml "{submit}"', keep=kept)
    assert re.search(r"Job 'raysubmit_\w+' succeeded", said), said[-6000:]
    assert rows(shared) == done, "the same command as a job of Ray makes nothing again"

    shell.run(str(BIN / "ray"), "down", "-y", str(file), keep=r"Destroy|\d/\d stopped|Requested|No nodes")
    alive = [h for h in hosts.all if h is not victim]
    wait("Ray to be gone", 10, lambda: all(h.run("pgrep -x raylet", timeout=120).returncode for h in alive))
    shell.note("(no process of Ray is left)")

    shell.end(undisturbed, f"wsss sweep {WORDS} store=undisturbed ray=off", keep=r" seed \d: ")
    assert sorted(rows(again)) == sorted(done)
    assert scores(again) == scores(shared), "the power-off changed a number"
    shell.note("(every count of every run is the same)")
