"""The nodes of a cluster: whether each sees the store and has the driver's code, told before anything runs there."""

from __future__ import annotations

import platform
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
from harness.errors import BadInput, Problem
from harness.files import discard, file_digest

ANSWER_S = 120.0
"""A node takes seconds to start a process and to import; a loaded one more."""
SEE_S = 5.0
"""For a file that another node has just written to appear over NFS."""
DISTRIBUTION = "wsss-harness"


class UnfitNode(Exception):
    """A node that cannot take runs of this sweep; says why."""


@dataclass(frozen=True)
class Home:
    """What the driver has, and every node must have too."""

    mark: str
    """A file in the store that the driver has just written, and what it holds."""
    text: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Home:
        """From its JSON."""
        return cls(values["mark"], values["text"], dict(values["versions"]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def versions() -> dict[str, str]:
    """Versions of Python, the harness and what it requires, and the lock file, as far as they are there."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "harness": harness.__version__}
    lock = Path(harness.__file__).parents[1] / "uv.lock"
    found["uv.lock"] = file_digest(lock)[:12] if lock.is_file() else "none"
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        # Run from a checkout that is not installed: the lock file says all.
        required = []
    for name in (re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def unfit(home: Home, wait_s: float = SEE_S) -> str:
    """Why this machine cannot take runs of the driver that `home` is of; empty where it can."""
    mine = versions()
    other = [f"{n} {mine.get(n, 'none')} instead of {v}" for n, v in home.versions.items() if mine.get(n, "none") != v]
    if other:
        return f"it has {', '.join(other)}"
    until = time.monotonic() + wait_s
    while True:
        try:
            if Path(home.mark).read_text(encoding="utf-8") == home.text:
                return ""
            why = "another folder lies there"
        except OSError as error:
            why = (error.strerror or str(error)).lower()
        if time.monotonic() >= until:
            store = Path(home.mark).parents[1]
            return f"it does not see the store {store} of this driver ({why})"
        time.sleep(0.2)


@contextmanager
def marked(store_root: Path) -> Iterator[Home]:
    """While this lasts, a mark lies in the store by which nodes know that they see it."""
    work = store_root.absolute() / "work"
    work.mkdir(parents=True, exist_ok=True)
    text = secrets.token_hex(8)
    mark = work / f".seen-{text}"
    mark.write_text(text, encoding="utf-8")
    try:
        yield Home(str(mark), text, versions())
    finally:
        discard(mark)


def problem_of(node: str, why: str) -> Problem:
    """What the user reads of a node that cannot take runs."""
    fix = "mount the folder of the store there at the same path"
    if "instead of" in why:
        fix = "`bash docs/cluster/node.sh environment` there, with the project and lock file of the driver"
    if "No module named" in why:
        fix = "the project and its environment on every node: `bash docs/cluster/node.sh environment`"
    return Problem(f"node {node}", why, fix)


def check_nodes(home: Home) -> None:
    """Raises BadInput with every node of the connected cluster that cannot take runs, or does not answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(unfit)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(home): node
        for node in ray.nodes()
        if node["Alive"]
    }
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    problems = [problem_of(name_of(asked[r]), f"has not answered for {ANSWER_S:.0f} s") for r in silent]
    for reference in done:
        try:
            why = ray.get(reference)
        except ray.exceptions.RayError as error:
            why = f"cannot run the harness: {last_line(error)}"
        if why:
            problems.append(problem_of(name_of(asked[reference]), why))
    if problems:
        raise BadInput(sorted(problems, key=lambda p: p.where))


def name_of(node: Mapping[str, Any]) -> str:
    """A node as its user knows it."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def last_line(error: BaseException) -> str:
    """What an error of Ray says in the end, below the traceback of the other process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
