"""The words of `python -m harness.cluster`."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cli.parsing import word


@dataclass
class ClusterWords:
    """Words of `python -m harness.cluster`."""

    file: str = word("cluster.yaml", "the file that `ray up` is given", "check", "prepare", "remove")
    delete: str | None = word(
        None, "id of the file system: it and all stores and datasets in it are deleted", "remove",
        example="delete=fs-0123456789abcdef0",
    )  # fmt: skip
