"""Write PacketLab mlets in Python: one file, no dependencies, Python 3.8 or newer.

A mlet is a program that pktxpmgr starts for every endpoint that connects. Put this file beside yours and
run `pktxpmgr ... ./your_mlet.py`. Ten lines fetch a page from every endpoint:

    #!/usr/bin/env python3
    import sys
    from pktlab_mlet import Session

    host = sys.argv[1]
    with Session() as endpoint:
        with endpoint.connect(host, 80) as server:
            server.send(f"GET / HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n".encode())
            page = server.receive_all()
    print(endpoint.key, endpoint.address, page)

A Session asks the endpoint for things; a request that fails raises Refused with PacketLab's status, one
that is not answered in time Silence: its answer is dropped when it comes, and the mlet may go on. All
errors are MletErrors; one that nobody catches ends the mlet with one line on standard error.
Everything else that the endpoint sends is a notification and waits, in order, until it is asked for: by a
socket for its own, by Session.notification for any. Times are the endpoint's clock, in nanoseconds since
1970; 0 means at once.

In singleton mode (`pktxpmgr -s`) one process serves all endpoints; sessions() yields them. What names an
endpoint is its key, since many may have one address; in singleton mode `--single-facts` tells it.

Afterwards results() reads the folder that `pktxpmgr --out DIR` left: see there.

Names are resolved here, at the controller, unless the mlet asks a DNS server through the endpoint. Of a
name's addresses an IPv4 one is preferred, because an endpoint may have no IPv6.
"""

from __future__ import annotations

import array
import ipaddress
import json
import operator
import os
import select
import socket
import stat
import struct
import sys
import time
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import (
    Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Set, Tuple, Type, TypeVar, Union,
)  # fmt: skip

NEVER = 0xFFFFFFFFFFFFFFFF
"""The time that is never reached."""

RAW, TCP, UDP = 0x00, 0x06, 0x11
"""Protocols, as messages number them."""

CLOCK = 0x10010000
"""Where the endpoint's clock is in its memory; 8 bytes."""

_SOCKET_STATES = 0x20000002
"""Where the state of socket 0 is in memory; those of the others follow, 0x400 bytes apart."""

_LOOK_INTERVAL = 0.5
"""Seconds for which a connection that nothing is heard of is waited for before its state is looked at:
the original's endpoints tell of a refused one nowhere else."""

Address = Tuple[str, int]
"""IP address and port."""

_PAYLOAD_MAX = 0xFFFFFF

_KEPT_MAX = 64 << 20
"""Bytes of notifications that wait until they are asked for: as much as an endpoint has receive buffers."""

_KEPT_EACH = 256
"""What one costs beside its data."""

_Self = TypeVar("_Self", bound="_Socket")

_MREAD, _MWRITE, _NOPEN, _NCLOSE, _NSEND, _NCAP, _NCTL, _YIELD = (
    0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E, 0x23,
)  # fmt: skip
_RESULT, _MDATA, _NTAG, _NSTAT, _NDATA, _NDROP, _NBLOCK, _SUSPD = (
    0x40, 0x41, 0x60, 0x61, 0x62, 0x63, 0x64, 0x68,
)  # fmt: skip

_STATUSES: Dict[int, Tuple[str, str]] = {
    0x0000: ("SUCCESS", "success"),
    0x0010: ("ECTLBADMSG", "malformed message"),
    0x0011: ("ECTLNOTSUP", "type or operation not supported in this state"),
    0x0012: ("ECTLMONREJ", "a monitor rejected it"),
    0x0013: ("ECTLMONUKN", "a monitor crashed or is unusable"),
    0x0020: ("ECRTBADHDAT", "program data bad or its digest not demanded by the chain"),
    0x0021: ("ECRTNOHDAT", "START although demanded programs are missing"),
    0x0022: ("ECRTBADFRM", "certificate form bad"),
    0x0023: ("ECRTNOSPACE", "no space for certificate"),
    0x0024: ("ECRTBADHINT", "unknown CDATA hint"),
    0x0030: ("ESYSNOBUFS", "buffer space exhausted"),
    0x0031: ("ESYSNOPERM", "no permission"),
    0x0032: ("ESKTINUSE", "sktid already open"),
    0x0033: ("ESKTNOTOPEN", "sktid not open or in an error state"),
    0x0034: ("ESKTNOPRFAM", "family unsupported"),
    0x0035: ("ESKTNOPROTO", "protocol unsupported"),
    0x0036: ("ESKTNOADDR", "local address not available"),
    0x0037: ("ESKTNOMATCH", "family or protocol differ from the open socket"),
    0x0038: ("ESKTBADFILT", "bad capture filter"),
    0x0039: ("ESKTPKTDENY", "packet denied by limits"),
    0x003A: ("ESKTOPNDENY", "open denied by limits"),
    0x0040: ("ETCPNOPORT", "TCP port unavailable"),
    0x0041: ("EPKTNOTSENT", "packet not sent"),
    0x0042: ("EUDPNOPORT", "UDP port unavailable"),
    0x0043: ("EPKTTRUNC", "packet truncated"),
    0x0044: ("ENORES", "resource limit reached"),
    0x0048: ("EMEMBADADR", "bad memory address"),
    0xFFFF: ("EUNKFAULT", "unknown"),
}

STATUS: Dict[int, str] = {status: name for status, (name, _) in _STATUSES.items()}
"""Names of statuses (`errid`)."""


class MletError(Exception):
    """Why a measurement cannot go on; the base of all errors here."""


class EndpointLeft(MletError):
    """The session is over: the endpoint or the controller has ended it."""


class Suspended(MletError):
    """The endpoint serves a more important experiment now; the session is over."""


class Silence(MletError):
    """Nothing came for as long as the mlet is willing to wait."""


class TooMuchKept(MletError):
    """The endpoint sent more than was asked for, and than is kept; after Session.notification it goes on."""


class CutRequest(MletError):
    """A part of an earlier request was sent and the rest was not: the session is of no more use."""


class Refused(MletError):
    """The endpoint refused a request, or could not send a packet."""

    def __init__(self, what: str, status: int, detail: str = "") -> None:
        name, meaning = _STATUSES.get(status, ("unnamed status", ""))
        super().__init__(f"{what}: {name} (0x{status:04x}){meaning and ': '}{meaning}{detail}")
        self.status = status


class ConnectionFailed(MletError):
    """A TCP connection was not made, or broke; `code` is NSTAT's, and `reason` says it in words."""

    def __init__(self, code: int, reason: str = "", what: str = "no connection") -> None:
        reasons = {1: "refused or reset", 2: "timed out", 3: "closed by the peer"}
        self.code = code
        self.reason = reason or reasons.get(code, _UNKNOWN_REASON)
        super().__init__(f"{what}: {self.reason}")


_UNKNOWN_REASON = "for an unknown reason"

_FAILURES: Dict[int, Tuple[int, str]] = {
    -1: (1, "refused"), -2: (1, "reset"), -3: (2, "timed out"), -4: (0xFF, "unreachable"),
}  # fmt: skip
"""The code and the reason of a socket's states in memory."""


@dataclass(frozen=True)
class Sent:
    """NTAG: a packet was sent, or not."""

    sktid: int
    tag: int
    time: int
    status: int


@dataclass(frozen=True)
class Changed:
    """NSTAT: a connection stands (`remote` is set) or ended (`code`: 1 reset, 2 timeout, 3 closed)."""

    sktid: int
    time: int
    remote: Optional[Address]
    code: int


@dataclass(frozen=True)
class Received:
    """NDATA: a piece of a stream, a datagram (`remote` is its sender) or a whole packet."""

    sktid: int
    time: int
    remote: Optional[Address]
    data: bytes


@dataclass(frozen=True)
class Dropped:
    """NDROP: the socket's receive buffer was full."""

    sktid: int
    first: int
    last: int
    packets: int
    bytes: int


@dataclass(frozen=True)
class Blocked:
    """NBLOCK: a monitor of the endpoint's operator blocked something."""

    sktid: int
    time: int
    code: int


@dataclass(frozen=True)
class Unknown:
    """A message of a type that this module does not know; `sktid` is -1."""

    sktid: int
    type: int
    payload: bytes


Notification = Union[Sent, Changed, Received, Dropped, Blocked, Unknown]


class Session:
    """The session with one endpoint, on fd 0 unless told otherwise.

    `key` is the endpoint's key id in 64 hexadecimal digits, `address` its IP address as pktxpmgr sees it (of
    the proxy, if there is one), `number` that of the session, `snikey` the experiment it asked for. What is not
    known is None: the key of an endpoint without a certificate, and in singleton mode all but the address,
    unless pktxpmgr was started with --single-facts. `timeout` is the longest wait for anything, in seconds;
    None waits for ever.
    """

    def __init__(
        self,
        stream: Union[int, socket.socket] = 0,
        address: Optional[str] = None,
        timeout: Optional[float] = 60.0,
        key: Optional[str] = None,
        number: Optional[int] = None,
        snikey: Optional[str] = None,
    ) -> None:
        if address is None and "EPADDR" in os.environ:
            key, number, snikey = _facts_of_environment()
        self.key, self.number, self.snikey = key, number, snikey
        if isinstance(stream, int):
            if address is None and "EPADDR" not in os.environ:
                unset = "EPADDR is not set: this mlet serves one endpoint, for which pktxpmgr starts it"
                raise MletError(f"{unset}; with -s use sessions(), or mlet-single before the mlet")
            stream = _session_stream(stream)
        self.address: str = os.environ.get("EPADDR", "") if address is None else address
        self.timeout = timeout
        self._stream: Union[socket.socket, _PipedStream] = stream
        self._pending = bytearray()
        # Requests that were sent and whose answers have not come.
        self._unanswered = 0
        # A part of a request was sent, and the rest never will be.
        self._cut = False
        self._notifications: Deque[Notification] = deque()
        # What keeping these costs, in bytes.
        self._kept = 0
        self._open: Set[int] = set()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def columns(self) -> str:
        """What a line about the endpoint begins with: key and address, a tab between; - for what is not known."""
        return f"{self.key or '-'}\t{self.address or '-'}"

    def __str__(self) -> str:
        """For people: the first digits of the key, and the address."""
        return " ".join(part for part in ((self.key or "")[:12], self.address) if part)

    def end(self) -> None:
        """Ends the session."""
        self._stream.close()

    # Sockets at the endpoint.

    def connect(self, host: str, port: int, buffer: int = 0x10000) -> Stream:
        """A TCP connection to `host`, once it stands."""
        remote = resolve(host, port)
        stream = Stream(self, remote, TCP)
        stream._nopen(buffer, _local(remote, 0) + _address(remote))
        try:
            stream._wait_until_connected(remote)
        except (ConnectionFailed, Silence):
            stream.close()
            raise
        return stream

    def listen(self, port: int, address: str = "0.0.0.0", buffer: int = 0x10000) -> Stream:
        """A listening TCP socket, which becomes the first connection it accepts: see Stream.accept."""
        local = (address, port)
        stream = Stream(self, local, TCP)
        stream._nopen(buffer, _address(local))
        return stream

    def udp(self, port: int = 0, address: str = "0.0.0.0", buffer: int = 0x10000) -> Datagrams:
        """A UDP socket; port 0 lets the endpoint choose. Address `::` makes it one of IPv6."""
        local = (address, port)
        datagrams = Datagrams(self, local, UDP)
        datagrams._nopen(buffer, _address(local))
        return datagrams

    def raw(self, address: str = "0.0.0.0", buffer: int = 0x10000) -> Packets:
        """A raw socket, if the endpoint may open one: whole IP packets. See Packets.capture."""
        packets = Packets(self, (address, 0), RAW)
        packets._nopen(buffer, _ip(address).packed)
        return packets

    # Memory of the endpoint.

    def read_memory(self, address: int, length: int) -> bytes:
        """`length` bytes (1 to 65535) of the endpoint's memory."""
        return self._read_memory(address, length, None)

    def _read_memory(self, address: int, length: int, deadline: Optional[float]) -> bytes:
        where = _number("MREAD: address", address, 4)
        request = where + _number("MREAD: length", length, 2, least=1)
        answer = self._exchange(_MREAD, request, "MREAD", deadline)
        if answer[:4] != where or len(answer) != 4 + length:
            raise MletError("the endpoint answered MREAD with other memory")
        return answer[4:]

    def write_memory(self, address: int, data: bytes) -> None:
        """Writes to the endpoint's memory."""
        self.request(_MWRITE, _number("MWRITE: address", address, 4) + data, "MWRITE")

    def clock(self) -> int:
        """The endpoint's clock, in nanoseconds since 1970."""
        return int.from_bytes(self.read_memory(CLOCK, 8), "big")

    def yield_until(self, resume: int) -> None:
        """Lets the endpoint go, and asks it to come back at `resume`; ends the session."""
        self.request(_YIELD, _number("YIELD: time", resume, 8), "YIELD")
        self.end()

    # Notifications.

    def notification(self, timeout: Optional[float] = None) -> Notification:
        """The next notification, of any socket; Silence if none comes in time."""
        return self._notification(lambda _: True, timeout)

    # What all of the above is made of.

    def request(self, message_type: int, payload: bytes, what: str) -> bytes:
        """Sends any request and returns the payload of its answer; `what` names it if it is refused."""
        return self._exchange(message_type, payload, what, None)

    def _exchange(
        self, message_type: int, payload: bytes, what: str, deadline: Optional[float]
    ) -> bytes:
        """As request; Silence at the deadline, and without one after the session's timeout."""
        if len(payload) > _PAYLOAD_MAX:
            excess = f"{len(payload)} bytes, a message holds {_PAYLOAD_MAX}; send less at once"
            raise MletError(f"{what}: {excess}")
        self._check_uncut()
        self._write(struct.pack("!I", message_type << 24 | len(payload)) + payload)
        self._unanswered += 1
        wait = _Wait(deadline, self.timeout)
        while True:
            answer_type, answer = self._receive(wait)
            if answer_type not in (_RESULT, _MDATA):
                self._keep(_notification(answer_type, answer))
                continue
            if self._unanswered > 0:
                # To a request that was given up: answers come in the order of the requests.
                continue
            if answer_type == _RESULT:
                _check_result(what, answer)
            if (answer_type == _MDATA) != (message_type == _MREAD):
                raise MletError(f"the endpoint answered {what} with 0x{answer_type:02x}")
            return answer

    def _write(self, message: bytes) -> None:
        """Sends all of it, or nothing, or the session is cut."""
        view, sent = memoryview(message), 0
        try:
            self._stream.settimeout(self.timeout)
            while sent < len(view):
                sent += self._stream.send(view[sent:])
        except socket.timeout:
            raise Silence("the endpoint reads nothing") from None
        except OSError as error:
            raise EndpointLeft(str(error)) from None
        finally:
            self._cut = 0 < sent < len(view)

    def _check_uncut(self) -> None:
        if self._cut:
            part = "the endpoint took only a part of an earlier request"
            raise CutRequest(f"{part}, so that nothing can be asked any more; end the session")

    def _notification(
        self, wanted: Callable[[Notification], bool], timeout: Optional[float]
    ) -> Notification:
        """The next one that is wanted; the others before it are kept."""
        self._check_uncut()
        for index, kept in enumerate(self._notifications):
            if wanted(kept):
                del self._notifications[index]
                self._kept -= _cost(kept)
                return kept
        limit = self.timeout if timeout is None else timeout
        deadline = None if limit is None else time.monotonic() + limit
        wait = _Wait(deadline, None)
        while True:
            message_type, payload = self._receive(wait)
            if message_type in (_RESULT, _MDATA):
                # To a request that was given up.
                continue
            notification = _notification(message_type, payload)
            if wanted(notification):
                return notification
            self._keep(notification)

    def _keep(self, notification: Notification) -> None:
        self._kept += _cost(notification)
        self._notifications.append(notification)

    def _forget(self, sktid: int) -> None:
        """Drops what was kept for a socket that is closed."""
        kept = [one for one in self._notifications if one.sktid != sktid]
        self._notifications = deque(kept)
        self._kept = sum(map(_cost, kept))
        self._open.discard(sktid)

    def _receive(self, wait: _Wait) -> Tuple[int, bytes]:
        """The next message, unless too many are kept already."""
        if self._kept > _KEPT_MAX:
            kept = f"more than {_KEPT_MAX >> 20} MiB of notifications"
            raise TooMuchKept(f"the endpoint has sent {kept} that the mlet has not asked for")
        while True:
            if len(self._pending) >= 4:
                end = 4 + int.from_bytes(self._pending[1:4], "big")
                if len(self._pending) >= end:
                    message_type, payload = self._pending[0], bytes(self._pending[4:end])
                    del self._pending[:end]
                    if message_type == _SUSPD:
                        raise Suspended("the endpoint serves a more important experiment now")
                    if message_type in (_RESULT, _MDATA):
                        if self._unanswered == 0:
                            raise MletError("the endpoint sent an answer to no request")
                        self._unanswered -= 1
                    return message_type, payload
            timeout = wait.left()
            try:
                self._stream.settimeout(timeout)
                data = self._stream.recv(0x10000)
            except socket.timeout:
                raise wait.silence() from None
            except OSError as error:
                raise EndpointLeft(str(error)) from None
            if not data:
                raise EndpointLeft("the endpoint has left")
            self._pending += data


class _PipedStream:
    """The session's bytes where pktxpmgr offers pipes beside the socket: written to the one, which chooses the
    pipes, and read over the socket until its end and over the other from then on. As a socket, as far as a
    session uses one."""

    def __init__(self, stream: socket.socket, read: int, written: int) -> None:
        for pipe in (read, written):
            if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
                raise OSError("no pipe")
            # What the mlet starts is not to keep the session open.
            os.set_inheritable(pipe, False)
        # So that a wait for it can end.
        os.set_blocking(written, False)
        self._socket = stream
        self._read, self._written = read, written
        self._socket_has_ended = False
        self._timeout: Optional[float] = None

    def settimeout(self, timeout: Optional[float]) -> None:
        self._timeout = timeout

    def recv(self, length: int) -> bytes:
        if not self._socket_has_ended:
            self._socket.settimeout(self._timeout)
            data = self._socket.recv(length)
            if data:
                return data
            self._socket_has_ended = True
        if self._timeout is not None:
            self._wait(self._read, select.POLLIN)
        return os.read(self._read, length)

    def send(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._written, data)
            except BlockingIOError:
                self._wait(self._written, select.POLLOUT)

    def close(self) -> None:
        self._socket.close()
        for pipe in (self._read, self._written):
            os.close(pipe)

    def _wait(self, pipe: int, event: int) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(None if self._timeout is None else self._timeout * 1000):
            raise socket.timeout


class _Wait:
    """How long one call waits: a deadline holds however much else comes, and without one each silence is
    limited. What has come is looked at once, even if the deadline has passed before."""

    def __init__(self, deadline: Optional[float], silence: Optional[float]) -> None:
        self._deadline = deadline
        self._silence = silence
        self._began = time.monotonic()
        self._looked = False

    def left(self) -> Optional[float]:
        """Seconds for the next look."""
        if self._deadline is None:
            return self._silence
        if self._looked and time.monotonic() >= self._deadline:
            raise self.silence()
        self._looked = True
        return _left(self._deadline)

    def silence(self) -> Silence:
        """The error for a wait that is over, with the time that was given to it."""
        if self._deadline is None:
            return Silence(f"nothing came for {self._silence:.3f} s")
        waited = max(self._deadline - self._began, 0.0)
        return Silence(f"what was awaited did not come in {waited:.3f} s")


class _Socket:
    """What all sockets at the endpoint have in common. Leaving a `with` closes them."""

    def __init__(self, session: Session, named: Address, protocol: int) -> None:
        free = [number for number in range(256) if number not in session._open]
        if not free:
            raise MletError("an endpoint has 256 sockets at most; close one")
        self.session = session
        self.sktid = free[0]
        self.family = _ip(named[0]).version
        self.protocol = protocol
        self._tag = 0
        self._head = bytes([self.sktid, self.family, protocol])

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        # A session that is over has closed everything, and at one that is cut nothing can be closed.
        is_over = kind is not None and issubclass(kind, (EndpointLeft, Suspended))
        if not is_over and not self.session._cut:
            self.close()

    def close(self) -> None:
        """Closes it; what it has not sent yet is lost, and what it has received is forgotten."""
        if self.sktid in self.session._open:
            self.session.request(_NCLOSE, self._head[:1], "NCLOSE")
            self.session._forget(self.sktid)

    def wait_until_sent(self, tag: int, timeout: Optional[float] = None) -> int:
        """When the packet of this tag left; raises Refused if it could not."""
        news = self._next((Sent,), timeout, lambda sent: isinstance(sent, Sent) and sent.tag == tag)
        assert isinstance(news, Sent)
        if news.status != 0:
            raise Refused("not sent", news.status)
        return news.time

    def _nopen(self, buffer: int, addresses: bytes) -> None:
        payload = self._head + _number("NOPEN: buffer", buffer, 4) + addresses
        # It may be open as well if no answer comes.
        self.session._open.add(self.sktid)
        try:
            self.session.request(_NOPEN, payload, "NOPEN")
        except Refused:
            self.session._open.discard(self.sktid)
            raise

    def _nsend(self, data: bytes, when: int, tag: Optional[int], remote: bytes = b"") -> int:
        if tag is None:
            self._tag = tag = self._tag % 0xFFFF + 1
        if not 1 <= tag <= 0xFFFF:
            raise MletError(f"NSEND: tag {tag} is not from 1 to 65535 (of tag 0 endpoints tell nothing)")
        head = self._head + _number("NSEND: time", when, 8) + _number("NSEND: tag", tag, 2)
        self.session.request(_NSEND, head + remote + data, "NSEND")
        return tag

    def _next(
        self,
        kinds: Tuple[type, ...],
        timeout: Optional[float],
        wanted: Callable[[Notification], bool] = lambda _: True,
    ) -> Notification:
        """The next notification about this socket of these kinds."""

        def is_ours(news: Notification) -> bool:
            return news.sktid == self.sktid and isinstance(news, kinds) and wanted(news)

        return self.session._notification(is_ours, timeout)


class Stream(_Socket):
    """A TCP connection of the endpoint."""

    remote: Optional[Address] = None
    _end: Optional[Changed] = None

    def accept(self, timeout: Optional[float] = None) -> Address:
        """Waits until a listening socket has become a connection; with whom."""
        self._wait_until_established(timeout)
        assert self.remote is not None
        return self.remote

    def send(self, data: bytes, when: int = 0, tag: Optional[int] = None) -> int:
        """Sends `data` at a time; the tag by which wait_until_sent knows it."""
        return self._nsend(data, when, tag)

    def receive(self, timeout: Optional[float] = None) -> bytes:
        """The next piece; empty once the peer has closed its side."""
        if self._end is None:
            news = self._next((Received, Changed), timeout)
            if isinstance(news, Received):
                return news.data
            assert isinstance(news, Changed)
            self._end = news
        if self._end.code != 3:
            # What stood cannot have been refused.
            reason = "reset" if self._end.code == 1 else ""
            raise ConnectionFailed(self._end.code, reason, "the connection broke")
        return b""

    def receive_all(self, timeout: Optional[float] = None) -> bytes:
        """Everything until the peer closes its side; `timeout` is for each piece."""
        pieces: List[bytes] = []
        while True:
            piece = self.receive(timeout)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)

    def finish(self, when: int = 0) -> None:
        """Closes our side, after everything that was to be sent."""
        self.session.request(_NCTL, self._head + _number("NCTL: time", when, 8) + b"\x01", "NCTL")

    def _wait_until_established(self, timeout: Optional[float] = None) -> None:
        news = self._next((Changed,), timeout)
        if not self._stands(news):
            assert isinstance(news, Changed)
            raise ConnectionFailed(news.code)

    def _wait_until_connected(self, remote: Address) -> None:
        """As above, and looks into the endpoint's memory, which may be all that tells of a failure."""
        what = f"no connection to {_told(remote)}"
        limit = self.session.timeout
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            wait = _LOOK_INTERVAL if deadline is None else min(_LOOK_INTERVAL, _left(deadline))
            try:
                news: Optional[Notification] = self._next((Changed,), wait)
            except Silence:
                news = None
            if news is not None and self._stands(news):
                return
            try:
                state = self._state(deadline)
            except MletError:
                if news is None:
                    raise
                state = 0
            if state < 0:
                raise ConnectionFailed(*_FAILURES.get(state, (0xFF, _UNKNOWN_REASON)), what)
            if news is not None:
                assert isinstance(news, Changed)
                raise ConnectionFailed(news.code, what=what)
            if deadline is not None and time.monotonic() >= deadline:
                raise Silence(f"{what}: the endpoint told nothing of it for {limit:.3f} s")

    def _stands(self, news: Notification) -> bool:
        assert isinstance(news, Changed)
        if news.remote is None:
            return False
        self.remote = news.remote
        return True

    def _state(self, deadline: Optional[float]) -> int:
        """The socket's state in memory; 0 if the endpoint does not tell in time."""
        address = _SOCKET_STATES + 0x400 * self.sktid
        try:
            state = self.session._read_memory(address, 1, deadline)
        except (Refused, Silence):
            return 0
        return int.from_bytes(state, "big", signed=True)


class Datagrams(_Socket):
    """A UDP socket of the endpoint."""

    def send(
        self, data: bytes, host: str, port: int, when: int = 0, tag: Optional[int] = None
    ) -> int:
        """Sends a datagram at a time; the tag by which wait_until_sent knows it."""
        return self._nsend(data, when, tag, _address(resolve(host, port, self.family)))

    def receive(self, timeout: Optional[float] = None) -> Received:
        """The next datagram, with its sender and the time at which it came."""
        news = self._next((Received,), timeout)
        assert isinstance(news, Received)
        return news


class Packets(_Socket):
    """A raw socket of the endpoint: whole IP packets, which are received only after capture()."""

    def capture(self, program: bytes, until: int = NEVER) -> None:
        """Receives from now on what the filter wants, an encoded program: see ebpf()."""
        head = self._head + _number("NCAP: time", until, 8)
        self.session.request(_NCAP, head + program, "NCAP")

    def send(self, packet: bytes, when: int = 0, tag: Optional[int] = None) -> int:
        """Sends a packet at a time; the tag by which wait_until_sent knows it."""
        return self._nsend(packet, when, tag)

    def receive(self, timeout: Optional[float] = None) -> Received:
        """The next packet, with the time at which it came."""
        news = self._next((Received,), timeout)
        assert isinstance(news, Received)
        return news


def ebpf(*instructions: Tuple[int, int, int, int, int]) -> bytes:
    """An eBPF program of (opcode, destination, source, offset, constant) each, encoded as PacketLab does.

    It returns how many bytes of a packet are wanted. One that loads bytes of the packet begins with
    (0xBF, 6, 1, 0, 0), r6 = context: no kernel takes these loads without.
    """
    body = b"".join(
        _number("eBPF: opcode", opcode, 1)
        + _number("eBPF: registers", to << 4 | source, 1)
        + struct.pack("!HI", offset & 0xFFFF, constant & 0xFFFFFFFF)
        for opcode, to, source, offset, constant in instructions
    )
    return b"\x00" + body


def sessions(control: Union[int, socket.socket] = 0) -> Iterator[Session]:
    """The sessions of a mlet in singleton mode, as endpoints connect; ends when there are no more."""
    if isinstance(control, int):
        if "EPADDR" in os.environ:
            raise MletError("this mlet serves all endpoints from one process: start pktxpmgr with -s")
        control = _socket_of(control)
    descriptors: List[int] = []
    message = b""
    while True:
        data, ancillary, flags, _ = control.recvmsg(_MESSAGE_MAX, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise MletError("a session was lost: too many open files (raise `ulimit -n`)")
        if not data:
            if message or descriptors:
                raise MletError("the manager sent half a session and left")
            return
        # Every record carries a descriptor, so that one read never brings bytes of two records.
        message += data
        if message.endswith(b"\x00"):
            if len(descriptors) != 1:
                raise MletError(f"{len(descriptors)} sessions came with one message")
            stream = socket.socket(fileno=descriptors.pop())
            yield _session_of(stream, message[:-1].decode("ascii", "replace"))
            message = b""
        elif len(message) >= _MESSAGE_MAX:
            raise MletError(_NO_ENDPOINT)


_MESSAGE_MAX = 255
"""The longest message that comes with a session."""

_NO_ENDPOINT = "the manager sent something that is neither an address nor all facts of an endpoint"


def _session_of(stream: socket.socket, message: str) -> Session:
    """Of `ADDRESS`, or of `ADDRESS SESSION KEY SNIKEY` with - for what is not known."""
    address, *facts = message.split(" ")
    if not facts:
        return Session(stream, address=address)
    known = [None if fact == "-" else fact for fact in facts]
    try:
        number, key, snikey = known
        number = None if number is None else int(number)
    except ValueError:
        raise MletError(_NO_ENDPOINT) from None
    return Session(stream, address="" if address == "-" else address, key=key, number=number, snikey=snikey)


def _facts_of_environment() -> Tuple[Optional[str], Optional[int], Optional[str]]:
    """Key, number of the session and snikey, of which a manager of the original tells none."""
    key, number, snikey = (
        os.environ.get(name) or None for name in ("PKTLAB_ENDPOINT_KEY", "PKTLAB_SESSION", "PKTLAB_SNIKEY")
    )
    return key, int(number) if number and number.isdigit() else None, snikey


class NoResults(MletError):
    """A folder holds no results, or an output of a session cannot be read."""


Scalar = Union[None, bool, int, float, str]


@dataclass(frozen=True)
class Result:
    """One session of a results folder. What is not known is None."""

    session: int
    """Its number, of which a folder has each once."""
    run: Optional[str]
    """The run it was of."""
    key: Optional[str]
    """The endpoint's key id, 64 hexadecimal digits."""
    snikey: Optional[str]
    """The experiment that the endpoint asked for."""
    outcome: str
    """"ok", or what came first: one of a closed list."""
    reason: Optional[str]
    """Why it is not "ok", in words."""
    exit: Optional[int]
    """The mlet's exit code."""
    signal: Optional[int]
    """The signal that ended the mlet."""
    run_ms: Optional[float]
    """How long the mlet ran, in milliseconds."""
    record: Dict[str, Any]
    """All that events.jsonl says of it."""
    folder: Path
    """The results folder."""

    @property
    def failed(self) -> bool:
        """Whether it counts as failed: an endpoint that was believed did not end as it should."""
        return self.record.get("failed") is True

    def stdout(self) -> bytes:
        """What the mlet printed; nothing if none was kept."""
        return self._output("stdout")

    def stdout_text(self) -> str:
        """The same as text; what is no UTF-8 is replaced."""
        return self.stdout().decode("utf-8", "replace")

    def stderr(self) -> bytes:
        """What the mlet wrote to standard error; nothing if none was kept."""
        return self._output("stderr")

    def stderr_text(self) -> str:
        """The same as text; what is no UTF-8 is replaced."""
        return self.stderr().decode("utf-8", "replace")

    def row(self) -> Dict[str, Scalar]:
        """Everything in flat columns, named as those of `pktxpmgr results export`."""
        row: Dict[str, Scalar] = {name: _part(self.record, *path) for name, path in _COLUMNS.items()}
        row["failed"] = self.failed
        return row

    def _output(self, stream: str) -> bytes:
        directory = _part(self.record, "output", "dir")
        place = _part(self.record, "output", "stream") if directory is None else f"{directory}/{stream}"
        if place is None:
            return b""
        within = PurePosixPath(place)
        # Whoever gets a folder from somebody else must not be shown files of his own as output.
        if ".." in within.parts or within.is_absolute():
            raise NoResults(f"session {self.session}: its output is not in {self.folder}")
        path = self.folder / within
        try:
            return path.read_bytes() if directory is not None else self._from_stream(path, stream)
        except OSError as error:
            raise NoResults(f"the {stream} of session {self.session}: {error}") from None

    def _from_stream(self, path: Path, stream: str) -> bytes:
        """An output in the file of all sessions (`--stream`), whose last frame the record tells."""
        place, pieces = _part(self.record, "output", stream + "_at") or 0, []
        kind = {"stdout": b"PXFo", "stderr": b"PXFe"}[stream]
        with open(path, "rb") as file:
            while place:
                file.seek(place)
                head = file.read(_FRAME.size).ljust(_FRAME.size, b"\0")
                magic, session, before, length = _FRAME.unpack(head)
                is_ours = (magic, session) == (kind, self.session) and before < place
                data = file.read(length) if is_ours else b""
                if not is_ours or len(data) < length:
                    raise OSError(f"{path} does not hold it whole")
                pieces.append(data)
                place = before
        return b"".join(reversed(pieces))


_FRAME = struct.Struct(">4sQQI")
"""What stands before the bytes of a frame: what it is, session, the frame before, length."""

_COLUMNS: Dict[str, Tuple[str, ...]] = {
    "session": ("sid",), "run": ("run",),
    "key": ("ep", "key"), "root": ("ep", "root"), "snikey": ("ep", "snikey"),
    "peer": ("ep", "peer"), "via": ("ep", "via"), "core": ("core",),
    "accepted": ("accepted",), "ended": ("t",),
    "outcome": ("outcome",), "failed": (), "reason": ("reason",), "exit": ("exit",), "signal": ("signal",),
    "tls_ms": ("ms", "tls"), "programs_ms": ("ms", "programs"), "start_ms": ("ms", "start"),
    "spawn_ms": ("ms", "spawn"), "run_ms": ("ms", "run"), "total_ms": ("ms", "total"),
    "to_ep_bytes": ("bytes", "to_ep"), "from_ep_bytes": ("bytes", "from_ep"),
    "to_ep_msgs": ("msgs", "to_ep"), "from_ep_msgs": ("msgs", "from_ep"), "linfos_lost": ("linfos_lost",),
    "relay_to_ep_count": ("relay_us", "to_ep", "count"), "relay_to_ep_p50_us": ("relay_us", "to_ep", "p50"),
    "relay_to_ep_p99_us": ("relay_us", "to_ep", "p99"), "relay_to_ep_max_us": ("relay_us", "to_ep", "max"),
    "relay_from_ep_count": ("relay_us", "from_ep", "count"), "relay_from_ep_p50_us": ("relay_us", "from_ep", "p50"),
    "relay_from_ep_p99_us": ("relay_us", "from_ep", "p99"), "relay_from_ep_max_us": ("relay_us", "from_ep", "max"),
    "output_dir": ("output", "dir"), "stdout_bytes": ("output", "stdout"),
    "stderr_bytes": ("output", "stderr"), "truncated": ("output", "truncated"),
    "shown_key": ("ep", "shown_key"),
    "output_stream": ("output", "stream"), "stdout_written": ("output", "stdout_written"),
    "stderr_written": ("output", "stderr_written"),
}  # fmt: skip
"""Where each column is in a record."""


def results(folder: Union[str, "os.PathLike[str]"]) -> Iterator[Result]:
    """The sessions of a results folder (`pktxpmgr --out DIR`), as they ended, one in memory at a time.

    The run may still be writing. A line that is no record is passed over with a warning; a last one that
    is not whole is passed over without. Raises NoResults if there is no such folder.

    >>> for s in results("campaign"):
    ...     print(s.session, s.key[:12], s.outcome, s.run_ms, s.stdout_text(), end="")
    7 ab12cd34ab12 ok 812.5 hello
    9 cd34ab12cd34 mlet_failed 31.0 half of
    >>> sum(s.failed for s in results("campaign"))
    1
    """
    path = Path(folder) / "events.jsonl"
    try:
        events = open(path, "rb")
    except OSError as error:
        raise NoResults(f"{error}; name the folder of --out") from None
    with events:
        for number, line in enumerate(events, 1):
            try:
                record = _record(line)
            except ValueError as error:
                # A run that still writes, or was killed: the rest of it comes, or never will.
                if line.endswith(b"\n"):
                    warnings.warn(f"{path}: line {number} is passed over: {error}", stacklevel=2)
                continue
            if record["ev"] == "session.end":
                names = ("session", "run", "key", "snikey", "outcome", "reason", "exit", "signal", "run_ms")
                parts: Dict[str, Any] = {name: _part(record, *_COLUMNS[name]) for name in names}
                yield Result(record=record, folder=Path(folder), **parts)


def _part(record: Dict[str, Any], *path: str) -> Any:
    part: Any = record
    for name in path:
        part = part.get(name) if isinstance(part, dict) else None
    return part


def _record(line: bytes) -> Dict[str, Any]:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        # What it says of bytes that are no text is of no use to anybody.
        raise ValueError("it is no JSON") from None
    if not isinstance(record, dict) or "ev" not in record:
        raise ValueError("it is no record")
    if record.get("v") != 1:
        raise ValueError(f"it is of version {record.get('v')}, and 1 is what is known here")
    if record["ev"] == "session.end":
        if not isinstance(record.get("sid"), int) or not isinstance(record.get("outcome"), str):
            raise ValueError("it is no record of a session")
    return record


def to_rows(found: Iterable[Result]) -> List[Dict[str, Scalar]]:
    """A flat row for each, for `pandas.DataFrame(to_rows(results(DIR)))` and the like.

    >>> [(row["session"], row["run_ms"], row["from_ep_bytes"]) for row in to_rows(results("campaign"))]
    [(7, 812.5, 902113), (9, 31.0, 0)]
    """
    return [result.row() for result in found]


def _session_stream(descriptor: int) -> Union[socket.socket, _PipedStream]:
    """The session on this descriptor, and on the pipes that are offered beside fd 0."""
    stream = _socket_of(descriptor)
    # Whatever is started by this process has no pipes of its own.
    read, _, written = os.environ.pop("PKTLAB_PIPES", "").partition(",") if descriptor == 0 else ("", "", "")
    if not (read.isdigit() and written.isdigit()):
        return stream
    try:
        return _PipedStream(stream, int(read), int(written))
    except OSError:
        return stream


def _socket_of(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        reason = f"fd {descriptor} is no socket: {error.strerror}; a mlet is started by pktxpmgr"
        raise MletError(reason) from None


def _check_result(what: str, payload: bytes) -> None:
    """Raises unless a RESULT says success."""
    if len(payload) not in (0, 2, 4, 6):
        raise MletError(f"{what}: the endpoint sent a malformed RESULT")
    status, *monitor = struct.unpack(f"!{len(payload) // 2}H", payload) or (0,)
    if status != 0:
        words = ("monitor", "its code")
        detail = ", ".join(f"{word} {number}" for word, number in zip(words, monitor))
        raise Refused(what, status, detail and f" ({detail})")


def _notification(message_type: int, payload: bytes) -> Notification:
    try:
        if message_type == _NTAG:
            sktid, tag, when = struct.unpack_from("!BHQ", payload)
            status = struct.unpack_from("!H", payload, 11)[0] if len(payload) > 11 else 0
            return Sent(sktid, tag, when, status)
        if message_type in (_NSTAT, _NDATA):
            sktid, family, protocol, when = struct.unpack_from("!BBBQ", payload)
            rest = payload[11:]
            if message_type == _NSTAT:
                if len(rest) == 1:
                    return Changed(sktid, when, None, rest[0])
                return Changed(sktid, when, _peer(family, rest)[0], 0)
            if protocol == UDP:
                remote, data = _peer(family, rest)
                return Received(sktid, when, remote, data)
            return Received(sktid, when, None, rest)
        if message_type == _NDROP:
            sktid, _, _, first, last, units, count = struct.unpack("!BBBQQII", payload)
            return Dropped(sktid, first, last, units, count)
        if message_type == _NBLOCK:
            sktid, _, _, code, when = struct.unpack("!BBBHQ", payload)
            return Blocked(sktid, when, code)
    except (struct.error, ValueError) as error:
        raise MletError(f"the endpoint sent a malformed 0x{message_type:02x}: {error}") from None
    return Unknown(-1, message_type, payload)


def _cost(kept: Notification) -> int:
    """Bytes that keeping a notification costs, about."""
    data = kept.data if isinstance(kept, Received) else b""
    data = kept.payload if isinstance(kept, Unknown) else data
    return _KEPT_EACH + len(data)


def _left(deadline: float) -> float:
    """Seconds until then; never 0, which would mean not to wait but to look."""
    return max(deadline - time.monotonic(), 1e-6)


def _peer(family: int, data: bytes) -> Tuple[Address, bytes]:
    """Address and port at the front of `data`, and the rest."""
    end = 4 if family == 4 else 16
    port = struct.unpack_from("!H", data, end)[0]
    return (str(ipaddress.ip_address(data[:end])), port), data[end + 2 :]


def _address(address: Address) -> bytes:
    return _ip(address[0]).packed + _number("port", address[1], 2)


def _ip(address: str) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """An address of the endpoint's own, of which no name is known here."""
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        raise MletError(f"{address} is no IP address; a socket's own is given as one") from None


def _number(what: str, number: int, size: int, least: int = 0) -> bytes:
    """An unsigned number of so many bytes, which `what` names if it is none."""
    most = (1 << 8 * size) - 1
    try:
        whole = operator.index(number)
    except TypeError:
        raise MletError(f"{what}: {number!r} is no whole number") from None
    if not least <= whole <= most:
        raise MletError(f"{what}: {whole} is not from {least} to {most}")
    return whole.to_bytes(size, "big")


def _told(address: Address) -> str:
    """As HOST:PORT."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _local(remote: Address, port: int) -> bytes:
    """Any address in the family of `remote`."""
    return _address(("::" if ":" in remote[0] else "0.0.0.0", port))


def resolve(host: str, port: int, family: Optional[int] = None) -> Address:
    """An address of `host`, of IP version `family` if that is given; as notifications show it."""
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6}
    _number("port", port, 2)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        # The latter is of a name that none can be.
        raise MletError(f"{host} has no address: {error}") from None
    for version in (4, 6) if family is None else (family,):
        for kind, _, _, _, address in found:
            if kind == wanted[version]:
                return str(address[0]), port
    raise MletError(f"{host} has no IPv{family or ''} address")


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
