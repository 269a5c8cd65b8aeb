"""`full`: full supervision, the upper bound on the network and decoder of the single-stage ViT methods."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import MethodSpec
from methods.parts.knobs import ClassTokenKnobs, SegmenterKnobs
from methods.parts.views.device_knobs import DeviceViewKnobs


@dataclass(frozen=True, kw_only=True)
class FullConfig(SegmenterKnobs, ClassTokenKnobs, DeviceViewKnobs):
    """Cross-entropy on masks with 255 ignored; optimiser and views of fsr.md."""


METHOD = MethodSpec(
    name="full",
    config=FullConfig,
    preset="methods.full.presets:preset",
    build="methods.full.method:build",
    labels=("masks", "pseudo"),
    targets=("segmentation",),
    title="Full supervision: the same encoder and decoder on true masks, or on a folder of pseudo masks",
    network_of="cam",
    ablations={"class_token": {"class_token": True}},
    version=1,
)
