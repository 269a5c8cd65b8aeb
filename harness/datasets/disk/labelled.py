"""Sparse labels and tags that a user has: files below the root or in folders that words name."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.api.classes import Choice
from harness.datasets.disk.layout import Layout
from harness.datasets.disk.pseudo import PSEUDO, PseudoMasks
from harness.datasets.disk.pseudo import WORD as PSEUDO_WORD
from harness.datasets.disk.tag_files import Tags, read_tags
from harness.datasets.io.images import ArrayCache, SparseCache, some_of
from harness.datasets.io.listing import given_path
from harness.datasets.weak.deriving import DerivingDataset
from harness.datasets.weak.files import WeakFiles
from harness.datasets.weak.finding import find, find_given, kinds_below, lacking
from harness.datasets.weak.scribbling import WHOLE
from harness.errors import BadInput, Problem

SPARSE_BYTES = 128 << 20
"""Derived weak labels kept by one process: those of about ten thousand photos."""


class LabelledDataset(DerivingDataset):
    """A dataset with masks on disk whose sparse labels and tags are read from files where there are some."""

    file_names: tuple[str, ...]
    """Names of the label values in files, of which `class_names` are those that were chosen."""
    choice: Choice | None = None
    """What `data.keep` or `data.drop` leaves; None for all."""

    def __init__(self, layout: Layout, cache_bytes: int):
        self.layout = layout
        self._cache = ArrayCache(cache_bytes)
        self._sparse = SparseCache(SPARSE_BYTES)
        self.weak_root: Path | None = None
        """The folder of `data.weak`; None where sparse labels are looked for below the root."""
        self.pseudo: PseudoMasks | None = None
        """The masks of `data.pseudo`."""
        self.given_tags: Tags = {}
        """Tags of `data.tags`, by image id."""
        self._weak_files: dict[str, WeakFiles | None] = {}

    def weak(self, image_id: str, kind: str) -> NDArray[np.uint8]:
        """Sparse labels (H,W), 255 = unlabelled, of files where there are some, else derived from the mask.

        `masks` gives the mask itself, which is read-only. Raises BadInput naming the file and the fix.
        """
        if kind == "masks":
            return self.mask(image_id)
        files = self.weak_files(kind)
        if isinstance(files, PseudoMasks):  # a label in every pixel: no sparse store
            return self._cache.get((kind, image_id), lambda: self.chosen(files.read(image_id, self.size(image_id))))
        derived = super().weak

        def read() -> NDArray[np.uint8]:
            if files is None:
                return derived(image_id, kind)
            return self.chosen(files.read(image_id, self.size(image_id)))

        return self._sparse.get((kind, image_id), read)

    def weak_files(self, kind: str) -> WeakFiles | None:
        """The label files of a kind below `data.weak` or the root; None where labels are derived from masks.

        Raises BadInput where `data.weak` holds none of the kind, and where a folder of theirs is empty.
        """
        if kind == PSEUDO:
            if self.pseudo is None:
                raise BadInput(Problem("labels", "pseudo masks are read from a folder", f"{PSEUDO_WORD}=<folder>"))
            return self.pseudo
        if kind not in self._weak_files:
            given = self.weak_root
            names = self.file_names
            files = find(self.layout.root, kind, names) if given is None else find_given(given, kind, names)
            if files is not None and kind == "scribbles":
                self._draw(files)
            self._weak_files[kind] = files
        return self._weak_files[kind]

    def _draw(self, scribbles: WeakFiles) -> None:
        """Draw the scribbles of files as `data.scribble_length` has it; their style is what it is."""
        if self.scribbling.style != WHOLE.style:
            found = f"scribbles are read from {scribbles.where}, in the style in which they were drawn"
            raise BadInput(Problem("data.scribble_style", found, "leave it out, or move that folder"))
        scribbles.length = self.scribbling.length

    def weak_source(self, kind: str) -> str:
        """Where sparse labels of a kind come from, in words. Raises BadInput as `weak_files` does."""
        files = self.weak_files(kind)
        return "derived from the masks" if files is None else f"files at {files.where}"

    def weak_fingerprint(self, ids: tuple[str, ...], kind: str) -> str:
        """Digest of the label files of these images, or the version that derives them.

        Raises BadInput with every file that is missing or wrong.
        """
        files = self.weak_files(kind)
        if files is None:
            return super().weak_fingerprint(ids, kind)
        digest = files.check(ids, self.size)
        if isinstance(files, PseudoMasks) and (wrong := self.judge_pseudo(files, ids)):
            raise BadInput(wrong)
        return f"files {digest}"

    def judge_pseudo(self, files: PseudoMasks, ids: tuple[str, ...]) -> list[Problem]:
        """What is wrong with the numbers of pseudo masks, each of which is sound. Raises BadInput for wrong masks."""
        background = self.has_background
        return files.judge_numbers(ids, self.tags, self.palette(ids), has_background=background, choice=self.choice)

    @abstractmethod
    def palette(self, ids: tuple[str, ...]) -> dict[int, tuple[int, int, int]]:
        """The colour that each label has in all of the dataset's own masks of these images; {} where they are grey."""

    def use_labels(self, weak: str | None = None, tags: str | None = None, pseudo: str | None = None) -> None:
        """Take sparse labels from below `weak`, tags from `tags`, pseudo masks from `pseudo`; relative paths start here
        or, else, at the root.

        Images of val and test that `tags` leaves out have the tags of their masks. Raises BadInput where a path is
        not there, a folder holds no labels of its kind, tags cannot be read, or a training image has none.
        """
        problems: list[Problem] = []
        given = (
            ("data.weak", weak, self._use_weak), ("data.tags", tags, self._use_tags),
            (PSEUDO_WORD, pseudo, self._use_pseudo),
        )  # fmt: skip
        for word, text, use in given:
            if text is not None:
                try:
                    use(given_path(word, text, self.layout.root))
                except BadInput as error:
                    problems += error.problems
        if problems:
            raise BadInput(problems)

    def chosen(self, label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels of files as `choice` numbers them."""
        return label_HW if self.choice is None else self.choice.labels(label_HW)

    def _use_weak(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(Problem("data.weak", f"{folder} is no folder", "data.weak=<folder of labels>"))
        if not kinds_below(folder):
            raise BadInput(lacking(folder))
        self.weak_root = folder

    def _use_pseudo(self, folder: Path) -> None:
        self.pseudo = PseudoMasks(folder, self.file_names)

    def _use_tags(self, source: Path) -> None:
        offset = int(self.has_background)
        every = [i for ids in self.layout.lists.values() for i in ids]
        tags = read_tags(source, self.file_names[offset:], every)
        kept = range(len(self.file_names)) if self.choice is None else self.choice.kept
        columns = [label - offset for label in kept if label >= offset]
        self.given_tags = {image_id: tags_C[columns] for image_id, tags_C in tags.items()}
        without = [image_id for image_id in self.layout.lists.get("train", ()) if image_id not in self.given_tags]
        if without:
            found = f"no tags for {len(without)} training images: {some_of(without)}"
            raise BadInput(Problem(str(source), found, "add them (an image may have an empty list)"))
