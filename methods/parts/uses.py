"""Sets of parts whose versions go into a run's key (`MethodSpec.uses`), for methods that stand on a shared base.
No torch here."""

from __future__ import annotations


def parts(*names: str) -> tuple[str, ...]:
    """Import paths of modules of `methods.parts`."""
    return tuple(f"methods.parts.{name}" for name in names)


SEGMENTER = parts(
    "backbones", "decoders", "losses", "schedules", "shapes_nets", "single_stage", "views", "vit_segmenter"
)
"""What `single_stage.Segmenter` computes with."""
TAG_SEGMENTER = (*SEGMENTER, *parts("cam", "par", "pixels", "pseudo"))
"""What `single_stage.TagSegmenter` computes with."""
SUPERVISED = (*SEGMENTER, *parts("deeplab", "pyramids", "supervised"))
"""What `supervised` computes with."""
