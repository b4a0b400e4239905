"""Finds the addresses of names at the controller, in bounded time."""

from __future__ import annotations

import ipaddress
import queue
import threading
from typing import Optional, Union

from .errors import SessionOver, Silence
from .messages import Address, resolve
from .talk import Talk


def find(talk: Talk, host: str, port: int, deadline: Optional[float], family: Optional[int] = None) -> Address:
    """As `resolve`, by this time of the monotonic clock at the latest."""
    try:
        ipaddress.ip_address(host)
        return resolve(host, port, family)
    except ValueError:
        pass
    # The system's own look-up ends when it likes, and nothing waits for this thread: not the mlet's end either.
    found: "queue.Queue[Union[Address, Exception]]" = queue.Queue()

    def look_up() -> None:
        try:
            found.put(resolve(host, port, family))
        except Exception as error:
            found.put(error)

    begun = talk.monotonic()
    limit = talk.limit(deadline)
    threading.Thread(target=look_up, daemon=True).start()
    try:
        address = found.get(timeout=None if limit is None else max(limit - begun, 0.0))
    except queue.Empty:
        late = Silence if limit == deadline else SessionOver
        raise late(f"the address of {host}", talk.monotonic() - begun) from None
    if isinstance(address, Exception):
        raise address
    return address
