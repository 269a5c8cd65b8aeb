"""`pce`: partial cross-entropy, the plain baseline of sparse labels."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import MethodSpec, knob
from methods.parts.knobs import ClassTokenKnobs, SegmenterKnobs
from methods.parts.views.device_knobs import DeviceViewKnobs


@dataclass(frozen=True, kw_only=True)
class PceConfig(SegmenterKnobs, ClassTokenKnobs, DeviceViewKnobs):
    """Cross-entropy on the labelled pixels alone; optimiser and views of `full`."""

    keep_labels: bool = knob(
        True,
        "labelled pixels survive a view that shrinks them; false: nearest neighbour may drop them",
        unit="bool",
        source="agmm.md 6: nearest down-scaling deletes small clicks",
    )


METHOD = MethodSpec(
    name="pce",
    config=PceConfig,
    preset="methods.pce.presets:preset",
    build="methods.pce.method:build",
    labels=("points", "scribbles", "clicks20", "clicks50", "clicks100", "blocks", "coarse"),
    targets=("segmentation",),
    title="Partial cross-entropy: the same encoder and decoder on sparse labels",
    network_of="cam",
    ablations={"class_token": {"class_token": True}},
    version=1,
)
