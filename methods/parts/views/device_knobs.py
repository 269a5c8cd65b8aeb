"""The knob of views that are made on the device. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api.spec import MethodConfig, knob


@dataclass(frozen=True, kw_only=True)
class DeviceViewKnobs(MethodConfig):
    """Where views are made."""

    device_views: bool = knob(
        False,
        "crops and colours are made on the device, a group at a time: the same draws, resized values to one level of "
        "255; for GPUs that wait for their views",
        unit="bool",
        source="ours",
        silent=True,
    )
