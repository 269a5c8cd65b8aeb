"""Whatever bytes a file holds, whoever reads it answers with our error that names it, or with what it says.

Each reader is given a file of its own that is right, then cut, with other bytes in it, or of nothing but noise.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from harness.api.weight_files import read_weights
from harness.clusters.file import read_cluster_file
from harness.datasets.disk import facts
from harness.datasets.disk.annotations import annotated
from harness.datasets.disk.tag_files import read_tags
from harness.datasets.io.archives import read_npz
from harness.datasets.io.class_files import class_names
from harness.datasets.io.images import read_image, read_mask, verify_image
from harness.datasets.io.listing import read_ids
from harness.datasets.io.restricted import read_npy
from harness.datasets.weak.drawn import parse_scribbles, read_points
from harness.engine.heartbeat import read_heartbeats
from harness.errors import BadInput, Problem, StoreError
from harness.plan.replay import stored_config
from harness.store import SCHEMAS, StoreWarning, load
from harness.store.outlines import sweeps

CLASSES = ("cat", "dog")


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, {"keys": np.array([0, 1]), "cam": np.ones((2, 3, 3), "f4")}, allow_pickle=True)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, keys=np.array([0, 1]), cam=np.ones((2, 3, 3), "f4"))
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, kind)
    return buffer.getvalue()


def mask() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(64, dtype=np.uint8) % 3).reshape(8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


STATE = {"a.weight": torch.ones(2, 3), "b": torch.zeros(1)}


def checkpoint(**words: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": STATE, "epoch": 3}, buffer, **words)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("w.pth", b"x")
    return buffer.getvalue()


def rows() -> bytes:
    buffer = io.BytesIO()
    row = {**dict.fromkeys(SCHEMAS["runs"]), "key": "a", "seed": 1}
    pl.DataFrame([row], schema=dict(SCHEMAS["runs"])).write_parquet(buffer, metadata={"schema_version": "1"})
    return buffer.getvalue()


COCO = {
    "images": [{"id": i, "file_name": f"{name}.jpg", "height": 8, "width": 8} for i, name in enumerate("ab")],
    "annotations": [{"id": i, "image_id": i, "category_id": 3, "segmentation": [[0, 0, 4, 0, 4, 4]], "area": 8,
                     "bbox": [0, 0, 4, 4], "iscrowd": 0} for i in range(2)],
    "categories": [{"id": 3, "name": "cat"}],
}  # fmt: skip
SCRIBBLE = b"<annotation><polygon><tag>cat</tag><point><X>1</X><Y>2</Y></point></polygon></annotation>"
FACTS = b'{"format": 4, "root": "/nowhere/data", "images": [["a", "", 1, 2, 3, [4, 5], "d", 1]], "masks": []}'
CLUSTER = b"""provider: {type: aws}
max_workers: 2
head_node_type: h
available_node_types:
  h: {resources: {CPU: 4}}
"""


def judged(problems: list[Problem]) -> None:
    if problems:
        raise BadInput(problems)


def annotate(path: Path) -> None:
    lists = path.parent / "ImageSets" / "Segmentation"
    for folder in (lists, path.parent / "JPEGImages"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("a", "train"), ("b", "val")):
        (path.parent / "JPEGImages" / f"{name}.jpg").write_bytes(picture("JPEG"))
        (lists / f"{split}.txt").write_text(f"{name}\n")
    problems: list[Problem] = []
    annotated(str(path.parent), str(path), problems, [])
    judged(problems)


def listed(read: Callable[[list[Problem]], Any]) -> None:
    problems: list[Problem] = []
    read(problems)
    judged(problems)


def of_store(path: Path) -> None:
    """A table's file; one that is damaged is set aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        load(path.parent.parent, ["runs"])


def of_outline(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        sweeps(path.parent.parent)


def of_facts(path: Path) -> None:
    root = Path("/nowhere/data")
    facts._loaded.discard(str(root))
    facts.load(root)


READERS: Mapping[str, tuple[str, bytes, Callable[[Path], Any]]] = {
    "npy": ("a.npy", npy(), read_npy),
    "npz": ("a.npz", npz(), lambda path: read_npz(path, ("keys", "cam"))),
    "jpeg": ("a.jpg", picture("JPEG"), lambda path: (verify_image(path), read_image(path))),
    "png": ("a.png", picture("PNG"), lambda path: (verify_image(path), read_image(path))),
    "mask": ("a.png", mask(), read_mask),
    "checkpoint": ("a.pth", checkpoint(), read_weights),
    "old checkpoint": ("a.pth", checkpoint(_use_new_zipfile_serialization=False), read_weights),
    "safetensors": ("a.safetensors", save(STATE), read_weights),
    "zip": ("a.pth", archive(), read_weights),
    "tags": ("t.json", b'{"tags": {"a": ["cat"], "b": []}}', lambda path: read_tags(path, CLASSES, ("a", "b"))),
    "pickled tags": ("t.npy", npy(), lambda path: read_tags(path, CLASSES, ("a", "b"), pickles=True)),
    "scribbles": ("a.xml", SCRIBBLE, lambda path: parse_scribbles(path.read_bytes(), "a.xml", CLASSES, (8, 8))),
    "points": ("p.json", b'{"a": [{"x": 1, "y": 2, "cls": 1}]}', lambda path: read_points(path, 3)),
    "annotations": ("coco.json", json.dumps(COCO).encode(), annotate),
    "list": ("train.txt", b"a\nb\n", lambda path: listed(lambda p: read_ids(path, path.parent, p))),
    "classes": ("classes.txt", b"cat\ndog\n", lambda path: listed(lambda p: class_names(path.parent, "m", None, p))),
    "config": ("run.json", b'{"schema": 3, "method": "cam"}', lambda path: stored_config([f"config={path}"])),
    "cluster": ("c.yaml", CLUSTER, read_cluster_file),
    "table": ("runs/a.parquet", rows(), of_store),
    "outline": ("sweeps/a.json", b'{"sweep": "a", "pid": 1, "words": [], "studies": []}', of_outline),
    "heartbeat": ("work/a/progress.json", b'{"key": "a", "updated": 1.5, "losses": {"seg": 1.5}, "pid": 7}',
                  lambda path: read_heartbeats(path.parents[2])),
    "facts": ("facts.json", FACTS, of_facts),
}  # fmt: skip


VALUE = re.compile(rb'-?\d+(?:\.\d+)?|"[^"]*"|\[[^\[\]]*\]|\{[^{}]*\}')
"""Values in the text of a file."""
HOSTILE = (b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 30, b"0.5", b'"x"', b'""', b"[]", b"{}", b"[null]",
           b'{"a": 1}', b"[[[1]]]", b'"' + b"x" * 300 + b'"', b'"../x"', b'"\\u0000"', b"")  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, right: bytes) -> bytes:
    """A file cut, with a value or some bytes changed, doubled or put in, or noise."""
    values = list(VALUE.finditer(right))
    how = draw(st.sampled_from(("cut", "changed", "put in", "doubled", "noise", *["value"] * (4 if values else 0))))
    if how == "value":
        start, end = draw(st.sampled_from(values)).span()
        return right[:start] + draw(st.sampled_from(HOSTILE)) + right[end:]
    at = draw(st.integers(0, max(0, len(right) - 1)))
    some = draw(st.binary(min_size=1, max_size=8))
    if how == "noise":
        return draw(st.binary(max_size=64))
    parts = {"cut": right[:at], "changed": right[:at] + some + right[at + len(some) :]}
    return {**parts, "put in": right[:at] + some + right[at:], "doubled": right[:at] + right}[how]


@pytest.mark.parametrize("name", READERS)
def test_right_files_are_read(name: str, tmp_path: Path) -> None:
    file, right, read = READERS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(right)
    if name not in ("zip", "config", "pickled tags"):
        read(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_spoilt_files_are_answered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, right, read = READERS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(facts, "_kept", lambda root: path)

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(spoilt(right))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except BadInput as error:
            if not all(problem.found and problem.fix for problem in error.problems):
                raise
        except StoreError:
            pass

    holds()


@pytest.mark.parametrize("value", [b"c__builtin__\nprint\n(S'run'\ntR.", pickle.dumps(print), b"\x80\x04\x95"])
def test_programs_are_never_run(value: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("npy", "checkpoint", "pickled tags"):
        file, _, read = READERS[name]
        (tmp_path / file).write_bytes(value)
        with pytest.raises(BadInput):
            read(tmp_path / file)
    assert capsys.readouterr().out == ""
