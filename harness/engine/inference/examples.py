"""Example predictions of a run as pictures: image, truth, and what the method makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.api.images import Maps
from harness.api.vocabulary import IGNORE
from harness.datasets.io.colours import PALETTE
from harness.datasets.io.image_files import labels_at, read
from harness.engine.context import Context
from harness.engine.inference.predictions import predict
from harness.engine.inference.sources import source_of
from harness.files import file_digest

EXAMPLES = 4
GAP = 4
"""White pixels between panels."""


def write_examples(context: Context) -> list[dict[str, Any]]:
    """Pictures of evenly spaced images of the reported split, as rows of `artifacts` (kind `example`).

    Panels: image, truth, CAM labels at the preset's threshold, segmentation; those that the method makes. The PNG's
    `Description` names image and panels.
    """
    ids = context.splits.report
    picked = [ids[i] for i in np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).astype(int)]
    folder = context.store.root / "pictures" / context.key
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n, image_id in enumerate(dict.fromkeys(picked)):
        panel, caption = _panel(context, image_id)
        path = folder / f"example-{n}.png"
        said = PngInfo()
        said.add_itxt("Description", f"{image_id}: {caption}")
        Image.fromarray(panel).save(path, pnginfo=said)
        rows.append(
            {
                "key": context.key,
                "kind": "example",
                "path": str(path.relative_to(context.store.root)),
                "digest": file_digest(path),
            }
        )
    return rows


def _panel(context: Context, image_id: str) -> tuple[NDArray[np.uint8], str]:
    image = context.dataset.image(image_id)
    truth = context.dataset.mask(image_id)
    size = (int(truth.shape[0]), int(truth.shape[1]))
    parts, named = [image, PALETTE[truth]], ["image", "truth"]
    sources = {t: source_of(context, t) for t in context.recipe.targets if t != "pseudo"}
    maps: list[Maps] = []
    labels: list[NDArray[np.uint8]] = []
    asked: dict[int, list[str]] = {}
    for target, source in sources.items():
        if source.network is not None:
            asked.setdefault(id(source.network), []).append(target)
        elif target == "cam" and source.files is not None:
            maps = [read(source.files, image_id)]
    for some in asked.values():
        source = sources[some[0]]
        assert source.network is not None
        found, segmented = predict(source.scorer, source.network, [image_id], [size], frozenset(some), "student")
        maps, labels = maps or found, labels or segmented
    if "cam" in sources:
        threshold = context.run.cam_threshold
        parts.append(PALETTE[labels_at(maps[0], "cam", size, threshold, context.dataset.has_background)])
        named.append(f"CAM at threshold {threshold:g}" if context.dataset.has_background else "CAM")
    parts.extend(PALETTE[label] for label in labels)
    named += ["segmentation"] * len(labels)
    parts = [
        np.where((truth == IGNORE)[..., None], (p * 0.5 + 112).astype(np.uint8), p) if i > 1 else p
        for i, p in enumerate(parts)
    ]
    gap = np.full((size[0], GAP, 3), 255, np.uint8)
    row = [parts[0]]
    for part in parts[1:]:
        row += [gap, part]
    return np.concatenate(row, axis=1), " | ".join(named)
