"""Bytes that nobody else draws. Not for secrets.

The manager names run and session to a mlet, and it has drawn the name of the run at random: the bytes are made of both, so
that a mlet which is run again with the same names, as ``pktfleet replay`` does, draws the same ones.
"""

import hashlib
import itertools
import os

_drawn = itertools.count()


def random_bytes(count: int) -> bytes:
    """Up to 64 bytes that nobody else draws: they tell the answers to a mlet's own packets from those to others'.

    A mlet that draws from here alone, in one thread, can be replayed (``pktfleet replay``).
    """
    run, session = os.environ.get("PKTLAB_RUN"), os.environ.get("PKTLAB_SESSION")
    if not run or not session:
        return os.urandom(count)
    names = f"{run} {session}".encode()[:64]
    return hashlib.blake2b(next(_drawn).to_bytes(8, "big"), key=names).digest()[:count]
