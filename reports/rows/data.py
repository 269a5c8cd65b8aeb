"""What the runs of a row were trained on and reported on: rows that differ in it are never ranked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.store.rows import json_object


@dataclass(frozen=True)
class Data:
    """Digests of a row's data, empty where the store does not say, and the words that chose it."""

    train: str = ""
    """Training images with their tags and masks."""
    weak: str = ""
    """Sparse labels that were read from files; their path in stores that know no digest of them."""
    report: str = ""
    """Images, tags and masks of the split that the row shows."""
    images: str = ""
    """Pixels of all that was trained and scored on; empty for runs from before they were recorded."""
    density: str = ""
    """How much its sparse labels label, in words; empty where the store does not say."""
    options: tuple[tuple[str, str], ...] = ()
    """Words `data.<name>` and their values as they were given, by name."""

    @property
    def trained_on(self) -> tuple[str, str]:
        """Training images and all labels of theirs."""
        return self.train, self.weak

    @property
    def labels(self) -> tuple[str, str, str]:
        """All but the pixels."""
        return self.train, self.weak, self.report

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What rows of one section share."""
        return *self.labels, self.images

    def may_be(self, other: Data) -> bool:
        """Whether results of unknown training (another program's) or pixels may be of the data of `other`."""
        if self.train:
            return not self.images and self.labels == other.labels
        return not self.report or not other.report or self.report == other.report


def data_of(run: Mapping[str, Any], *, reported: bool = True) -> Data:
    """The data of a run; `reported`: whether the split in question is the one that it was planned to report."""
    found = from_json(run["split_fingerprints"])
    config = from_json(run["config"])
    words = {str(k): str(v) for k, v in dict(config.get("options") or {}).items() if v is not None}
    if config.get("masks"):
        words["masks"] = str(config["masks"])
    sparse = run["supervision"] not in ("tags", "masks")
    weak = str(found.get("weak") or words.get("weak") or "") if sparse else ""
    report = str(found.get("report") or "") if reported else ""
    images = str(found.get("images") or "") if reported else ""
    density = str(found.get("density") or "") if sparse else ""
    return Data(str(found.get("train") or ""), weak, report, images, density, tuple(sorted(words.items())))


def pixels_unknown(run: Mapping[str, Any]) -> bool:
    """Whether a run of ours was trained before pixels were recorded; those of generated pictures are known."""
    found = from_json(run["split_fingerprints"])
    return bool(found.get("train")) and "images" not in found and run["dataset"] != "shapes"


def sorted_apart(data: Sequence[Data]) -> list[int]:
    """A group number for each of several rows. One of unknown training or pixels stands with the only data that it may
    be of, and where there are several, with its like."""
    trained = {d.kind: d for d in data if d.train}
    whole = [d for d in trained.values() if d.images]
    known = {kind: d for kind, d in trained.items() if not any(d.may_be(other) for other in whole)}
    numbers = {kind: n for n, kind in enumerate(known)}
    out = []
    for d in data:
        fits = [] if d.kind in known else [kind for kind, other in known.items() if d.may_be(other)]
        out.append(numbers.setdefault(fits[0] if len(fits) == 1 else d.kind, len(numbers)))
    return out


def differences(data: Sequence[Data], images: Sequence[str]) -> list[str]:
    """For each of several sections of one heading, in words, what tells it from the others; empty for one section.

    `images`: digests of the images that they were scored on.
    """
    if len(data) < 2:
        return [""] * len(data)
    given = [dict(d.options) for d in data]
    names = sorted({n for words in given for n in words if len({w.get(n) for w in given}) > 1})
    texts = [[f"data.{n} {words.get(n, 'default')}" for n in names] for words in given]
    digests = (
        ("training data", [d.train[:8] for d in data]),
        ("sparse labels", [d.weak[-8:] for d in data]),
        ("reported data", [d.report[:8] for d in data]),
        ("pixels", [d.images[:8] for d in data]),
        ("images", [digest[:8] for digest in images]),
    )
    for name, values in digests:
        told = len({tuple(t) for t in texts}) == len(texts)
        if not told and len(set(values)) > 1:
            texts = [[*t, f"{name} {v or 'unknown'}"] for t, v in zip(texts, values, strict=True)]
    return [" · ".join(t) for t in texts]


def from_json(text: str | None) -> dict[str, Any]:
    """A JSON object of the store; empty where there is none. Raises StoreError where it is no such thing."""
    return json_object(text, f"{(text or '')[:40]!r} in the table runs")
