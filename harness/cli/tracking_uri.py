"""The word `mlflow`, before anything runs: what MLflow could make nothing of."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from harness.errors import Problem, nearest, without_secrets

OFF = "off"
KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
"""What MLflow takes without a plug-in; databases also with their driver, `mysql+pymysql`."""
_SERVER = re.compile(r"(\S+@)?([\w.-]+|\[[0-9a-fA-F:]+\]):\d+(/.*)?")


def tracking_problems(uri: str | None) -> list[Problem]:
    """What is wrong with a tracking URI: no protocol before a server, or one that neither MLflow nor a plug-in of it
    that is installed knows. None and `off` are right, and a path, which is a folder."""
    if uri is None or uri == OFF:
        return []
    protocol, is_address, _ = uri.partition("://")
    if not is_address:
        found = "the address of a server without its protocol: MLflow would make a folder of that name"
        right = without_secrets(f"http://{uri}")
        return [Problem("mlflow", found, right)] if _SERVER.fullmatch(uri) else []
    known = (*KINDS, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store")))
    if protocol.lower().partition("+")[0] in known:
        return []
    return [Problem("mlflow", f"MLflow knows no {protocol}://", f"{nearest(protocol, known)}; or mlflow=off")]
