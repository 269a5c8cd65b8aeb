"""The word `mlflow`, before anything runs: what MLflow could make nothing of."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from harness.errors import Problem, nearest

OFF = "off"
KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
"""What MLflow takes without a plug-in; databases also with their driver, `mysql+pymysql`."""
_SERVER = re.compile(r"[\w.-]+:\d+(/.*)?")


def tracking_problems(uri: str | None) -> list[Problem]:
    """What is wrong with a tracking URI: no protocol before a server, or one that neither MLflow nor a plug-in of it
    that is installed knows. None and `off` are right, and a path, which is a folder."""
    if uri is None or uri == OFF:
        return []
    if _SERVER.fullmatch(uri):
        return [Problem("mlflow", f"{uri} has no protocol: MLflow would make a folder of that name", f"http://{uri}")]
    protocol, is_address, _ = uri.partition("://")
    known = (*KINDS, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store")))
    if not is_address or protocol.partition("+")[0] in known:
        return []
    return [Problem("mlflow", f"MLflow knows no {protocol}://", f"{nearest(protocol, known)}; or mlflow=off")]
