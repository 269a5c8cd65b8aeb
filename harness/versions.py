"""Integer versions of the engine's own parts that can move scores; they go into a run's key."""

from __future__ import annotations

import importlib

from harness.spec import MethodSpec

LOOP = 1
SCORING = 1
FITTING = 1


def versions(*specs: MethodSpec | None) -> dict[str, int]:
    """Versions of loop, scoring, fitting, the methods and every module that these say they use."""
    found = {"loop": LOOP, "scoring": SCORING, "fitting": FITTING}
    for spec in specs:
        if spec is None:
            continue
        found[spec.name] = spec.version
        for module in spec.uses:
            found[module] = int(importlib.import_module(module).VERSION)
    return dict(sorted(found.items()))
