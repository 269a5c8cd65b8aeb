"""What weights had learned from before a run: JSON in the column `runs.pretraining`, names alone in older stores."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from harness.errors import StoreError
from harness.store.rows import json_object

NONE = "none"
UNKNOWN = "not known"
GLYPHS = "glyphs"
"""The weights in the package: pictures of glyphs that a script draws, with their classes."""
LABELS, TEXT, MASKS, SELF = "labels", "text", "masks", "self-supervised"
HUB = "timm "
"""Before the names of timm's weights."""
BY_NAME = " (by its name)"
"""After data that only the name of somebody's file tells."""

_LEARNED: dict[str, tuple[str, str]] = {
    "in1k": ("ImageNet-1k", LABELS), "in12k": ("ImageNet-12k", LABELS),
    **dict.fromkeys(("in21k", "in22k", "inw21k"), ("ImageNet-21k", LABELS)),
    **dict.fromkeys(("dino", "mae", "fcmae"), ("ImageNet-1k", SELF)),
    "jft": ("JFT-300M", "pseudo labels"), "ig1b": ("IG-1B", "hashtags"), "yfcc100m": ("YFCC-100M", "pseudo labels"),
    "lvd142m": ("LVD-142M", SELF), "lvd1689m": ("LVD-1689M", SELF), "sa1b": ("SA-1B", MASKS),
    "openai": ("WIT-400M", TEXT), "laion400m": ("LAION-400M", TEXT), "laion2b": ("LAION-2B", TEXT),
    "webli": ("WebLI", TEXT), "yfcc15m": ("YFCC-15M", TEXT), "cc12m": ("CC-12M", TEXT),
    **dict.fromkeys(("datacomp1b", "datacompxl"), ("DataComp-1B", TEXT)),
    "dfn2b": ("DFN-2B", TEXT), "dfn5b": ("DFN-5B", TEXT),
}  # fmt: skip
"""Data and supervision by the word of timm's tags that stands for them: `augreg_in21k_ft_in1k`."""
_UNLABELLED = {"mim", "ijepa"}
"""Words of tags by which the data before `ft` were seen without their labels."""
_FINE_TUNED = "ft"
_BY_CLIP = ("beitv2", "eva")
"""Networks whose masked patches had CLIP's features as their targets: text came in with these."""


@dataclass(frozen=True)
class Pretraining:
    """Weights that training started from, and what they were trained on; an empty text where nobody knows."""

    weights: str = ""
    """Their name in tables; NONE for a random start."""
    data: str = ""
    """The pictures: `ImageNet-21k, ImageNet-1k`."""
    supervision: str = ""
    """What was known of these: labels, text, masks, self-supervised."""
    extra: str = ""
    """What came in beside pictures and their labels: text, masks, ..., or NONE."""
    networks: Mapping[str, Pretraining] = field(default_factory=dict)
    """Of further networks of the recipe that started from other weights, by name."""

    @property
    def kind(self) -> tuple[str, str, str]:
        """What tells sections of a ledger apart: data, supervision, extra data."""
        return self.data, self.supervision, self.extra

    @property
    def learned(self) -> str:
        """Data and supervision in words: `ImageNet-1k, labels`; NONE, UNKNOWN."""
        return ", ".join(dict.fromkeys(part for part in (self.data, self.supervision) if part)) or UNKNOWN

    @property
    def text(self) -> str:
        """All of it in words, the networks that differ behind it."""
        own = NONE if self.weights == NONE else f"{self.weights or UNKNOWN}: {self.learned}"
        more = "" if self.extra in ("", NONE) else f", extra data {self.extra}"
        return "; ".join([own + more, *(f"{name} {other.text}" for name, other in sorted(self.networks.items()))])

    def stored(self) -> str:
        """The column `pretraining`; `pretraining_of` is the inverse."""
        return json.dumps(self._plain())

    def _plain(self) -> dict[str, Any]:
        own = {"weights": self.weights, "data": self.data, "supervision": self.supervision, "extra": self.extra}
        networks = {name: other._plain() for name, other in self.networks.items()}
        return {**own, "networks": networks} if networks else own


@lru_cache(maxsize=1024)
def pretraining_of(text: str | None) -> Pretraining:
    """What the column `pretraining`, or the metadata `pretraining` of a file of weights, says: JSON, or a name.

    Raises StoreError for JSON of another kind.
    """
    if not (text or "").lstrip().startswith("{"):
        return named(text or "")
    return _from_plain(json_object(text, "what weights say of their pretraining"))


def _from_plain(values: Mapping[str, Any]) -> Pretraining:
    texts = {name: values.get(name, "") for name in ("weights", "data", "supervision", "extra")}
    networks = values.get("networks", {})
    if not all(isinstance(value, str) for value in texts.values()) or not isinstance(networks, dict):
        raise StoreError(f"pretraining {dict(values)!r:.200}: data, supervision and extra are texts")
    return Pretraining(**texts, networks={str(name): _from_plain(other) for name, other in networks.items()})


def named(weights: str) -> Pretraining:
    """What the name of weights tells: those of the package, timm's by their tag, a file by the same words in its name;
    nothing of other names."""
    if weights == NONE:
        return Pretraining(NONE, NONE, NONE, NONE)
    if weights == GLYPHS:
        return Pretraining(GLYPHS, GLYPHS, LABELS, NONE)
    hub = weights.startswith(HUB)
    name = weights.removeprefix(HUB).lower()
    stages: list[list[tuple[str, str]]] = [[]]
    unlabelled = False
    for word in re.split(r"[^a-z0-9]+", name.rpartition(".")[2] if hub else name):
        unlabelled |= word in _UNLABELLED and len(stages) == 1
        if word == _FINE_TUNED:
            stages.append([])
        elif word in _LEARNED:
            stages[-1].append(_LEARNED[word])
    if not all(stages):
        return Pretraining(weights)
    if unlabelled:
        stages[0] = [(data, SELF) for data, _ in stages[0]]
    data = ", ".join(dict.fromkeys(data for stage in stages for data, _ in stage)) + BY_NAME * (not hub)
    supervision = list(dict.fromkeys(how for stage in stages for _, how in stage))
    extra = dict.fromkeys([TEXT] * name.startswith(_BY_CLIP) + [how for how in supervision if how in (TEXT, MASKS)])
    return Pretraining(weights, data, ", ".join(supervision), ", ".join(extra) or NONE)
