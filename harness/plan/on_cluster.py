"""What a plan asks of a cluster: GPUs and room by the cluster's file, never by the machine that plans."""

from __future__ import annotations

from harness.cli.run_words import Words
from harness.clusters.file import ON_THE_HEAD, ClusterFile, cluster_of
from harness.errors import BadInput, Problem

SAY = "say gpus=1 or gpus=0, or cluster=<file that `ray up` was given>, with resources: {CPU: 8, GPU: 1} by node type"


def planned_cluster(words: Words, problems: list[Problem]) -> ClusterFile | None:
    """The file of the cluster at `address=`; None without one, and where no file is known."""
    if not words.elsewhere:
        if words.cluster is not None:
            problems.append(Problem("cluster", "is read only where address= names a cluster", "add address=auto"))
        return None
    try:
        return cluster_of(words.cluster)
    except BadInput as e:
        problems.extend(e.problems)
        return None


def gpus_of_cluster(words: Words, cluster: ClusterFile | None, problems: list[Problem]) -> float:
    """GPUs per worker: as asked for, or 1 where machines of the cluster have one.

    A problem where nothing says what they have: whoever plans may be a head without a GPU, or a laptop with one.
    """
    if words.gpus is not None:
        return words.gpus
    if cluster is not None and cluster.types:
        return 1.0 if cluster.has_gpus else 0.0
    if not any(p.where == "cluster" for p in problems):
        found = f"there is no {ON_THE_HEAD}" if cluster is None else f"{cluster.path} has no resources of node types"
        problems.append(Problem("gpus", f"nothing says what the machines at {words.address} have: {found}", SAY))
    return 0.0


def too_large(words: Words, cluster: ClusterFile, threads: int, gpus: float) -> list[Problem]:
    """A problem where no run of this size fits the cluster with all its machines."""
    if cluster.holds(words.workers, threads, gpus):
        return []
    found = f"{words.workers} worker(s) with {threads} thread(s) and {gpus:g} GPU(s) each never fit the cluster"
    return [Problem("workers", f"{found} ({cluster})", "lower workers, threads or gpus, or raise max_workers there")]
