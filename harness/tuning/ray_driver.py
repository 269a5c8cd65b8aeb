"""All studies through Ray: one runtime, one Tuner per shape of resources, reused actors."""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from harness.clusters.token import TOKEN
from harness.errors import BadInput, Problem
from harness.tuning.head import RAY_WAITS_S, START, check_head, check_token, watched_head
from harness.tuning.leaving import Leaving, leaving_by_sigterm
from harness.tuning.local_ray import started
from harness.tuning.nodes import Home, check_nodes, marked
from harness.tuning.progress import ProgressDisplay
from harness.tuning.scheduler import Job, Scheduler

Shape = tuple[int, float, float]
"""Workers, CPUs and GPUs of each."""
Room = Callable[[int, float, float], int]
"""Runs of a shape that a cluster holds once all its machines are there."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Under `uv run` Ray would build a new environment, gigabytes of it, for its workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    # A stopped trial cleans up before its actor takes the next one.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # An actor that is used again for trial after trial keeps what each thread's heap once held: glibc's many heaps
    # grew by 80 to 290 MB a trial, one heap stays.
    "MALLOC_ARENA_MAX": "1",
    "RAY_gcs_rpc_server_reconnect_timeout_s": str(RAY_WAITS_S),
}
"""Quiet, no files beside ours, reports at once; read by Ray at its import, by the C library as a worker starts."""
OBJECT_STORE_BYTES = 100_000_000
"""Nothing large travels through Ray; its default would take 30 % of the memory."""


def run_on_ray(
    scheduler: Scheduler,
    progress: ProgressDisplay,
    *,
    execute: str,
    store_root: Path,
    address: str | None,
    parallel: int | None,
    room: Room | None,
    show: bool,
) -> None:
    """Run what is left. See `harness.tuning.drivers.run_studies`."""
    shapes: dict[Shape, list[str]] = {}
    for study in (state.study for state in scheduler.states):
        shapes.setdefault((study.workers, study.cores_per_run, study.gpus), []).append(study.id)
    with runtime(address), leaving_by_sigterm(store_root) as leaving:
        import ray

        for shape in shapes:
            _check_fits(shape, ray.cluster_resources(), address)
        with marked(store_root) if address is not None else nullcontext() as home:
            if home is not None:
                check_nodes(home)
            for shape, ids in shapes.items():
                limit = _limit(shape, address, parallel, room)
                with progress.watching(scheduler, limit) if show else nullcontext():
                    _tune(scheduler, ids, shape, execute, store_root, limit, progress, leaving, home)
                if leaving.told:
                    raise KeyboardInterrupt


def fits(shape: Shape, resources: Mapping[str, float]) -> int:
    """Runs of this shape that a machine or cluster holds at a time, their drivers included."""
    workers, cpus, gpus = shape
    by_cpu = resources.get("CPU", 0.0) / (workers * cpus)
    by_gpu = resources.get("GPU", 0.0) / (workers * gpus) if gpus else math.inf
    return math.floor(min(by_cpu, by_gpu) + 1e-9)


def _limit(shape: Shape, address: str | None, parallel: int | None, room: Room | None) -> Callable[[], int]:
    """How many runs may be in flight now; on a cluster more than fit, so that it scales up: as many as it holds with
    all its machines, one more where that is not known."""
    whole = room(*shape) if room is not None else 0

    def limit() -> int:
        import ray

        now = fits(shape, ray.cluster_resources())
        if address is not None:
            now = max(now + 1, whole)
        return max(1, now if parallel is None else min(now, parallel))

    return limit


def _check_fits(shape: Shape, resources: Mapping[str, float], address: str | None) -> None:
    if address is None and fits(shape, resources) < 1:
        workers, cpus, gpus = shape
        found = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs on this machine"
        raise BadInput(
            Problem(
                "workers",
                f"{found}, a run needs {workers * cpus:g} and {workers * gpus:g}",
                "lower workers, threads or gpus, or name a cluster by address=",
            )
        )


@contextmanager
def runtime(address: str | None) -> Iterator[None]:
    """A connected Ray runtime; one that was there before is used and left alone."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    chosen = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if address is None and not chosen and "ray" not in sys.modules:
        # Ray's ports listen on all interfaces: a token that only this runtime knows, and that no file keeps.
        # Ray reads the mode when it is imported; where that has happened, its own default token file must do.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    if address is not None and (len(chosen - {"RAY_AUTH_MODE"}) or Path(TOKEN).expanduser().is_file()):
        # Who has a token means to use it; Ray turns it on by itself only once it has told so.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():
        yield
        return
    local = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    before = os.environ.get("PYTHONPATH")
    if address is None:
        # What this process imports, its workers import from the same place.
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in sys.path)
    try:
        if address is not None:
            check_head(address)
        try:
            if address is not None:
                check_token(address)
            start: Callable[[], object] = partial(
                ray.init,
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(local if address is None else {"runtime_env": {"env_vars": ENVIRONMENT}}),
            )
            if address is None:
                start = partial(started, start)
            start()
        except ConnectionError as error:
            if address is None:
                raise
            found = f"no Ray head at {address}: {(str(error).splitlines() or ['no answer'])[0]}"
            raise BadInput(Problem("address", found, f"{START}; its token must be in RAY_AUTH_TOKEN")) from error
        from harness.tuning.ray_adapters import without_notes_of_ray

        head = ray.get_runtime_context().gcs_address
        with without_notes_of_ray(), watched_head(head) if address is not None else nullcontext():
            yield
    finally:
        ray.shutdown()
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _tune(
    scheduler: Scheduler,
    only: Collection[str],
    shape: Shape,
    execute: str,
    store_root: Path,
    limit: Callable[[], int],
    progress: ProgressDisplay,
    leaving: Leaving,
    home: Home | None,
) -> None:
    """One Tuner over all studies of one shape. Raises what plan or store raised in the meantime."""
    from harness.tuning.janitor import remove_orphans
    from harness.tuning.ray_adapters import Routing, credentials_stay_here, every_death_is_told
    from harness.tuning.ray_worker import JobMessage

    # A process that died is told by the progress display and, where it stays dead, as data.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Tune starts trials one by one unless as many may wait as run.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(limit())
    workers, cpus, gpus = shape
    with _scratch_folders(store_root, workers) as (scratch, shared):

        def message(job: Job) -> dict[str, Any]:
            own = (job.id, execute, job.payload, job.rungs, job.study.threads, cpus, gpus, workers)
            return JobMessage(*own, str(shared), str(leaving.file), home).to_config()

        told = (progress.restarted, progress.said, lambda: leaving.told)
        search = Routing(scheduler, frozenset(only), message, limit, *told)
        try:
            with every_death_is_told(), credentials_stay_here():
                _tuner(scheduler, search, shape, scratch, home is not None).fit()
        finally:
            if workers > 1:
                remove_orphans()
    if search.error is not None:
        raise search.error


@contextmanager
def _scratch_folders(store_root: Path, workers: int) -> Iterator[tuple[Path, Path]]:
    """Folders for this driver alone, removed at the end: Tune's, and that of the snapshots of several workers."""
    scratch = shared = Path(tempfile.mkdtemp(prefix="sweep-"))
    try:
        if workers > 1:
            # All nodes must see it, and no other driver of the same store may remove it.
            work = store_root.absolute() / "work"
            work.mkdir(parents=True, exist_ok=True)
            shared = Path(tempfile.mkdtemp(prefix=f".train-{os.getpid()}-", dir=work))
        yield scratch, shared
    finally:
        for folder in {scratch, shared}:
            shutil.rmtree(folder, ignore_errors=True)


def _tuner(scheduler: Scheduler, search: Any, shape: Shape, scratch: Path, grows: bool) -> Any:
    import ray
    from ray import tune
    from ray.autoscaler.v2.sdk import get_cluster_status

    from harness.tuning.janitor import Janitor
    from harness.tuning.launches import LaunchWatch
    from harness.tuning.ray_adapters import Abort, Rungs, Watchdog
    from harness.tuning.ray_worker import DRIVER_CPU, run_trial

    workers, cpus, gpus = shape
    nested = workers > 1
    resources = {"CPU": DRIVER_CPU} if nested else {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    callbacks: list[Any] = [Watchdog(scheduler, search), *([Janitor()] if nested else [])]
    if grows:
        head = ray.get_runtime_context().gcs_address
        callbacks.append(
            LaunchWatch(lambda: get_cluster_status(head), lambda: fits(shape, ray.cluster_resources()), search.end)
        )
    return tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=-1,
            reuse_actors=not nested,
            search_alg=search,
            scheduler=Rungs(scheduler, search),
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            verbose=0,
            stop=Abort(search),
            callbacks=callbacks,
            # A dead run goes back to the scheduler, which knows where it died.
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
