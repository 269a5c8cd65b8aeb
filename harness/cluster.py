"""`python -m harness.cluster`: what a Ray cluster needs before `ray up`, and after the last `ray down`."""

from __future__ import annotations

import os
from pathlib import Path

from harness.cli.cluster_words import ClusterWords
from harness.cli.helping import subcommand_help, wants_help
from harness.cli.parsing import main, parse, subcommand
from harness.clusters.checking import check_cluster, file_system_of
from harness.clusters.file import read_cluster_file
from harness.clusters.token import TOKEN, make_token
from harness.errors import EXIT_DONE, BadInput, Problem, shown

ABOUT = "The file of a Ray cluster, before `ray up` and after the last `ray down`. docs/cluster.md has the whole way."
SUBCOMMANDS = {
    "token": "make ~/.ray/auth_token, which all nodes share, where there is none; for you alone",
    "check": "everything that would stop `ray up`: file, token, credentials, region, images, types, quotas, firewall",
    "prepare": "make on AWS what is kept: shared file system, firewall, role of the head; prints the id to fill in",
    "remove": "delete what prepare made, the file system with all that lies in it",
}


def run(argv: list[str]) -> int:
    """The command. Returns the exit code; raises BadInput."""
    if wants_help(argv):
        print(subcommand_help("harness.cluster", ClusterWords, ABOUT, SUBCOMMANDS, argv))
        return EXIT_DONE
    name, rest = subcommand(argv, "harness.cluster", SUBCOMMANDS)
    words: ClusterWords = parse(rest, ClusterWords, name).words
    if name == "token":
        print(make_token(Path(TOKEN)))
        return EXIT_DONE
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    file = read_cluster_file(Path(words.file))
    if name == "check":
        print(shown("\n".join(check_cluster(file))))
        print(f"nothing is in the way: ray up -y {words.file}")
        return EXIT_DONE
    if file.config["provider"].get("type") != "aws":
        found = f"is for AWS, {words.file} has the provider {file.config['provider'].get('type')!r}"
        raise BadInput(
            Problem(name, found, "machines of one's own need a folder that all of them see; see docs/cluster.md")
        )
    from harness.clusters.preparing import prepare, remove

    if name == "remove":
        if words.delete is None or not words.delete.startswith("fs-"):
            named = file_system_of(file.config)
            fix = f"delete={named}: all stores and datasets in it are gone then"
            raise BadInput(Problem("delete", "is not the id of a file system", fix))
        remove(file.config, words.delete, print)
        return EXIT_DONE
    system = prepare(file.config, print)
    if file_system_of(file.config) == system:
        print(f"{words.file} has {system} already; next: python -m harness.cluster check")
    else:
        print(f"write {system} into {words.file}, in place of {file_system_of(file.config)}; then: "
              "python -m harness.cluster check")  # fmt: skip
    return EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(main(run))
