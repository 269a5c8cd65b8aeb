"""Housekeeping of a store: merging small files, dropping what is not kept, and checking that everything is readable.

Nothing here changes what `load` returns, whenever it is interrupted.
"""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.api.recipe import WEIGHTS
from harness.api.vocabulary import KEEP
from harness.errors import BadInput, Problem, StoreError, nearest
from harness.files import TMP_SUFFIX, Lease, local_root, plain_words, way_out
from harness.store.files import COMPACT_PREFIX, is_dangling, list_files, why_left_out
from harness.store.merging import merge, take_out
from harness.store.reading import Damaged, examine, latest_runs, load, set_damaged_aside
from harness.store.schema import SCHEMAS

_ALWAYS = frozenset({"example"})
_MANAGED = ("work", "cache")
_DAY = 86400.0
MANY = 1000
"""Runs whose files lie apart, from which on the end of a sweep merges them."""
_LAST = "runs"
"""Merged last: as long as its files lie apart, those of other tables may."""
_OF_A_RUN = ("params", "evals", "counts", "curves", "steps", "artifacts")
"""Tables that a run writes anew when it is made again; `runs` gets another row."""


@dataclass(frozen=True)
class Dropped:
    """What `gc` removed, and how many folders it left because they were used within the last day."""

    paths: tuple[Path, ...]
    size: int
    """Bytes."""
    recent: int


@dataclass(frozen=True)
class Report:
    """What `verify` found: files read, unreadable ones, evals that have lost their counts, files that are left out."""

    files: int
    damaged: tuple[Damaged, ...]
    incomplete: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.incomplete and not self.left_out


class AtWork(StoreError):
    """Another `compact` or `gc` works on the store now."""


def compact_many(path: str | Path) -> list[Path]:
    """`compact` where the files of more than MANY runs lie apart, which reports open one by one; nothing where they are
    fewer, or where another one works there now. Raises StoreError as `compact` does."""
    root = local_root(path)
    files = list_files(root, _LAST)
    if sum(not file.name.startswith(COMPACT_PREFIX) and not is_dangling(file) for file in files) <= MANY:
        return []
    try:
        return compact(root)
    except AtWork:
        return []


def compact(path: str | Path) -> list[Path]:
    """Merge the small files of each table; returns the new files. `load` gives the same rows before and after.

    Files of runs that are not done stay as they are: a later attempt may write them anew. Damaged files are set
    aside as `load` does. Raises StoreError; interrupted anywhere, no row is lost and none counts twice.
    """
    root = local_root(path)
    made = []
    with _alone(root):
        results = load(root, ["runs", "evals"])
        done = _done_keys(results.runs)
        owner = dict(results.evals.select("eval", "key").iter_rows())
        try:
            for table in sorted(SCHEMAS, key=lambda table: table == _LAST):
                set_damaged_aside(root, table)
                made += merge(root, table, done, owner)
        except OSError as error:
            raise StoreError(f"{root} could not be merged: {plain_words(error)}; {way_out(error)}") from error
        except pl.exceptions.PolarsError as error:
            raise StoreError(f"{root} could not be merged: {error}") from error
    return made


def reopen(path: str | Path, key: str) -> None:
    """Make the files of a run writable again: what `compact` has merged is taken out, damaged merged files set aside.

    Waits for a `compact` or `gc` that runs now.
    """
    root = local_root(path)
    with _alone(root, wait=True):
        for table in _OF_A_RUN:
            take_out(root, table, key)


def gc(path: str | Path, keep: str | Iterable[str] = ("last", "best"), *, idle_seconds: float = _DAY) -> Dropped:
    """Drop checkpoints and maps of done runs that `keep` does not name (last, best, maps, none).

    Weights stay with last or best, other outputs of stages with maps, pictures always; so does everything of runs
    that are not done. Cached outputs that no run names go once they are older than `idle_seconds`.
    Raises BadInput for an unknown word of `keep`, StoreError where files are left out (`verify` names them).
    """
    root = local_root(path)
    words = {w.strip() for w in (keep.split(",") if isinstance(keep, str) else keep)} - {""}
    unknown = sorted(words - set(KEEP))
    if unknown:
        raise BadInput([Problem("keep", f"{w!r} is unknown", nearest(w, KEEP)) for w in unknown])
    with _alone(root):
        results = load(root, ["runs", "artifacts"])
        left_out = [why for file in _files(root) if (why := why_left_out(file))]
        if left_out:
            raise StoreError(f"nothing is dropped while it is not known what runs need: {left_out[0]}")
        done = _done_keys(results.runs)
        dropped, kept = _artifact_paths(root, results.artifacts, words, done)
        dropped |= {root / "work" / key for key in done if (root / "work" / key).is_dir()}
        unnamed, recent = _idle_cache(root, dropped | kept, idle_seconds, "maps" in words)
        dropped |= unnamed
        dropped |= {f for table in SCHEMAS for f in _old_tmp(root / table, idle_seconds)}
        gone: list[Path] = []
        size = sum(_remove(target, kept, gone) for target in sorted(dropped))
    return Dropped(tuple(gone), size, recent)


def verify(path: str | Path) -> Report:
    """Read every file of the store and change nothing."""
    root = local_root(path)
    files = sum(len(list_files(root, table)) for table in SCHEMAS)
    kept = {"evals": ("eval", "images"), "counts": ("eval",)}
    tables = {table: examine(root, table, kept.get(table, ())) for table in SCHEMAS}
    damaged = tuple(item for found in tables.values() for item in found.damaged)
    left_out = tuple(why for found in tables.values() for why in found.left_out.values())
    scored = tables["evals"].rows.filter(pl.col("images") > 0)
    lost = scored.join(tables["counts"].rows, on="eval", how="anti")
    return Report(files, damaged, tuple(sorted(lost["eval"])), left_out)


def _files(root: Path) -> list[Path]:
    return [file for table in SCHEMAS for file in list_files(root, table)]


def _done_keys(runs: pl.DataFrame) -> set[str]:
    runs = latest_runs(runs)
    return set(runs.filter(pl.col("status") == "done")["key"])


def _artifact_paths(
    root: Path, artifacts: pl.DataFrame, words: set[str], done: set[str]
) -> tuple[set[Path], set[Path]]:
    """What the artifacts of runs say of paths inside the store: to be dropped, and to be kept."""
    dropped: set[Path] = set()
    kept: set[Path] = set()
    for key, kind, text in artifacts.select("key", "kind", "path").iter_rows():
        path = root / text
        if not any(_inside(path, root / folder) for folder in _MANAGED):
            continue
        wanted = bool(words & ({"last", "best"} if kind.startswith(WEIGHTS) else {"maps"})) and "none" not in words
        (kept if wanted or kind in _ALWAYS or key not in done else dropped).add(path)
    in_cache = {p: root / "cache" / p.relative_to(root / "cache").parts[0] for p in dropped | kept
                if p.is_relative_to(root / "cache")}  # fmt: skip
    kept |= {in_cache[p] for p in kept if p in in_cache}
    return {in_cache.get(p, p) for p in dropped} - kept, kept


def _idle_cache(root: Path, named: set[Path], idle_seconds: float, keep_maps: bool) -> tuple[set[Path], int]:
    """Folders of the stage cache that no run names: those idle for long, and how many are not."""
    idle: set[Path] = set()
    recent = 0
    if keep_maps or not (root / "cache").is_dir():
        return idle, recent
    limit = time.time() - idle_seconds
    for folder in (root / "cache").iterdir():
        if folder.is_dir() and folder not in named:
            if _newest(folder) < limit:
                idle.add(folder)
            else:
                recent += 1
    return idle, recent


def _newest(folder: Path) -> float:
    """When anything in a folder was last changed. Now, where a file vanished while we looked: a run works there."""
    try:
        return max(p.stat().st_mtime for p in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return time.time()


def _old_tmp(folder: Path, idle_seconds: float) -> list[Path]:
    """Half-written files that a dead process left behind."""
    if not folder.is_dir():
        return []
    limit = time.time() - idle_seconds
    old = []
    for file in folder.glob(f".*{TMP_SUFFIX}"):
        with suppress(FileNotFoundError):  # its writer has finished
            if file.stat().st_mtime < limit:
                old.append(file)
    return old


def _remove(target: Path, kept: set[Path], gone: list[Path]) -> int:
    """Remove a file or folder but for kept paths inside it; bytes freed."""
    if target in kept or not (target.exists() or target.is_symlink()):
        return 0
    if target.is_dir() and any(k.is_relative_to(target) for k in kept):
        return sum(_remove(child, kept, gone) for child in sorted(target.iterdir()))
    single = target.is_symlink() or not target.is_dir()
    size = sum(_size(f) for f in ([target] if single else target.rglob("*")))
    try:
        if single:
            target.unlink()
        else:
            shutil.rmtree(target)
    except FileNotFoundError:
        return 0  # the run that it belonged to has just removed it
    except OSError as error:
        raise StoreError(f"{target} could not be removed: {plain_words(error)}") from error
    gone.append(target)
    return size


def _size(path: Path) -> int:
    """Bytes of a file; none of a folder, or where it vanished while we looked."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return 0 if stat.S_ISDIR(found.st_mode) else found.st_size


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve()) and path.resolve() != root.resolve()


@contextmanager
def _alone(root: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the store's lock, which the system frees when a process dies. AtWork when another holds it and we do not
    `wait`."""
    if not root.is_dir():
        raise BadInput(Problem("store", f"{root} does not exist", "name the folder of a sweep's results"))
    try:
        lease = Lease.take(root / ".maintenance.lock", wait=wait)
    except OSError as error:
        raise StoreError(f"{root} cannot be written: {plain_words(error)}") from error
    if lease is None:
        raise AtWork(f"another compact or gc works on {root}")
    with lease:
        yield
