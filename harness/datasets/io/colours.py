"""VOC's colours of label values, which masks, overlays, sheets and pictures share."""

from __future__ import annotations

import numpy as np


def _colours() -> tuple[tuple[int, int, int], ...]:
    """VOC's palette: the colour of each label, three bits a channel spread from the top (label 255 is 224 224 192)."""
    table = []
    for label in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
        table.append((channels[0], channels[1], channels[2]))
    return tuple(table)


COLOURS = _colours()
PALETTE = np.array(COLOURS, np.uint8)
"""The same as (256,3)."""
