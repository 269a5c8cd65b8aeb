"""The restricted reader: the field's pickled dicts pass, programs and damaged files do not."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.datasets.io.pickles import Refused, loads
from harness.datasets.io.restricted import read_npy
from harness.errors import BadInput


def saved(path: Path, value: Any) -> Path:
    np.save(path, value, allow_pickle=True)
    return path


CAMS = {
    "clip-es": {"keys": np.array([1, 5]), "attn_highres": np.random.default_rng(0).random((2, 4, 6)).astype("f2")},
    "sipe": {"keys": np.array([0, 3]), "IS_CAM": np.random.default_rng(1).random((2, 4, 6)).astype("f4")},
    "irn": {
        "keys": torch.tensor([1, 4]),
        "cam": torch.arange(36, dtype=torch.float32).reshape(4, 3, 3)[1:3],
        "high_res": np.ones((2, 4, 6), "f4"),
    },
    "mctformer": {3: np.eye(4, dtype="f4"), np.int64(7): np.asfortranarray(np.arange(6.0).reshape(2, 3))},
    "tags": {"2007_000032": np.array([0, 1, 1], "f4"), "b": [1, 2.5, "x", None, True, np.float32(0.5), (1, 2)]},
    "text": {"names": np.array(["cat", "dog"]), "flags": np.array([True, False]), "big": np.array([1, 2], ">i4")},
    "empty": {"keys": torch.zeros(0, dtype=torch.int64), "cam": np.zeros((0, 3, 3), "f4")},
}


@pytest.mark.parametrize("name", CAMS)
@pytest.mark.parametrize("protocol", [None, 0, 1, 2, 3, 4, 5])
def test_the_fields_dicts_pass(name: str, protocol: int | None, tmp_path: Path) -> None:
    value = CAMS[name]
    found = read_npy(saved(tmp_path / "a.npy", value)) if protocol is None else loads(pickle.dumps(value, protocol))
    assert list(found) == [int(k) if not isinstance(k, str) else k for k in value]
    for key, expected in value.items():
        got = found[key]
        if isinstance(expected, list):
            assert got == [1, 2.5, "x", None, True, 0.5, [1, 2]]
        else:
            np.testing.assert_array_equal(got, np.asarray(expected))
            assert isinstance(got, np.ndarray)
            assert got.flags.writeable


def test_plain_arrays_pass(tmp_path: Path) -> None:
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3, dtype="f4")), np.array(2.5), np.array(["a"])):
        np.testing.assert_array_equal(read_npy(saved(tmp_path / "a.npy", array)), array)


class Bomb:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


class WithState:
    def __init__(self) -> None:
        self.x = 1


PROGRAMS = {
    "system": Bomb(os.system, "touch HACKED"),
    "run": Bomb(subprocess.run, ["touch", "HACKED"]),
    "eval": Bomb(eval, "open('HACKED','w')"),
    "exec": Bomb(exec, "open('HACKED','w')"),
    "getattr": Bomb(getattr, "x", "__class__"),
    "open": Bomb(open, "HACKED", "w"),
    "numpy load": Bomb(np.load, "HACKED"),
    "memmap": Bomb(np.memmap, "HACKED", "u1", "w+", 0, (4,)),
    "fromfile": Bomb(np.fromfile, "HACKED"),
    "nested pickle": Bomb(pickle.loads, pickle.dumps(Bomb(os.system, "touch HACKED"))),
    "date": datetime.date(2020, 1, 1),
    "set": {1, 2},
    "complex": 1j,
    "counter": collections.Counter("ab"),
    "object": WithState(),
    "class": WithState,
    "function": os.system,
    "complex array": np.array([1j]),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "records": np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]),
    "array of objects": np.array([WithState(), None], object),
    "sparse": torch.eye(2).to_sparse(),
    "module": torch.nn.Linear(2, 2),
    "bytes": {"a": b"raw"},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_everything_else_is_refused_and_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        with pytest.raises(Refused):
            loads(pickle.dumps({"keys": [1], "cam": PROGRAMS[name]}, protocol))
        with pytest.raises(Refused):
            loads(pickle.dumps(PROGRAMS[name], protocol))
    with pytest.raises(BadInput, match=r"a\.npy: refused: "):
        read_npy(saved(tmp_path / "a.npy", {"a": PROGRAMS[name]}))
    assert os.listdir(tmp_path) == ["a.npy"]


def reduce_of(module: str, name: str, arguments: bytes, state: bytes = b"") -> bytes:
    """A hand-written pickle: call a name with pickled arguments, then set a state."""
    return b"c" + f"{module}\n{name}\n".encode() + arguments + b"R" + (state + b"b" if state else b"") + b"."


ARRAY = ("numpy._core.multiarray", "_reconstruct")
FLOAT = b"cnumpy\ndtype\n(U\x02f4I00\nI01\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    "program",
    [
        reduce_of("numpy", "ndarray", b"(I1000000\nt"),
        reduce_of(*ARRAY, b"(t"),  # an array that never gets its bytes
        reduce_of(*ARRAY, b"(t", b"(I1\n(I4\nt" + FLOAT + b"I00\nU\x04aaaat"),  # 4 bytes for 16
        reduce_of(*ARRAY, b"(t", b"(I1\n(I-1\nt" + FLOAT + b"I00\nU\x00t"),
        reduce_of(*ARRAY, b"(t", b"(I1\n(I99999999999\nI99999999999\nt" + FLOAT + b"I00\nU\x00t"),
        reduce_of(*ARRAY, b"(t", b"(I1\n(tI5\nI00\nU\x00t"),
        reduce_of(*ARRAY, b"(t", b"N"),
        reduce_of("numpy", "dtype", b"(U\x10" + b"V9999999999999999"[:16] + b"t"),
        reduce_of("numpy", "dtype", b"(U\x01OI00\nI01\nt", b"(I3\nU\x01|(lN(dI-1\nI-1\nI63\nt"),
        reduce_of("numpy", "dtype", b"(U\x02f4t", b"(I3\nU\x01xNNNt"),
        reduce_of("torch.storage", "_load_from_bytes", b"(U\x04junkt"),
        reduce_of("torch._utils", "_rebuild_tensor_v2", b"(NI0\n(I2\nt(I1\ntI00\nNt"),
        reduce_of("builtins", "eval", b"(U\x011t"),
        reduce_of("__builtin__", "eval", b"(U\x011t"),
        reduce_of("numpy.core.multiarray", "_reconstruct.__globals__", b"(t"),
        b"cnumpy\ndtype\n(dU\x01ad}b.",  # a state for a function of ours
        b"(dU\x08__dict__db.",
        b"(i os\nsystem\n.",
        b"\x80\x02\x82\x01.",  # extension registry
        b"Pid\n.",  # persistent id
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02r\xff\xff\xff\x7fN.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"(" * 100000 + b"." ,
        b"]" * 50 + b"a" * 49 + b".",
        b"",
        b".",
        b"N",
    ],
    ids=range(29),
)  # fmt: skip
def test_hand_written_programs_are_refused(program: bytes) -> None:
    with pytest.raises(Refused):
        loads(program)


def test_tensors_stay_inside_their_storage() -> None:
    plain = pickle.dumps({"cam": torch.arange(4, dtype=torch.float32)}, 2)
    assert loads(plain)["cam"].tolist() == [0, 1, 2, 3]
    at = plain.index(b"K\x04\x85")
    with pytest.raises(Refused, match="tensor"):
        loads(plain[:at] + b"K\x05\x85" + plain[at + 3 :])  # five of four numbers


def test_self_reference_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Refused, match="nested"):
        loads(pickle.dumps(loop))


def outcome(path: Path) -> Any:
    """What was read, or the text of the error."""
    try:
        return read_npy(path)
    except BadInput as error:
        return str(error)


def test_damaged_files_name_themselves(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", CAMS["irn"])
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    tried = int(os.environ.get("WSSS_FUZZ", "400"))
    for i in range(tried):
        data = bytearray(whole)
        if i % 3 == 0:
            data = data[: int(rng.integers(len(data)))]
        elif i % 3 == 1:
            for at in rng.integers(len(data), size=int(rng.integers(1, 6))):
                data[at] = int(rng.integers(256))
        else:
            data = bytearray(rng.integers(0, 256, int(rng.integers(200)), dtype=np.uint8).tobytes())
        path.write_bytes(data)
        answer = outcome(path)
        assert str(path) in answer if isinstance(answer, str) else isinstance(answer, dict | list | np.ndarray)
    with pytest.raises(BadInput, match="cannot be read"):
        read_npy(tmp_path / "none.npy")
