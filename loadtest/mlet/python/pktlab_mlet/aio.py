"""A session on asyncio: as Session and its sockets, with `await`, and any number of things at once.

Cancelling a call gives up what it waited for; a connection that was being made is closed.
"""

from __future__ import annotations

import asyncio
import socket
from typing import AsyncIterator, List, Optional, Type, TypeVar, Union

from . import dns, operations
from .endpoint import Endpoint
from .errors import EndpointLeft, Suspended
from .messages import NEVER, RAW, TCP, UDP, Address, Notification, Received, Sent
from .names import find
from .operations import ConnectionTimes, SocketOps
from .session import Session, flush, sessions, take_in
from .talk import SILENCE_MAX, Answer, Asked, Doing

T = TypeVar("T")
_Self = TypeVar("_Self", bound="_AsyncSocket")


class AsyncSession(Endpoint):
    """The session with one endpoint, on asyncio; arguments and facts are those of Session."""

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
        self._wrap(Session(stream, address, timeout, key, number, snikey, deadline))

    def _wrap(self, session: Session) -> None:
        super().__init__(session.address, session.key, session.number, session.snikey)
        self._session = session
        self._talk, self._stream = session._talk, session._stream
        self._waiting: List[asyncio.Future[None]] = []
        self._watched: List[int] = []

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the session."""
        self._watch([])
        self._session.end()

    def end_by(self, seconds: float) -> None:
        """From now on every wait ends in so many seconds at the latest."""
        self._session.end_by(seconds)
        # Those who wait do so until another time now.
        if self._waiting:
            self._look()

    async def connect(
        self, host: str, port: int, buffer: int = 0x10000, timeout: Optional[float] = None
    ) -> AsyncStream:
        """A TCP connection to `host`, once it stands; AsyncStream.times tells when. See Session.connect."""
        deadline = self._talk.deadline(timeout)
        remote = await self._find(host, port, deadline)
        return AsyncStream(self, await self._run(operations.connect(self._talk, remote, deadline, buffer)))

    async def listen(self, port: int, address: str = "0.0.0.0", buffer: int = 0x10000) -> AsyncStream:
        """A listening TCP socket, which becomes the first connection it accepts: see AsyncStream.accept."""
        return AsyncStream(self, await self._listen((address, port), TCP, buffer))

    async def udp(self, port: int = 0, address: str = "0.0.0.0", buffer: int = 0x10000) -> AsyncDatagrams:
        """A UDP socket; port 0 lets the endpoint choose. Address `::` makes it one of IPv6."""
        return AsyncDatagrams(self, await self._listen((address, port), UDP, buffer))

    async def raw(self, address: str = "0.0.0.0", buffer: int = 0x10000) -> AsyncPackets:
        """A raw socket, if the endpoint may open one. See AsyncPackets.capture."""
        return AsyncPackets(self, await self._listen((address, 0), RAW, buffer))

    async def _listen(self, local: Address, protocol: int, buffer: int) -> SocketOps:
        return await self._run(operations.listen(self._talk, local, protocol, buffer))

    async def look_up(self, name: str, server: str = "", timeout: float = 5.0) -> dns.LookUp:
        """See Session.look_up."""
        deadline = self._talk.after(timeout)
        in_thread = asyncio.get_running_loop().run_in_executor
        remote = await in_thread(None, dns.find_server, self._talk, server, deadline)
        return await self._run(dns.look_up(self._talk, name, remote, timeout, deadline))

    async def read_memory(self, address: int, length: int) -> bytes:
        """`length` bytes (1 to 65535) of the endpoint's memory."""
        return await self._run(operations.read_memory(self._talk, address, length))

    async def write_memory(self, address: int, data: bytes) -> None:
        """Writes to the endpoint's memory."""
        await self._run(operations.write_memory(self._talk, address, data))

    async def clock(self) -> int:
        """The endpoint's clock, in nanoseconds since 1970."""
        return await self._run(operations.clock(self._talk))

    async def yield_until(self, resume: int) -> None:
        """Lets the endpoint go, and asks it to come back at `resume`; ends the session."""
        await self._run(operations.yield_until(self._talk, resume))
        self.end()

    async def notification(self, timeout: Optional[float] = None) -> Notification:
        """The next notification, of any socket; Silence if none comes in time. News of connections that are being made
        is left out."""
        return await self._run(self._talk.any_notification(self._talk.deadline(timeout)))

    async def first_of(self, sockets: List[_AsyncSocket], timeout: Optional[float] = None) -> Notification:
        """The first news of any of these sockets."""
        ops = [one._ops for one in sockets]
        return await self._run(operations.first_of(self._talk, ops, timeout))

    async def request(self, message_type: int, payload: bytes, what: str) -> bytes:
        """Sends any request and returns the payload of its answer; `what` names it if it is refused."""
        return (await self._run(self._talk.request(message_type, payload, what))).payload

    async def ask(self, message_type: int, payload: bytes, what: str) -> Asked:
        """Sends any request and does not wait: answer does, in any order."""
        await self._run(self._talk.room())
        asked = self._talk.put(message_type, payload, what)
        flush(self._talk, self._stream)
        return asked

    async def answer(self, asked: Asked, timeout: Optional[float] = None) -> Answer:
        """The answer to a request, with the time at which it came."""
        deadline = None if timeout is None else self._talk.deadline(timeout)
        return await self._run(self._talk.answer(asked, deadline))

    async def _find(
        self, host: str, port: int, deadline: Optional[float], family: Optional[int] = None
    ) -> Address:
        """Names are waited for in a thread, so that nobody else waits."""
        return await asyncio.get_running_loop().run_in_executor(None, find, self._talk, host, port, deadline, family)

    async def _run(self, doing: Doing[T]) -> T:
        """Lets this go on whenever something has come, until it is done."""
        try:
            limit = doing.send(None)
            while True:
                await self._changed(limit)
                limit = doing.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            doing.close()
            flush(self._talk, self._stream)

    async def _changed(self, limit: Optional[float]) -> None:
        """Waits until the stream has been looked at once more, or that time is over."""
        loop = asyncio.get_running_loop()
        flush(self._talk, self._stream)
        changed: asyncio.Future[None] = loop.create_future()
        self._waiting.append(changed)
        self._watch_stream()
        left = None if limit is None else max(limit - self._talk.monotonic(), 0.0)
        timer = None if left is None else loop.call_later(left, self._look)
        try:
            await changed
        finally:
            if timer is not None:
                timer.cancel()
            if changed in self._waiting:
                self._waiting.remove(changed)

    def _look(self) -> None:
        """Sends and takes what there is, and tells those who wait."""
        flush(self._talk, self._stream)
        if not self._talk.is_full and not self._talk.is_over:
            take_in(self._talk, self._stream)
        self._talk.looked()
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)
        # Nobody looks where nobody waits.
        self._watch([])

    def _watch_stream(self) -> None:
        self._watch([self._stream.read_fd], [self._stream.write_fd] if self._talk.unsent else [])

    def _watch(self, read: List[int], written: Optional[List[int]] = None) -> None:
        if not self._watched and not read:
            return
        loop = asyncio.get_event_loop()
        for descriptor in self._watched:
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
        for descriptor in read:
            loop.add_reader(descriptor, self._look)
        for descriptor in written or []:
            loop.add_writer(descriptor, self._look)
        self._watched = read + (written or [])


class _AsyncSocket:
    """What all sockets at the endpoint have in common. Leaving an `async with` closes them."""

    def __init__(self, session: AsyncSession, ops: SocketOps) -> None:
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

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        if kind is None:
            await self.close()
        elif not issubclass(kind, (EndpointLeft, Suspended)):
            self._ops.abandon()
            flush(self.session._talk, self.session._stream)

    async def close(self) -> None:
        """Closes it; what it has not sent yet is lost, and what it has received is forgotten."""
        await self.session._run(self._ops.close())

    async def wait_until_sent(self, tag: int, timeout: Optional[float] = None) -> int:
        """When the packet of this tag left, by the endpoint's clock; raises NotSent if it could not."""
        return (await self.sent(tag, timeout)).time

    async def sent(self, tag: int, timeout: Optional[float] = None) -> Sent:
        """The same, with the time at which the mlet was told of it (`came`)."""
        return await self.session._run(self._ops.sent(tag, timeout))


class AsyncStream(_AsyncSocket):
    """A TCP connection of the endpoint."""

    @property
    def remote(self) -> Optional[Address]:
        """The peer, once the connection stands."""
        return self._ops.remote

    @property
    def times(self) -> ConnectionTimes:
        """When the connection was made."""
        return self._ops.times_known()

    async def accept(self, timeout: Optional[float] = None) -> Address:
        """Waits until a listening socket has become a connection; with whom."""
        return await self.session._run(self._ops.accept(timeout))

    async def send(self, data: bytes, when: int = 0, tag: Optional[int] = None) -> int:
        """Sends `data` at a time; the tag by which wait_until_sent knows it."""
        return await self.session._run(self._ops.send(data, when, tag))

    async def receive(self, timeout: Optional[float] = None) -> bytes:
        """The next piece; empty once the peer has closed its side."""
        piece = await self.receive_piece(timeout)
        return b"" if piece is None else piece.data

    async def receive_piece(self, timeout: Optional[float] = None) -> Optional[Received]:
        """The next piece with its times; None once the peer has closed its side."""
        return await self.session._run(self._ops.receive_piece(timeout))

    async def receive_all(self, timeout: Optional[float] = None) -> bytes:
        """Everything until the peer closes its side; `timeout` is for each piece."""
        return await self.session._run(self._ops.receive_all(timeout))

    async def finish(self, when: int = 0) -> None:
        """Closes our side, after everything that was to be sent."""
        await self.session._run(self._ops.finish(when))


class _AsyncReceiving(_AsyncSocket):
    async def receive(self, timeout: Optional[float] = None) -> Received:
        """The next datagram or packet, with the times at which it came."""
        return await self.session._run(self._ops.receive(timeout))


class AsyncDatagrams(_AsyncReceiving):
    """A UDP socket of the endpoint."""

    async def send(
        self, data: bytes, host: str, port: int, when: int = 0, tag: Optional[int] = None
    ) -> int:
        """Sends a datagram at a time; the tag by which wait_until_sent knows it."""
        remote = await self.session._find(host, port, self.session._talk.deadline(None), self.family)
        return await self.session._run(self._ops.send(data, when, tag, remote))


class AsyncPackets(_AsyncReceiving):
    """A raw socket of the endpoint: whole IP packets, which are received only after capture()."""

    async def capture(self, program: bytes, until: int = NEVER) -> None:
        """Receives from now on what the filter wants, an encoded program: see ebpf()."""
        await self.session._run(self._ops.capture(program, until))

    async def send(self, packet: bytes, when: int = 0, tag: Optional[int] = None) -> int:
        """Sends a packet at a time; the tag by which wait_until_sent knows it."""
        return await self.session._run(self._ops.send(packet, when, tag))


async def async_sessions(control: Union[int, socket.socket] = 0) -> AsyncIterator[AsyncSession]:
    """The sessions of a mlet in singleton mode, as endpoints connect; ends when there are no more. They are waited for
    in a thread."""
    coming = sessions(control)
    loop = asyncio.get_running_loop()
    while True:
        session = await loop.run_in_executor(None, next, coming, None)
        if session is None:
            return
        wrapped = AsyncSession.__new__(AsyncSession)
        wrapped._wrap(session)
        yield wrapped
