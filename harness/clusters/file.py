"""The file that `ray up` starts a cluster from, and what the machines in it bring."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.datasets.io.opening import plain_bytes
from harness.errors import BadInput, Problem

ON_THE_HEAD = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the file on the head, with what it has filled in."""
LOCAL = "local"
"""Ray's provider for machines that one owns."""
Mapped = Mapping[str, Any]


@dataclass(frozen=True)
class NodeType:
    """Machines of one kind."""

    name: str
    at_most: int
    """How many of them the cluster may have at a time; the head is one."""
    cpus: float
    gpus: float
    """Of each."""
    labels: Mapping[str, str]

    def holds(self, cpus: float, gpus: float) -> int:
        """Workers of this size that these machines hold together; each lies on one of them."""
        each = math.floor(min(self.cpus / cpus, self.gpus / gpus if gpus else math.inf) + 1e-9)
        return self.at_most * each

    def __str__(self) -> str:
        kind = "".join(f", {name} {value}" for name, value in self.labels.items())
        return f"{self.at_most} {self.name} ({self.cpus:g} CPUs, {self.gpus:g} GPUs{kind})"


@dataclass(frozen=True)
class ClusterFile:
    """A cluster as its file has it; `types` is empty where the file leaves to the machines what they bring."""

    path: Path
    config: Mapped
    types: tuple[NodeType, ...]

    def holds(self, workers: int, cpus: float, gpus: float) -> int:
        """Runs that the cluster holds at a time when all its machines are there: workers of a run may lie apart."""
        return sum(t.holds(cpus, gpus) for t in self.types) // workers

    @property
    def has_gpus(self) -> bool:
        """Whether any machine of it has a GPU."""
        return any(t.gpus for t in self.types if t.at_most)

    def __str__(self) -> str:
        return f"at most {', '.join(map(str, self.types))}, by {self.path}"


def read_cluster_file(path: Path) -> ClusterFile:
    """The file at `path`. Raises BadInput where it is not there, is not YAML, or has no node types of a cluster."""
    where = str(path)
    try:
        config = yaml.safe_load(plain_bytes(path.expanduser()).decode("utf-8-sig"))
    except OSError as error:
        found = f"{where} cannot be read ({(error.strerror or str(error)).lower()})"
        raise BadInput(Problem("cluster", found, "cluster=<file that `ray up` was given>")) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        found = f"{where} is no YAML" + (f" (line {line + 1})" if line is not None else "")
        raise BadInput(Problem("cluster", found, "cluster=<file that `ray up` was given>")) from error
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        fix = "name the file that `ray up` was given; `wsss files` prints an example"
        raise BadInput(Problem("cluster", f"{where} has no provider: it is no cluster's file", fix))
    try:
        return ClusterFile(path, config, _types(config))
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        fix = "write them as `ray up` takes them: CPU, GPU and max_workers are numbers; `wsss files` prints an example"
        raise BadInput(Problem("cluster", f"{where}: its node types cannot be read ({error})", fix)) from error


def _types(config: Mapped) -> tuple[NodeType, ...]:
    """Node types with what each brings; none where the file does not say it of all of them."""
    found = []
    head = config.get("head_node_type")
    total = int(config.get("max_workers", 2))
    for name, node in (config.get("available_node_types") or {}).items():
        brings = node.get("resources") or {}
        if "CPU" not in brings:
            return ()
        at_most = 1 if name == head else min(int(node.get("max_workers", 0)), total)
        if at_most:
            labels = {str(k): str(v) for k, v in (node.get("labels") or {}).items()}
            found.append(NodeType(name, at_most, float(brings["CPU"]), float(brings.get("GPU", 0)), labels))
    return _within(found, head, total)


def _within(types: list[NodeType], head: str | None, total: int) -> tuple[NodeType, ...]:
    """Workers of several kinds share one limit: those with most GPUs and CPUs count first."""
    left, kept = total, []
    for t in sorted(types, key=lambda t: (-t.gpus, -t.cpus)):
        n = t.at_most if t.name == head else min(t.at_most, left)
        left -= 0 if t.name == head else n
        if n:
            kept.append(NodeType(t.name, n, t.cpus, t.gpus, t.labels))
    return tuple(kept)


def cluster_of(named: str | None) -> ClusterFile | None:
    """The file that words name, else the one that `ray up` left on this machine; None where there is neither.

    Raises BadInput for a named one that is not a cluster's, and for a damaged one.
    """
    path = Path(named) if named else ON_THE_HEAD
    if named is None and not path.expanduser().is_file():
        return None
    return read_cluster_file(path)
