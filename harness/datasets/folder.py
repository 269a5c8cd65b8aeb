"""Any folder in VOC layout: JPEGImages/, a mask folder, ImageSets/Segmentation/{train,val,test}.txt."""

from __future__ import annotations

from harness.api.vocabulary import IGNORE
from harness.datasets.disk.annotations import annotated
from harness.datasets.disk.files import CACHE_BYTES, FileDataset
from harness.datasets.disk.layout import WORDS, Layout, Survey, inspect
from harness.datasets.disk.looking import look
from harness.datasets.disk.together import labels_in, too_few
from harness.errors import Problem

BACKGROUND = "background"
"""The first class name that makes label 0 the background."""


def open(
    *,
    root: str | None = None,
    masks: str | None = None,
    classes: str | None = None,
    annotations: str | None = None,
) -> Folder:
    """Open a VOC-layout folder: `root`, name of its mask folder, file of class names (design section 3).

    With `annotations`, COCO-style JSON, masks are made of it once and its categories are the classes.

    Looks at folders, lists and names only; the pixels are checked by `Folder.check`. Without a file of class names
    all masks are read. Raises BadInput with everything that is wrong.
    """
    dataset = survey(root=root, masks=masks, classes=classes, annotations=annotations).opened()
    assert isinstance(dataset, Folder)
    if not dataset.layout.class_names:
        dataset.facts(_labelled(dataset.layout))  # a mask that cannot be read may hold the highest label
    return dataset


def survey(
    *,
    root: str | None = None,
    masks: str | None = None,
    classes: str | None = None,
    annotations: str | None = None,
) -> Survey:
    """As `open`, but what can be read is there beside everything that is wrong."""
    found = Survey(layout="VOC layout")
    if annotations is None:
        layout = inspect(root, masks, classes, found.errors)
    else:
        for word, given in (("data.masks", masks), ("data.classes", classes)):
            if given is not None:
                own = f"{given!r} beside data.annotations, which has masks and class names"
                found.errors.append(Problem(word, own, f"leave {word} or data.annotations out"))
        layout = annotated(root, annotations, found.errors, found.warnings)
        found.layout = layout.name if layout is not None else found.layout
    if layout is None or any(problem.where in WORDS for problem in found.errors):
        return found
    if layout.class_names:
        found.warnings += _other_background(layout)
        found.dataset = Folder(layout, layout.class_names)
        return found
    # Every label but 255 is legal here: the masks tell how many there are.
    folder = Folder(layout, tuple(str(number) for number in range(IGNORE)))
    looked = look(folder, _labelled(layout), images=False)
    labels = labels_in(looked.seen, looked.seen)
    if not found.errors and not looked.errors:
        found.errors += too_few(folder, labels)
    found.dataset = Folder(layout, tuple(str(number) for number in range(max(labels, default=0) + 1)))
    return found


def _labelled(layout: Layout) -> list[str]:
    return [image_id for split, has in layout.has_masks.items() if has for image_id in layout.lists[split]]


def _other_background(layout: Layout) -> list[Problem]:
    """A warning where a name means the background but is not the one word, or not on the one line, for it."""
    names = layout.class_names
    at = next((i for i, name in enumerate(names) if name.strip("_- #").casefold() in (BACKGROUND, "bg")), None)
    if at is None or names[0] == BACKGROUND:
        return []
    if at:
        found = f"{names[at]!r} is the name of label {at}, not of 0: it is taken for a class, as {names[0]!r} is"
        fix = f"write {BACKGROUND!r} on the first line, where it is label 0; a title or comment is a line too many"
    else:
        found = (
            f"the first class name is {names[0]!r}, not {BACKGROUND!r}: label 0 is taken for a class, not for the "
            "background"
        )
        fix = f"write {BACKGROUND!r} in the file of class names, if that is meant"
    return [Problem(str(layout.root), found, fix)]


class Folder(FileDataset):
    """A VOC-layout folder on disk, told from others by its name; the fingerprints tell for sure."""

    def __init__(self, layout: Layout, class_names: tuple[str, ...], cache_bytes: int = CACHE_BYTES):
        super().__init__(
            layout,
            class_names,
            name=f"folder:{layout.root.name}",
            family="voc",
            has_background=class_names[0] == BACKGROUND,
            complete=False,
            cache_bytes=cache_bytes,
        )
