"""The stage that writes CAM and pseudo-mask scores of the scored images to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.engine.checkpoint import Artifact
from harness.engine.context import Context
from harness.engine.inference.predictions import MAPS, ScoreMaps, batches, predict
from harness.engine.stages.stage import Stage
from harness.errors import StoreError
from harness.files import atomic


def _write_cams(context: Context, inputs: Mapping[str, Artifact], folder: Path) -> None:
    method = context.trained(inputs["weights"])
    method.eval()
    out = folder / "cams"
    out.mkdir(parents=True, exist_ok=True)
    wanted = frozenset(t for t in context.run.chosen.targets if t in MAPS)
    ids = sorted(set(context.splits.tune) | set(context.splits.report))
    mine = ids[context.session.rank :: context.session.world_size]
    done = 0
    with context.phases.of("stages"):
        for chunk in batches(mine):
            context.report_progress("write-cams", done, len(mine))
            done += len(chunk)
            maps, _ = predict(context.scorer(), method, chunk, [], wanted, "student")
            for image_id, found in zip(chunk, maps, strict=True):
                _write_maps(out / f"{image_id.replace('/', '~')}.npz", found)


def _write_maps(path: Path, maps: ScoreMaps) -> None:
    try:
        # Forced to the disk all at once, before the stage says that it is done.
        with atomic(path, sync=False) as tmp, open(tmp, "wb") as f:
            np.savez(f, allow_pickle=False, classes=maps.classes, **dict(maps.scores))
    except OSError as e:
        raise StoreError(f"{path} could not be written: {e}; free space and run the same command again") from e


WRITE_CAMS = Stage(
    name="write-cams",
    run=_write_cams,
    inputs=("weights",),
    outputs={"cams": "cams"},
    reads=("method", "variant", "knobs", "crop", "precision", "dataset", "masks", "options"),
)
