"""Write PacketLab mlets in Python: no dependencies, Python 3.8 or newer.

A mlet is a program that pktxpmgr starts for every endpoint that connects. Ten lines fetch a page from every endpoint:

    #!/usr/bin/python3
    import sys
    from pktlab_mlet import Session

    host = sys.argv[1]
    with Session() as endpoint:
        with endpoint.connect(host, 80) as server:
            server.send(f"GET / HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n".encode())
            page = server.receive_all()
    print(endpoint.key, endpoint.address, page)

A Session asks the endpoint for things. What fails is a MletError: a request that is refused raises Refused with
PacketLab's status (Denied if the endpoint may not do it), a connection that is not made a ConnectionFailed of its kind,
and what does not come in time Silence, which says what was awaited, of which target and for how long; an answer that comes
later is dropped, and the mlet may go on. An error that nobody catches ends the mlet with one line on standard error.

A session needs neither PacketLab nor an endpoint to be tested; any stream socket is one:

>>> import socket, struct
>>> near, far = socket.socketpair()
>>> # This endpoint has answered before it was asked what time it is.
>>> far.sendall(struct.pack("!BHBIQ", 0x41, 0, 12, 0x10010000, 1_700_000_000_000_000_000))
>>> with Session(near, "192.0.2.1") as endpoint:
...     endpoint.clock()
1700000000000000000

Everything else that the endpoint sends is a notification and waits, in order, until it is asked for: by a
socket for its own, by Session.notification for any. Times of the endpoint are of its clock, those that say so of the
controller's, both in nanoseconds since 1970; as the time of a packet 0 means at once.

Many things are done at once with Session.ask and Session.answer (requests), Session.begin_connect and
Session.next_connection (connections), Session.connect_each (any number of servers), Session.first_of (sockets), or on
asyncio with AsyncSession.

In singleton mode (`pktxpmgr -s`) one process serves all endpoints; sessions() yields them. What names an
endpoint is its key, since many may have one address; in singleton mode `--single-facts` tells it.

What tells the answers to a mlet's own packets from those to others' comes from random_bytes(), so that a captured session
can be replayed with `pktfleet replay`.

Afterwards results() reads the folder that `pktxpmgr --out DIR` left: see there.

Names are resolved here, at the controller, unless Session.look_up asks a DNS server through the endpoint. Of a
name's addresses an IPv4 one is preferred, because an endpoint may have no IPv6.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Dict, Optional, Type

from ._version import VERSION
from .aio import AsyncDatagrams, AsyncPackets, AsyncSession, AsyncStream, async_sessions
from .dns import LookUp, LookUpFailed
from .draws import random_bytes
from .errors import (
    STATUSES, ConnectionClosed, ConnectionFailed, ConnectionRefused, ConnectionReset, ConnectionTimedOut, Denied,
    EndpointLeft, MletError, NoResults, NotSent, Refused, RefusedOrReset, SessionOver, Silence, Suspended, TooMuchKept,
    Unreachable, Unread, Unresolved,
)  # fmt: skip
from .judging import arguments, whole_number
from .messages import (
    CLOCK, NEVER, RAW, SOCKETS_MAX, TCP, UDP, Address, Blocked, Changed, Dropped, Notification, Received, Sent, Unknown,
    ebpf, host_port, resolve,
)  # fmt: skip
from .operations import ConnectionTimes
from .results import Result, Scalar, results, to_rows
from .session import Connecting, Datagrams, Packets, Session, Stream, sessions
from .talk import KEPT_LEN_MAX, OUTGOING_LEN_MAX, SILENCE_MAX, Answer, Asked

__version__ = VERSION

__all__ = [
    "CLOCK", "KEPT_LEN_MAX", "NEVER", "OUTGOING_LEN_MAX", "RAW", "SILENCE_MAX", "SOCKETS_MAX", "STATUS", "TCP", "UDP",
    "Address", "Answer", "Asked", "AsyncDatagrams", "AsyncPackets", "AsyncSession", "AsyncStream", "Blocked", "Changed",
    "Connecting", "ConnectionClosed", "ConnectionFailed", "ConnectionRefused", "ConnectionReset", "ConnectionTimedOut",
    "ConnectionTimes", "Datagrams", "Denied", "Dropped", "EndpointLeft", "LookUp", "LookUpFailed", "MletError",
    "NoResults", "NotSent", "Notification", "Packets", "Received", "Refused", "RefusedOrReset", "Result", "Scalar",
    "Sent", "Session", "SessionOver", "Silence", "Stream", "Suspended", "TooMuchKept", "Unknown", "Unreachable",
    "Unread", "Unresolved", "arguments", "async_sessions", "ebpf", "host_port", "random_bytes", "resolve", "results",
    "sessions", "to_rows", "whole_number",
]  # fmt: skip

STATUS: Dict[int, str] = {status: name for status, (name, _) in STATUSES.items()}
"""Names of statuses (`errid`)."""


def _excepthook(
    kind: Type[BaseException], error: BaseException, traceback: Optional[TracebackType]
) -> None:
    """One line for what went wrong in the measurement; a fault of the mlet itself keeps its traceback."""
    if not issubclass(kind, MletError):
        sys.__excepthook__(kind, error, traceback)
        return
    name = os.path.basename(sys.argv[0])
    key, address = os.environ.get("PKTLAB_ENDPOINT_KEY", "")[:12], os.environ.get("EPADDR", "")
    endpoint = " ".join(part for part in (key, address) if part)
    print(f"{name}: {f'endpoint {endpoint}: ' if endpoint else ''}{error}", file=sys.stderr)


sys.excepthook = _excepthook
