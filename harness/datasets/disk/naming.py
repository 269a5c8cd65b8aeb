"""Names that the field's files and keys give an image: its id, the id's last part, COCO's and IRN's numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_VOC = re.compile(r"\d{4}_\d{6}")
_COCO = re.compile(r"COCO_(?:train|val)2014_(\d{12})")
_NUMBER = re.compile(r"\d+")


class Names:
    """Which image of a dataset a name means, in ways that the field writes."""

    def __init__(self, ids: Iterable[str], *, numbers: bool = False):
        """COCO's images are known by their number as well; with `numbers` VOC's are too, and a bare number by any
        count of zeros: these are keys of tags, written as whole numbers by IRN."""
        self._own = tuple(dict.fromkeys(ids))
        self._ids: dict[str, list[str]] = {}
        self._numbered: dict[str, list[str]] = {}
        for image_id in self._own:
            for name in dict.fromkeys((image_id, image_id.replace("/", "~"), image_id.rpartition("/")[2])):
                self._ids.setdefault(name, []).append(image_id)
            number = _coco_number(image_id)
            if number is None and numbers and (_VOC.fullmatch(image_id) or _NUMBER.fullmatch(image_id)):
                number = image_id.replace("_", "").lstrip("0")
            if number is not None:
                self._numbered.setdefault(number, []).append(image_id)

    def of(self, name: str) -> tuple[str, ...]:
        """The images that a name may mean: none, one, or several; a whole id means itself."""
        found = self._ids.get(name, [])
        if name in found:
            return (name,)
        if not found and _NUMBER.fullmatch(name):
            found = self._numbered.get(name.lstrip("0"), [])
        return tuple(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)


def _coco_number(image_id: str) -> str | None:
    match = _COCO.fullmatch(image_id)
    return match[1].lstrip("0") if match else None
