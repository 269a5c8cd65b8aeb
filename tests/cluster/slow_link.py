"""Holds back the packets on their way to one machine: `python slow_link.py BRIDGE NAME LINK MILLISECONDS`.

The link moves to a bridge of its own, `NAME`, and this process carries frames between it and `BRIDGE` by a tap in
each: `netem`, which does it in the kernel, is a module that not every kernel has. It prints `slow` once it carries; its
taps end with it, the link is for its caller to put back.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536


def ip(*words: str) -> None:
    """Runs `ip`. Raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True)


def tap(name: str, bridge: str) -> int:
    """A new tap in a bridge, open. What the kernel hands out there are frames of one packet, with their checksums."""
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    ip("link", "set", name, "master", bridge, "up")
    return opened


def frames(opened: int) -> Iterator[bytes]:
    """What lies there to be read."""
    while True:
        try:
            yield os.read(opened, FRAME_BYTES)
        except BlockingIOError:
            return


def carry(outside: int, inside: int, delay_s: float) -> None:
    """Carries frames: from outside after a delay, back at once; never ends."""
    held: deque[tuple[float, bytes]] = deque()
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        ready, _, _ = select.select([outside, inside], [], [], wait)
        if outside in ready:
            due = time.monotonic() + delay_s
            held.extend((due, frame) for frame in frames(outside))
        if inside in ready:
            for frame in frames(inside):
                os.write(outside, frame)
        while held and held[0][0] <= time.monotonic():
            os.write(inside, held.popleft()[1])


if __name__ == "__main__":
    bridge, name, link, milliseconds = sys.argv[1:]
    ip("link", "add", name, "type", "bridge")
    ip("link", "set", name, "up")
    ends = tap(f"{name}o", bridge), tap(f"{name}i", name)
    ip("link", "set", link, "master", name)
    print("slow", flush=True)
    carry(*ends, int(milliseconds) / 1000)
