"""A library that, preloaded, makes `flock` what it is on NFSv4."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NFS_FLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/file.h>
/* What an NFS client makes of flock: a byte-range lock of the open file, which asks for a descriptor that may read to
   share it and for one that may write to hold it alone. */
int flock(int fd, int how) {
    struct flock range = {.l_whence = SEEK_SET};
    range.l_type = how & LOCK_UN ? F_UNLCK : how & LOCK_SH ? F_RDLCK : F_WRLCK;
    return fcntl(fd, how & LOCK_NB ? F_OFD_SETLK : F_OFD_SETLKW, &range);
}
"""


def library(folder: Path) -> str:
    """The library, compiled into a folder: the value of LD_PRELOAD. Skips the test where no C compiler is at hand."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc): NFS's flock cannot be emulated")
    (folder / "flock.c").write_text(NFS_FLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "flock.so", folder / "flock.c"], check=True)
    return str(folder / "flock.so")
