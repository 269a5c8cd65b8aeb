"""Several machines made of this one: each with a network, files, processes and an sshd of its own.

A host is a network namespace on a bridge, with an overlay over `/` (what it writes is its own, in memory), a process
tree that ends with one signal, and a folder `/shared` that all of them see. Root, Linux with overlayfs, iproute2,
util-linux, OpenSSH and rsync are needed; `missing()` says what of it is not there. Nothing of it outlives `Hosts`.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = os.environ.get("HOSTS_NETWORK", "10.78.0")
"""Of these machines; another one for each set of them that is there at a time, `10.79.0` for instance."""
TAG = NETWORK.split(".")[1]
BRIDGE = f"wsbridge{TAG}"
PREFIX = f"wsss-hosts-{TAG}-"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
OWN = ("dev", "tmp", "run")
"""Folders of `/` of which each host has its own."""
COMMANDS = ("ip", "unshare", "chroot", "mount", "umount", "ssh", "ssh-keygen", "rsync")
SSHD = "/usr/sbin/sshd"
SLOW_LINK = Path(__file__).with_name("slow_link.py")
SSH = ("-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10")


def missing() -> str:
    """What this machine lacks for hosts, in words; empty where it has all."""
    if os.name != "posix" or os.geteuid() != 0:
        return "not root"
    lacking = [name for name in COMMANDS if shutil.which(name) is None] + [SSHD] * (not Path(SSHD).is_file())
    if lacking:
        return f"no {', '.join(lacking)}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "no overlayfs"
    if own := [place for place in OWN if Path(sys.prefix).is_relative_to(f"/{place}")]:
        return f"each host has a /{own[0]} of its own, and Python's environment lies there: {sys.prefix}"
    tried = subprocess.run(["unshare", "-m", "-n", "-p", "-f", "true"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"no namespaces may be made ({tried.stderr.strip()})"


def with_parent() -> None:
    """In a new process: ends it with its parent, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def clear() -> None:
    """Takes away what hosts of a run that was itself killed have left: networks, mounts and files."""
    for name in re.findall(rf"^wsnet{TAG}-\d+", sh("ip", "netns", "list"), re.M):
        sh("ip", "netns", "del", name, check=False)
    for name in set(re.findall(rf"wsslow{TAG}-\d+", sh("ip", "link", "show"))):
        sh("ip", "link", "del", name, check=False)
    sh("ip", "link", "del", BRIDGE, check=False)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed([m for m in mounts if f"/{PREFIX}" in m]):
        sh("umount", "-l", place, check=False)
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def sh(*command: str | Path, check: bool = True) -> str:
    """Runs a command of the outer machine; returns what it prints."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}"
    return done.stdout


class Host:
    """One of the machines."""

    def __init__(self, index: int, folder: Path, shared: Path, key: Path):
        self.index, self.folder, self.key = index, folder, key
        self.address = f"{NETWORK}.{index + 1}"
        self.root = folder / "root"
        self._net, self._link = f"wsnet{TAG}-{index}", f"wslink{TAG}-{index}"
        self._process: subprocess.Popen[bytes] | None = None
        self._mount(shared)

    def _mount(self, shared: Path) -> None:
        memory, root = self.folder, self.root
        memory.mkdir()
        sh("mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", memory)
        for name in ("upper", "work", "root"):
            (memory / name).mkdir()
        layers = f"lowerdir=/,upperdir={memory / 'upper'},workdir={memory / 'work'}"
        sh("mount", "-t", "overlay", "overlay", "-o", layers, root)
        for place in OWN:
            sh("mount", "-t", "tmpfs", "tmpfs", root / place)
        for device in DEVICES:
            (root / "dev" / device).touch()
            sh("mount", "--bind", f"/dev/{device}", root / "dev" / device)
        for place in ("dev/pts", "dev/shm", "run/sshd", "shared", "root/.ssh"):
            (root / place).mkdir(parents=True, exist_ok=True)
        sh("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620", "devpts", root / "dev/pts")
        sh("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", root / "dev/shm")
        (root / "dev/ptmx").symlink_to("pts/ptmx")
        (root / "dev/fd").symlink_to("/proc/self/fd")
        sh("mount", "--bind", shared, root / "shared")
        keys = root / "root/.ssh/authorized_keys"
        keys.write_bytes(self.key.with_suffix(".pub").read_bytes())
        keys.chmod(0o600)
        (root / "root/.ssh").chmod(0o700)

    def boot(self) -> None:
        """Starts the machine; its files are as they were."""
        sh("ip", "netns", "add", self._net)
        sh("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._net)
        sh("ip", "link", "set", self._link, "master", BRIDGE, "up")
        # Ray finds a machine's own address by its route to the internet, which leads nowhere here.
        up = (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up")
        for words in (*up, f"route add default via {NETWORK}.1"):
            sh("ip", "-n", self._net, *words.split())
        options = (
            "PermitRootLogin=yes", "PasswordAuthentication=no", "UsePAM=no", f"ListenAddress={self.address}",
            "PidFile=/run/sshd.pid", "MaxStartups=100",
        )  # fmt: skip
        sshd = " ".join([SSHD, "-D", "-e", *(f"-o {o}" for o in options)])
        inside = f"hostname host{self.index}; exec {sshd}"
        apart = ["unshare", "-m", "-p", "-u", "-i", "-f", "--kill-child", f"--mount-proc={self.root}/proc"]
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._net, *apart, "chroot", str(self.root), "sh", "-c", inside],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=with_parent,
            )  # fmt: skip
        until = time.monotonic() + 60
        while self.run("true").returncode != 0:
            said = (self.folder / "sshd.log").read_text()
            assert time.monotonic() < until, f"host {self.index} did not start: {said}"
            time.sleep(0.5)

    def kill(self) -> None:
        """Power off: every process of it ends at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        sh("ip", "netns", "del", self._net, check=False)
        sh("ip", "link", "del", self._link, check=False)

    def cut(self) -> None:
        """Unplugs the network."""
        sh("ip", "link", "set", self._link, "down")

    def join(self) -> None:
        """Plugs it in again."""
        sh("ip", "link", "set", self._link, "up")

    @contextmanager
    def slow(self, milliseconds: int) -> Iterator[None]:
        """While this lasts, what it receives comes later."""
        name = f"wsslow{TAG}-{self.index}"
        words = [sys.executable, str(SLOW_LINK), BRIDGE, name, self._link, str(milliseconds)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=with_parent) as carrier:
            try:
                assert carrier.stdout is not None
                assert carrier.stdout.readline() == b"slow\n", f"host {self.index} could not be made slow"
                yield
            finally:
                carrier.kill()
                sh("ip", "link", "set", self._link, "master", BRIDGE, check=False)
                sh("ip", "link", "del", name, check=False)

    def ssh(self, command: str) -> list[str]:
        """The words that run a command on it."""
        return ["ssh", "-i", str(self.key), *SSH, f"root@{self.address}", command]

    def run(self, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command on it."""
        return subprocess.run(self.ssh(command), capture_output=True, text=True, timeout=timeout)

    def remove(self) -> None:
        """Ends it, files and all."""
        self.kill()
        sh("umount", "-lR", self.root, check=False)
        sh("umount", "-l", self.folder, check=False)


class Hosts:
    """Machines from here to the end of a `with` block."""

    def __init__(self, n: int):
        clear()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.shared = self.folder / "shared"
        self.key = self.folder / "key"
        self.all: list[Host] = []
        self._n = n

    def __enter__(self) -> Hosts:
        try:
            self.shared.mkdir()
            # No sshd of the outer machine runs, but its folder and keys are those of every host.
            Path("/run/sshd").mkdir(exist_ok=True)
            sh("ssh-keygen", "-A")
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
            sh("ip", "link", "add", BRIDGE, "type", "bridge")
            sh("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
            sh("ip", "link", "set", BRIDGE, "up")
            for index in range(1, self._n + 1):
                host = Host(index, self.folder / f"host{index}", self.shared, self.key)
                self.all.append(host)
                host.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.all:
            host.remove()
        clear()
