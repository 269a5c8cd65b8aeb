"""Files: writes that are whole or not there, and locks, also where the file system emulates them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import nfs_flock
import pytest

from harness.cli.parsing import main
from harness.errors import BadInput
from harness.files import Lease, atomic, content_digest, file_digest, local_root, way_out, write_bytes, write_json
from harness.sweep import run


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "a" / "x.json"
    write_json(target, {"a": 1})

    def interrupted() -> None:
        with atomic(target) as tmp:
            tmp.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == '{"a":1}'
    assert names(target.parent) == ["x.json"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    for name in ("old", "new"):
        with atomic(tmp_path / "step") as tmp:
            tmp.mkdir()
            (tmp / name).write_text(name)
    assert names(tmp_path) == ["step"]
    assert names(tmp_path / "step") == ["new"]


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """fsync of the content, then the rename, then fsync of the folder that holds the name."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        calls.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.split('.tmp')[0].split('.')[-1]}")
        fsync(descriptor)

    def renamed(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_bytes(tmp_path / "f", b"x")
    assert [c.split()[0] for c in calls] == ["fsync", "rename", "fsync"]
    assert calls[-1] == f"fsync {tmp_path.name}"
    calls.clear()
    with atomic(tmp_path / "d") as tmp:
        tmp.mkdir()
        for name in ("a", "b"):
            (tmp / name).write_text(name)
    assert [c.split()[0] for c in calls] == ["fsync", "fsync", "fsync", "rename", "fsync"]
    calls.clear()
    write_bytes(tmp_path / "f", b"y", sync=False)
    assert calls == ["rename"]


def test_the_digest_of_a_folder_is_that_of_names_and_contents(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    one = content_digest(tmp_path / "m")
    (tmp_path / "m" / "a").rename(tmp_path / "m" / "b")
    two = content_digest(tmp_path / "m")
    (tmp_path / "m" / "b").rename(tmp_path / "m" / "a")
    assert one == content_digest(tmp_path / "m") != two
    assert content_digest(tmp_path / "m" / "a") == file_digest(tmp_path / "m" / "a") == "6b86b273ff34fce19d6b"


@pytest.mark.parametrize("text", ["st [1]", "gl_*", "100%", "a#b", "a b?c"])
def test_a_folder_is_taken_by_its_name(tmp_path, text):
    (tmp_path / text).mkdir()
    assert local_root(tmp_path / text) == tmp_path / text
    assert local_root((tmp_path / text).as_uri()) == tmp_path / text


@pytest.mark.parametrize("word", ["s3://bucket/runs", "gs://b", "{}/file", "{}/file/runs"])
def test_a_store_that_can_be_no_folder_is_refused_before_anything(tmp_path: Path, word: str) -> None:
    (tmp_path / "file").touch()
    text = word.format(tmp_path)
    with pytest.raises(BadInput, match=r"is not a folder|is a file, no folder") as caught:
        local_root(text)
    assert caught.value.problems[0].where == "store"


def test_a_sweep_makes_no_local_folder_of_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(run, ["methods=pce", "data=shapes", "tier=smoke", "dry_run=true", "store=s3://bucket/runs"]) == 2
    assert "error: store: s3://bucket/runs is not a folder" in capsys.readouterr().err


def test_a_lease_is_held_by_one_or_shared_by_many(tmp_path):
    path = tmp_path / "lock"
    with Lease.take(path) as one:
        assert Lease.take(path) is None
        assert Lease.take(path, shared=True) is None
        one.close()
        with Lease.take(path, shared=True), Lease.take(path, shared=True):
            assert Lease.take(path) is None
    again = Lease.take(path, wait=True)
    again.close()
    again.close()


def test_a_lease_on_a_removed_file_binds_nobody(tmp_path):
    path = tmp_path / "lock"
    held = Lease.take(path)
    path.unlink()
    with Lease.take(path) as other:
        assert other is not None
        assert Lease.take(path) is None, "the lock is on the file that others open"
    held.close()


def test_what_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        Lease.take(tmp_path / "file" / "lock")


ON_NFS = """
import errno, fcntl, os, sys
from pathlib import Path
from harness.cli.parsing import main
from harness.errors import BadInput
from harness.files import Lease
path = Path(sys.argv[1])
only = os.open(path, os.O_WRONLY | os.O_CREAT)
try:
    fcntl.flock(only, fcntl.LOCK_SH | fcntl.LOCK_NB)
    sys.exit("flock is not emulated")
except OSError as error:
    assert error.errno == errno.EBADF, error
with Lease.take(path) as one:
    assert one and Lease.take(path) is None and Lease.take(path, shared=True) is None
with Lease.take(path, shared=True) as one, Lease.take(path, shared=True) as two:
    assert one and two and Lease.take(path) is None
assert Lease.take(path)
print("held")
"""


@pytest.fixture(scope="session")
def nfs(tmp_path_factory) -> dict[str, str]:
    """The environment of a process whose files lie on NFSv4, as far as `flock` tells."""
    return {**os.environ, "LD_PRELOAD": nfs_flock.library(tmp_path_factory.mktemp("nfs"))}


def test_leases_hold_where_flock_is_a_byte_range_lock(tmp_path, nfs):
    """On NFSv4 a shared lock on a descriptor opened write-only is EBADF: no run could take a stage's lock."""
    done = subprocess.run([sys.executable, "-c", ON_NFS, tmp_path / "lock"], env=nfs, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_a_run_trains_on_nfs(tmp_path, nfs):
    words = ["method=pce", "labels=points", "ray=off", "data.n_train=4", "data.n_val=2", "data.n_test=2", "crop=48",
             "batch=4", "group=2", "iterations=1", f"store={tmp_path}"]  # fmt: skip
    command = [sys.executable, "-m", "harness.train", *words]
    done = subprocess.run(command, env=nfs, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_lock_is_a_lease():
    """One place for locks and one for writes that are whole: nobody else calls flock or renames a file of his own."""
    root = Path(__file__).parents[1]
    found: dict[str, list[str]] = {"flock": [], "os.rename(": [], "os.replace(": [], "fsync": []}
    for path in sorted(p for folder in ("harness", "methods", "reports") for p in (root / folder).rglob("*.py")):
        for word, places in found.items():
            if word in path.read_text():
                places.append(str(path.relative_to(root)))
    assert found == {
        "flock": ["harness/files.py"],
        "os.rename(": ["harness/store/reading.py"],  # sets a damaged file aside
        "os.replace(": ["harness/files.py"],
        "fsync": ["harness/files.py"],
    }


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    from harness import files

    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with pytest.raises(OSError) as error:
        Lease.take(tmp_path / "lock")
    assert files.plain_words(error.value) == "the file system has no locks (an NFS server without its lock service?)"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space"),
        (PermissionError(errno.EACCES, "Permission denied"), "make it writable"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "free space"),
        (OSError(errno.EIO, "Input/output error"), "see to the disk"),
        (RuntimeError("HeaderTooLarge"), "see to the disk"),
    ],
)
def test_the_way_out_of_a_file_that_could_not_be_written(error: Exception, fix: str) -> None:
    assert way_out(error) == f"{fix} and run the same command again, it goes on"
