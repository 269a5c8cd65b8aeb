"""COCO's 80 categories in the order of their ids, which is the field's class order, and the sizes of its splits."""

from __future__ import annotations

import re

CLASSES = (
    *("background", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep"),
    *("cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana"),
    *("apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
UNUSED_IDS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in UNUSED_IDS)
"""Category id of classes 1..80 in the annotation files: 1..90 with gaps."""
CLASS_OF = {category: label for label, category in enumerate(CATEGORY_IDS, 1)}
SIZES = {"train": 82081, "val": 40137}
"""Images with at least one annotation (operators.md A14)."""
OTHER_SIZES = {
    "train": {82783: "all of train2014, images without annotation included"},
    "val": {40504: "all of val2014, images without annotation included"},
}
VAL_PART_SIZES = (4999, 5000)
"""Of the part of val that papers watch while training: 5,000 lines, the last without line end, 4,999 by `wc`."""
YEAR = {"train": "train2014", "val": "val2014", "val_part": "val2014"}
_STEM = re.compile(r"(?:COCO_(train2014|val2014)_)?(\d{1,12})")


def image_name(stem: str, split: str) -> str | None:
    """The id of an image, the same in every layout (COCO_train2014_000000000009), from any of its names.

    Names are full, padded or bare numbers; None for any other, and for one that names the other split.
    """
    match = _STEM.fullmatch(stem)
    if match is None or match[1] not in (None, YEAR[split]):
        return None
    return numbered_name(int(match[2]), split)


def numbered_name(number: int, split: str) -> str:
    """The id of an image from COCO's number of it."""
    return f"COCO_{YEAR[split]}_{number:012d}"
