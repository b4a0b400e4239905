"""A session for a mlet that blocks."""

from __future__ import annotations

import array
import os
import select
import socket
from itertools import chain
from typing import Dict, Generator, Iterable, Iterator, List, Optional, Tuple, Type, TypeVar, Union

from . import dns, operations
from .endpoint import NO_ENDPOINT, Endpoint, facts_of_environment, facts_of_message
from .errors import ESKTINUSE, EndpointLeft, MletError, Refused, Suspended
from .messages import (
    NEVER, RAW, SOCKETS_MAX, TCP, UDP, Address, Notification, Received, Sent, host_port,
)  # fmt: skip
from .names import find
from .operations import ConnectionTimes, SocketOps
from .streams import SocketStream, on_descriptor, socket_of
from .talk import SILENCE_MAX, Answer, Asked, Doing, Talk

T = TypeVar("T")
_Self = TypeVar("_Self", bound="_Socket")

_LOOK_INTERVAL_MAX = 24 * 60 * 60.0
"""Seconds; the kernel takes 24 days at most."""


class Session(Endpoint):
    """The session with one endpoint, on fd 0 unless told otherwise.

    `key` is the endpoint's key id in 64 hexadecimal digits, `address` its IP address as pktxpmgr sees it (of
    the proxy, if there is one), `number` that of the session, `snikey` the experiment it asked for. What is not
    known is None: the key of an endpoint without a certificate, and in singleton mode all but the address,
    unless pktxpmgr was started with --single-facts. `timeout` is the longest wait for anything, in seconds;
    None waits for ever. `deadline` is for the whole session, in seconds from now: beyond it every wait ends with
    SessionOver.
    """

    def __init__(
        self,
        stream: Union[int, socket.socket] = 0,
        address: Optional[str] = None,
        timeout: Optional[float] = SILENCE_MAX,
        key: Optional[str] = None,
        number: Optional[int] = None,
        snikey: Optional[str] = None,
        deadline: Optional[float] = None,
    ) -> None:
        facts = (address or "", key, number, snikey)
        if address is None and "EPADDR" in os.environ:
            facts = facts_of_environment()
        super().__init__(*facts)
        if isinstance(stream, int):
            if address is None and "EPADDR" not in os.environ:
                unset = "EPADDR is not set: this mlet serves one endpoint, for which pktxpmgr starts it"
                raise MletError(f"{unset}; with -s use sessions(), or mlet-single before the mlet")
            self._stream = on_descriptor(stream)
        else:
            self._stream = SocketStream(stream)
        self._talk = Talk(timeout)
        self._connecting: List[Connecting] = []
        if deadline is not None:
            self.end_by(deadline)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the session."""
        self._stream.close()

    def end_by(self, seconds: float) -> None:
        """From now on every wait ends in so many seconds at the latest."""
        self._talk.session_deadline = self._talk.after(seconds)

    @property
    def timeout(self) -> Optional[float]:
        """The longest wait for anything, in seconds; None waits for ever."""
        return self._talk.timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self._talk.timeout = seconds

    # Sockets at the endpoint.

    def connect(
        self, host: str, port: int, buffer: int = 0x10000, timeout: Optional[float] = None
    ) -> Stream:
        """A TCP connection to `host`, once it stands; Stream.times tells when. It is closed if it does not stand
        within `timeout` seconds, in which a name is found as well."""
        deadline = self._talk.deadline(timeout)
        remote = find(self._talk, host, port, deadline)
        return Stream(self, self._run(operations.connect(self._talk, remote, deadline, buffer)))

    def begin_connect(
        self, host: str, port: int, buffer: int = 0x10000, timeout: Optional[float] = None
    ) -> Connecting:
        """Lets the endpoint begin a connection and does not wait for it; next_connection does. So many are made at
        once. Only a name is waited for, within the same timeout."""
        connecting = self._begin_connect(host, port, buffer, timeout)
        self._connecting.append(connecting)
        return connecting

    def _begin_connect(self, host: str, port: int, buffer: int, timeout: Optional[float]) -> Connecting:
        deadline = self._talk.deadline(timeout)
        remote = find(self._talk, host, port, deadline)
        connecting = Connecting(self, remote, operations.connect(self._talk, remote, deadline, buffer))
        connecting._go_on()
        self._flush()
        return connecting

    def next_connection(self) -> Optional[Connecting]:
        """Waits for the first of the connections that were begun, which stands or was not made: see Connecting.stream.
        None if none is left."""
        return self._first_done(self._connecting)

    def _first_done(self, under_way: List[Connecting]) -> Optional[Connecting]:
        """The first that is done, which is taken out; None if there are none."""
        while under_way:
            for connecting in under_way:
                if connecting._go_on():
                    under_way.remove(connecting)
                    self._flush()
                    return connecting
            limits = [one._limit for one in under_way if one._limit is not None]
            self._turn(min(limits, default=None))
        return None

    def connect_each(
        self, servers: Iterable[str], default_port: int, timeout: Optional[float] = None, at_once: int = SOCKETS_MAX
    ) -> Generator[Tuple[str, Union[ConnectionTimes, MletError]], None, None]:
        """Connects to each of these servers, `HOST` or `HOST:PORT`, as many at once as the endpoint has sockets left, but
        no more than `at_once`, and closes the connection again: each with the times of its connection, as soon as that
        stands, or with what it was not made for."""
        # Each with how many numbers of sockets are tried for it.
        left: Iterator[Tuple[str, int]] = ((server, SOCKETS_MAX) for server in servers)
        begun: Dict[Connecting, Tuple[str, int]] = {}
        under_way: List[Connecting] = []
        talk = self._talk
        try:
            while True:
                # Without one under way nothing becomes free; then the error says that there are no more.
                while (
                    len(under_way) < at_once and len(talk.open | talk.in_use) < SOCKETS_MAX
                ) or not under_way:
                    server, tries = next(left, (None, 0))
                    if server is None:
                        break
                    try:
                        connecting = self._begin_connect(*host_port(server, default_port), 0x1000, timeout)
                    except MletError as error:
                        yield server, error
                        continue
                    begun[connecting] = server, tries - 1
                    under_way.append(connecting)
                done = self._first_done(under_way)
                if done is None:
                    return
                server, tries = begun.pop(done)
                made = done._times_and_close()
                if isinstance(made, Refused) and made.status == ESKTINUSE and tries:
                    left = chain([(server, tries)], left)
                else:
                    yield server, made
        finally:
            for connecting in under_way:
                connecting._doing.close()
            self._flush()

    def listen(self, port: int, address: str = "0.0.0.0", buffer: int = 0x10000) -> Stream:
        """A listening TCP socket, which becomes the first connection it accepts: see Stream.accept."""
        return Stream(self, self._listen((address, port), TCP, buffer))

    def udp(self, port: int = 0, address: str = "0.0.0.0", buffer: int = 0x10000) -> Datagrams:
        """A UDP socket; port 0 lets the endpoint choose. Address `::` makes it one of IPv6."""
        return Datagrams(self, self._listen((address, port), UDP, buffer))

    def raw(self, address: str = "0.0.0.0", buffer: int = 0x10000) -> Packets:
        """A raw socket, if the endpoint may open one: whole IP packets. See Packets.capture."""
        return Packets(self, self._listen((address, 0), RAW, buffer))

    def _listen(self, local: Address, protocol: int, buffer: int) -> SocketOps:
        return self._run(operations.listen(self._talk, local, protocol, buffer))

    def look_up(self, name: str, server: str = "", timeout: float = 5.0) -> dns.LookUp:
        """Asks a DNS server through the endpoint for the IPv4 addresses of `name`: `HOST` or `HOST:PORT`, or else the
        endpoint's own server. A server's own name is found at the controller, within the same timeout."""
        deadline = self._talk.after(timeout)
        remote = dns.find_server(self._talk, server, deadline)
        return self._run(dns.look_up(self._talk, name, remote, timeout, deadline))

    # Memory of the endpoint.

    def read_memory(self, address: int, length: int) -> bytes:
        """`length` bytes (1 to 65535) of the endpoint's memory."""
        return self._run(operations.read_memory(self._talk, address, length))

    def write_memory(self, address: int, data: bytes) -> None:
        """Writes to the endpoint's memory."""
        self._run(operations.write_memory(self._talk, address, data))

    def clock(self) -> int:
        """The endpoint's clock, in nanoseconds since 1970."""
        return self._run(operations.clock(self._talk))

    def yield_until(self, resume: int) -> None:
        """Lets the endpoint go, and asks it to come back at `resume`; ends the session."""
        self._run(operations.yield_until(self._talk, resume))
        self.end()

    # Notifications.

    def notification(self, timeout: Optional[float] = None) -> Notification:
        """The next notification, of any socket; Silence if none comes in time. News of connections that are being made
        is left out."""
        return self._run(self._talk.any_notification(self._talk.deadline(timeout)))

    def first_of(self, sockets: List[_Socket], timeout: Optional[float] = None) -> Notification:
        """The first news of any of these sockets."""
        return self._run(operations.first_of(self._talk, [one._ops for one in sockets], timeout))

    # What all of the above is made of.

    def request(self, message_type: int, payload: bytes, what: str) -> bytes:
        """Sends any request and returns the payload of its answer; `what` names it if it is refused."""
        return self._run(self._talk.request(message_type, payload, what)).payload

    def ask(self, message_type: int, payload: bytes, what: str) -> Asked:
        """Sends any request and does not wait: answer does, in any order. So many requests are under way at once."""
        self._run(self._talk.room())
        asked = self._talk.put(message_type, payload, what)
        self._flush()
        return asked

    def answer(self, asked: Asked, timeout: Optional[float] = None) -> Answer:
        """The answer to a request, with the time at which it came."""
        deadline = None if timeout is None else self._talk.deadline(timeout)
        return self._run(self._talk.answer(asked, deadline))

    def give_up(self, asked: Asked) -> None:
        """Nobody waits for this answer any more."""
        self._talk.give_up(asked)

    def _run(self, doing: Doing[T]) -> T:
        """Moves the session's bytes until this is done."""
        try:
            limit = doing.send(None)
            while True:
                self._turn(limit)
                limit = doing.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            doing.close()
            self._flush()

    def _turn(self, limit: Optional[float]) -> None:
        """Sends and takes what there is, after a wait for either until that time."""
        talk, stream = self._talk, self._stream
        self._flush()
        poll = select.poll()
        wanted = {stream.read_fd: 0 if talk.is_full else select.POLLIN}
        if talk.unsent:
            wanted[stream.write_fd] = wanted.get(stream.write_fd, 0) | select.POLLOUT
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        # Rounded up, so that it is over then; and a look too many each day costs nothing.
        left = None if limit is None else min(max(limit - talk.monotonic(), 0.0), _LOOK_INTERVAL_MAX) * 1000 + 1
        poll.poll(0 if limit is not None and left == 1 else left)
        self._flush()
        if not talk.is_full:
            take_in(talk, stream)
        talk.looked()

    def _flush(self) -> None:
        flush(self._talk, self._stream)


def flush(talk: Talk, stream: SocketStream) -> None:
    """Sends as much as is taken at once."""
    while talk.unsent:
        try:
            talk.sent(stream.write_now(talk.unsent))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            # Nobody takes it; what came before can still be read, and then its end.
            talk.sent(len(talk.unsent))


def take_in(talk: Talk, stream: SocketStream) -> None:
    """Takes what has come."""
    try:
        data = stream.read_now()
    except (BlockingIOError, InterruptedError):
        return
    except OSError as error:
        talk.end(str(error))
        return
    if data:
        talk.push(data)
    else:
        talk.end("the endpoint left")


class Connecting:
    """A connection that is being made, to `remote`."""

    def __init__(self, session: Session, remote: Address, doing: Doing[SocketOps]) -> None:
        self.remote = remote
        self._session, self._doing = session, doing
        self._limit: Optional[float] = None
        self._done: Union[None, SocketOps, MletError] = None

    def stream(self) -> Stream:
        """The connection; raises what it was not made for."""
        if self._done is None:
            raise MletError("this connection is still being made: wait for it with next_connection")
        if isinstance(self._done, MletError):
            raise self._done
        return Stream(self._session, self._done)

    def _times_and_close(self) -> Union[ConnectionTimes, MletError]:
        """Of what is done: when it was made, or what it was not made for."""
        if isinstance(self._done, SocketOps):
            self._done.abandon()
            return self._done.times_known()
        assert self._done is not None
        return self._done

    def _go_on(self) -> bool:
        """Whether it is done."""
        if self._done is None:
            try:
                self._limit = self._doing.send(None)
            except StopIteration as done:
                self._done = done.value
            except MletError as error:
                self._done = error
        return self._done is not None


class _Socket:
    """What all sockets at the endpoint have in common. Leaving a `with` closes them."""

    def __init__(self, session: Session, ops: SocketOps) -> None:
        self.session = session
        self._ops = ops

    @property
    def sktid(self) -> int:
        """Its number."""
        return self._ops.sktid

    @property
    def family(self) -> int:
        """IP version."""
        return self._ops.family

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        # A session that is over has closed everything.
        if kind is None or not issubclass(kind, (EndpointLeft, Suspended)):
            if kind is None:
                self.close()
            else:
                # What went wrong matters more than how long it takes to close.
                self._ops.abandon()
                self.session._flush()

    def close(self) -> None:
        """Closes it; what it has not sent yet is lost, and what it has received is forgotten."""
        self.session._run(self._ops.close())

    def wait_until_sent(self, tag: int, timeout: Optional[float] = None) -> int:
        """When the packet of this tag left, by the endpoint's clock; raises NotSent if it could not."""
        return self.sent(tag, timeout).time

    def sent(self, tag: int, timeout: Optional[float] = None) -> Sent:
        """The same, with the time at which the mlet was told of it (`came`)."""
        return self.session._run(self._ops.sent(tag, timeout))


class Stream(_Socket):
    """A TCP connection of the endpoint."""

    @property
    def remote(self) -> Optional[Address]:
        """The peer, once the connection stands."""
        return self._ops.remote

    @property
    def times(self) -> ConnectionTimes:
        """When the connection was made."""
        return self._ops.times_known()

    def accept(self, timeout: Optional[float] = None) -> Address:
        """Waits until a listening socket has become a connection; with whom."""
        return self.session._run(self._ops.accept(timeout))

    def send(self, data: bytes, when: int = 0, tag: Optional[int] = None) -> int:
        """Sends `data` at a time; the tag by which wait_until_sent knows it."""
        return self.session._run(self._ops.send(data, when, tag))

    def receive(self, timeout: Optional[float] = None) -> bytes:
        """The next piece; empty once the peer has closed its side."""
        piece = self.receive_piece(timeout)
        return b"" if piece is None else piece.data

    def receive_piece(self, timeout: Optional[float] = None) -> Optional[Received]:
        """The next piece with its times; None once the peer has closed its side."""
        return self.session._run(self._ops.receive_piece(timeout))

    def receive_all(self, timeout: Optional[float] = None) -> bytes:
        """Everything until the peer closes its side; `timeout` is for each piece."""
        return self.session._run(self._ops.receive_all(timeout))

    def finish(self, when: int = 0) -> None:
        """Closes our side, after everything that was to be sent."""
        self.session._run(self._ops.finish(when))


class _Receiving(_Socket):
    def receive(self, timeout: Optional[float] = None) -> Received:
        """The next datagram or packet, with the times at which it came."""
        return self.session._run(self._ops.receive(timeout))


class Datagrams(_Receiving):
    """A UDP socket of the endpoint."""

    def send(
        self, data: bytes, host: str, port: int, when: int = 0, tag: Optional[int] = None
    ) -> int:
        """Sends a datagram at a time; the tag by which wait_until_sent knows it."""
        talk = self.session._talk
        remote = find(talk, host, port, talk.deadline(None), self.family)
        return self.session._run(self._ops.send(data, when, tag, remote))


class Packets(_Receiving):
    """A raw socket of the endpoint: whole IP packets, which are received only after capture()."""

    def capture(self, program: bytes, until: int = NEVER) -> None:
        """Receives from now on what the filter wants, an encoded program: see ebpf()."""
        self.session._run(self._ops.capture(program, until))

    def send(self, packet: bytes, when: int = 0, tag: Optional[int] = None) -> int:
        """Sends a packet at a time; the tag by which wait_until_sent knows it."""
        return self.session._run(self._ops.send(packet, when, tag))


_MESSAGE_MAX = 255
"""The longest message that comes with a session."""


def sessions(control: Union[int, socket.socket] = 0) -> Iterator[Session]:
    """The sessions of a mlet in singleton mode, as endpoints connect; ends when there are no more."""
    if isinstance(control, int):
        if "EPADDR" in os.environ:
            raise MletError("this mlet serves all endpoints from one process: start pktxpmgr with -s")
        control = socket_of(control)
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
            address, key, number, snikey = facts_of_message(message[:-1].decode("ascii", "replace"))
            yield Session(stream, address=address, key=key, number=number, snikey=snikey)
            message = b""
        elif len(message) >= _MESSAGE_MAX:
            raise MletError(NO_ENDPOINT)
