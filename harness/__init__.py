"""Benchmarking and tuning of weakly and sparsely supervised semantic segmentation.

`harness.load_run(store, key)` gives a finished run's network; `harness.store.load(path)` every result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.prediction.loaded import load_run

__all__ = ["__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """What costs something to import, once it is asked for: `import harness` stays free of torch."""
    if name == "load_run":
        from harness.prediction.loaded import load_run

        return load_run
    if name == "__version__":
        from importlib.metadata import version

        return version("wsss-harness")
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
