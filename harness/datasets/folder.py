"""Any folder in VOC layout: JPEGImages/, a mask folder, ImageSets/Segmentation/{train,val,test}.txt."""

from __future__ import annotations

from harness.datasets.files import CACHE_BYTES, FileDataset
from harness.datasets.labels import IGNORE
from harness.datasets.layout import Layout, Survey, inspect
from harness.datasets.looking import look
from harness.errors import Problem


def open(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Folder:
    """Open a VOC-layout folder: `root`, name of its mask folder, file of class names (design section 3).

    Looks at folders, lists and names only; the pixels are checked by `Folder.check`. Without a file of class names
    all masks are read. Raises BadInput with everything that is wrong.
    """
    dataset = survey(root=root, masks=masks, classes=classes).opened()
    assert isinstance(dataset, Folder)
    if not dataset.layout.class_names:
        dataset.facts(_labelled(dataset.layout))  # a mask that cannot be read may hold the highest label
    return dataset


def survey(*, root: str | None = None, masks: str | None = None, classes: str | None = None) -> Survey:
    """As `open`, but what can be read is there beside everything that is wrong."""
    found = Survey(layout="VOC layout")
    layout = inspect(root, masks or "SegmentationClass", classes, found.errors)
    if layout is None:
        return found
    if layout.class_names:
        found.dataset = Folder(layout, layout.class_names)
        return found
    # Every label but 255 is legal here: the masks tell how many there are.
    folder = Folder(layout, tuple(str(number) for number in range(IGNORE)))
    looked = look(folder, _labelled(layout), images=False)
    labels = [c for seen in looked.seen.values() if seen.mask for c in seen.mask.labels if c != IGNORE]
    if not labels and not found.errors and not looked.errors:
        where = str(layout.root / layout.mask_folder)
        fix = "choose another mask folder with data.masks=<folder>"
        found.errors.append(Problem(where, "every pixel of every mask is 255 (ignore)", fix))
    found.dataset = Folder(layout, tuple(str(number) for number in range(max(labels, default=0) + 1)))
    return found


def _labelled(layout: Layout) -> list[str]:
    return [image_id for split, has in layout.has_masks.items() if has for image_id in layout.lists[split]]


class Folder(FileDataset):
    """A VOC-layout folder on disk, told from others by its name; the fingerprints tell for sure."""

    def __init__(self, layout: Layout, class_names: tuple[str, ...], cache_bytes: int = CACHE_BYTES):
        super().__init__(
            layout,
            class_names,
            name=f"folder:{layout.root.name}",
            family="voc",
            has_background=class_names[0] == "background",
            cache_bytes=cache_bytes,
        )
