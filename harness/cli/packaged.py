"""Files that travel with the harness: its plans, and the example of a cluster's configuration."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_WHEEL = _PACKAGE / "packaged"
_CHECKOUT = _PACKAGE.parent


def plans() -> dict[str, Path]:
    """The plan files of the harness by name, whether it runs from a checkout or from a wheel."""
    folder = _WHEEL / "plans" if _WHEEL.is_dir() else _CHECKOUT / "docs" / "plans"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def cluster_file() -> Path:
    """The example for `ray up`."""
    return (_WHEEL if _WHEEL.is_dir() else _CHECKOUT) / "cluster.yaml"
