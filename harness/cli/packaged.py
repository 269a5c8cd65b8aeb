"""Files that travel with the harness: its plans, and the examples of clusters."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_WHEEL = _PACKAGE / "packaged"
_CHECKOUT = _PACKAGE.parent


def plans() -> dict[str, Path]:
    """The plan files of the harness by name, whether it runs from a checkout or from a wheel."""
    folder = _WHEEL / "plans" if _WHEEL.is_dir() else _CHECKOUT / "docs" / "plans"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def cluster_files() -> list[Path]:
    """The examples for clusters: `ray up` on AWS and on machines of one's own, SLURM, and what nodes run."""
    wheel = _WHEEL.is_dir()
    folder = _WHEEL / "cluster" if wheel else _CHECKOUT / "docs" / "cluster"
    return [(_WHEEL if wheel else _CHECKOUT) / "cluster.yaml", *sorted(p for p in folder.iterdir() if p.is_file())]
