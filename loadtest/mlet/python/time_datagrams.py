#!/usr/bin/python3
"""Round trips to a UDP echo server, from one process for all endpoints (pktxpmgr -s), each in its thread:
time_datagrams.py HOST PORT [COUNT]. The datagrams leave 10 ms apart by the endpoint's clock."""
import os
import sys
from threading import Thread
from time import monotonic
from typing import Dict, List, Tuple

from pktlab_mlet import MletError, Session, arguments, resolve, sessions, whole_number

PATIENCE = 60.0
"""Seconds to wait for datagrams to come back."""


def measure(endpoint: Session, host: str, port: int, count: int) -> None:
    server = resolve(host, port, 4)
    # What nobody else sends: datagrams of others may come to the same socket.
    mark = os.urandom(8)
    with endpoint.udp() as socket:
        start = endpoint.clock() + 10_000_000
        sent: Dict[bytes, int] = {}
        for number in range(count):
            data = mark + number.to_bytes(2, "big")
            sent[data] = socket.send(data, *server, when=start + number * 10_000_000)
        give_up = monotonic() + count * 0.01 + PATIENCE
        while sent:
            left = give_up - monotonic()
            if left < 0:
                raise MletError(f"{len(sent)} datagrams did not come back")
            answer = socket.receive(left)
            if answer.remote != server or answer.data not in sent:
                continue
            number = int.from_bytes(answer.data[len(mark) :], "big")
            nanoseconds = answer.time - socket.wait_until_sent(sent.pop(answer.data))
            # In one piece, or lines of different threads could mix.
            print(f"{endpoint.columns}\t{number}\t{nanoseconds / 1e6:.3f}\n", end="", flush=True)


def serve(endpoint: Session, host: str, port: int, count: int) -> None:
    with endpoint:
        try:
            measure(endpoint, host, port, count)
        except MletError as error:
            print(f"{endpoint}: {error}\n", end="", file=sys.stderr)


def words(given: List[str]) -> Tuple[str, int, int]:
    return given[0], whole_number(given[1]), whole_number((given[2:] or ["3"])[0])


host, port, count = arguments(words)
for endpoint in sessions():
    Thread(target=serve, args=(endpoint, host, port, count)).start()
