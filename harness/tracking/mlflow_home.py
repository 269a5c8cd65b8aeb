"""Where the artefacts of a bare SQLite database lie: beside it, wherever the folder is moved to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from harness.tracking.mlflow_client import database_of

FOLDER = "mlflow-artifacts"


def home_of(uri: str) -> Path | None:
    """The folder of the artefacts of a bare SQLite database; None for a server, which has its own."""
    database = database_of(uri)
    return None if database is None else database.resolve().parent / FOLDER


def settle(uri: str, experiment: str) -> int:
    """Bring the addresses of artefacts up to date with where the database lies now; how many runs were moved.

    MLflow keeps them absolute and has no call that changes one. Artefacts that lie beside the database are read from
    there, and new ones are written there; a run whose artefacts still lie where they were keeps its address.
    """
    database, home = database_of(uri), home_of(uri)
    if database is None or home is None or not database.is_file():
        return 0
    place = home.as_uri()
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        try:
            found = connection.execute(
                "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?", (experiment,)
            ).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return 0  # a database that MLflow has not begun yet
            raise
        if found is None or found[1] == place:
            return 0
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (place, found[0]))
        runs = connection.execute("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?", (found[0],))
        moved = [
            (f"{place}/{run}/artifacts", run)
            for run, old in runs.fetchall()
            if (home / run).is_dir() or not Path(unquote(urlsplit(old).path)).is_dir()
        ]
        connection.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", moved)
    return len(moved)
