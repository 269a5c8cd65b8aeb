"""The stages of the recipes that follow IRN, by the knob `refine`. No torch here."""

from __future__ import annotations

from harness.api.recipe import PerImage, Recipe, RecipeInfo, Stage, Train
from methods.parts.bases.recipe_knobs import RecipeKnobs

CRF = "irn"
"""Of the harness's CRF presets, the one of hard labels (operators.md A12)."""
WRITE_CAMS = "methods.parts.stages.write_cams:writer"
BOUNDARY = "methods.parts.bases.boundary_trainer:build"
SEGMENTER = "methods.parts.bases.mask_segmenter:build"


def walked_recipe(config: RecipeKnobs, info: RecipeInfo, *, labels: str, masks: str) -> Recipe:
    """CAM network, maps, and with `refine=irn` confident labels and a boundary network; pseudo masks; a segmenter.

    `labels` and `masks` name the method's workers of confident labels and masks: `module:function`.
    """
    walk = config.refine == "irn"
    stages: list[Stage] = [
        Train(),
        PerImage(name="write-cams", makes="cams", does=WRITE_CAMS, networks=("network",), predicts=True),
    ]
    crf = CRF if config.label_crf else None
    if walk:
        stages += [
            PerImage(name="refine", makes="ir-labels", does=labels, inputs=("cams",), images=("train",), crf=crf),
            Train(name="train-affinity", network="affinity", build=BOUNDARY, label="ir-labels"),
        ]
    stages += [
        PerImage(
            name="masks",
            makes="masks",
            does=masks,
            inputs=("cams",),
            networks=("affinity",) if walk else (),
            crf=crf if config.refine == "crf" else None,
        ),
        Train(name="train-segmenter", network="segmenter", build=SEGMENTER, label="masks"),
    ]
    return Recipe(tuple(stages), {"cam": "cams", "pseudo": "masks", "segmentation": "segmenter"})
