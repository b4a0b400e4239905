"""What a mlet does with an endpoint's sockets and memory, as coroutines of talk.py: once for both kinds of session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Union

from . import messages
from .errors import (
    DENIALS, ECTLMONREJ, ECTLMONUKN, ESKTINUSE, UNKNOWN_REASON, ConnectionFailed, ConnectionReset, Denied, MletError, NotSent,
    Refused, Silence, connection_failed,
)  # fmt: skip
from .messages import (
    CLOCK, RAW, SOCKETS_MAX, TCP, UDP, Address, Blocked, Changed, Notification, Received, Sent, any_address,
    encode_address, number, told,
)  # fmt: skip
from .kept import Place
from .talk import Answer, Asked, Talk, awaiting

_SOCKET_STATES = 0x20000002
"""Where the state of socket 0 is in memory; those of the others follow, 0x400 bytes apart."""

_LOOK_INTERVAL = 0.5
"""Seconds for which a connection that nothing is heard of is waited for before its state is looked at:
the original's endpoints tell of a refused one nowhere else."""

_NAMES = {RAW: "raw", TCP: "TCP", UDP: "UDP"}


@dataclass(frozen=True)
class ConnectionTimes:
    """When a connection was made. The endpoint reads its clock right before and right after it begins to connect, so
    that no time on the way to the controller is in that."""

    began: int
    """The endpoint began no earlier than this, by its clock."""
    began_by: int
    """It began no later than this, by its clock."""
    established: int
    """When the connection stood, by the endpoint's clock (NSTAT)."""
    asked: int
    """When the mlet asked for it, by the controller's clock."""
    told: int
    """When the mlet was told of it, by the controller's clock."""

    @property
    def took_ms(self) -> float:
        """Milliseconds to connect, all by the endpoint's clock: at most `uncertainty_ms` too many."""
        return max(self.established - self.began, 0) / 1e6

    @property
    def uncertainty_ms(self) -> float:
        """How exactly it is known when the endpoint began: a few microseconds, unless the two looks at the clock came
        to the endpoint apart."""
        return max(self.began_by - self.began, 0) / 1e6


async def read_memory(talk: Talk, address: int, length: int, deadline: Optional[float] = None) -> bytes:
    """`length` bytes (1 to 65535) of the endpoint's memory."""
    await talk.room(deadline)
    asked = _ask_memory(talk, address, length)
    return _memory(await talk.answer(asked, deadline), address, length)


def _ask_memory(talk: Talk, address: int, length: int) -> Asked:
    request = number("MREAD: address", address, 4) + number("MREAD: length", length, 2, least=1)
    return talk.put(messages.MREAD, request, f"MREAD (memory 0x{address:08x})")


def _memory(answer: Answer, address: int, length: int) -> bytes:
    if answer.payload[:4] != address.to_bytes(4, "big") or len(answer.payload) != 4 + length:
        raise MletError("the endpoint answered MREAD with other memory")
    return answer.payload[4:]


async def write_memory(talk: Talk, address: int, data: bytes) -> None:
    """Writes to the endpoint's memory."""
    request = number("MWRITE: address", address, 4) + data
    await talk.request(messages.MWRITE, request, f"MWRITE (memory 0x{address:08x})")


async def clock(talk: Talk) -> int:
    """The endpoint's clock, in nanoseconds since 1970."""
    return int.from_bytes(await read_memory(talk, CLOCK, 8), "big")


async def yield_until(talk: Talk, resume: int) -> None:
    """Lets the endpoint go, and asks it to come back at `resume`."""
    await talk.request(messages.YIELD, number("YIELD: time", resume, 8), "YIELD")


class SocketOps:
    """One of the endpoint's sockets. `named` is the address that names it in errors."""

    def __init__(self, talk: Talk, named: Address, protocol: int, is_remote: bool = False) -> None:
        if len(talk.open | talk.in_use) == SOCKETS_MAX:
            # By now they may be closed.
            talk.in_use.clear()
        taken = talk.open | talk.in_use
        free = [candidate for candidate in range(SOCKETS_MAX) if candidate not in taken]
        if not free:
            raise MletError(f"an endpoint has {SOCKETS_MAX} sockets at most; close one")
        self.talk = talk
        self.sktid = free[0]
        self.family = messages.ip(named[0]).version
        self.protocol = protocol
        self.tag = 0
        self.head = bytes([self.sktid, self.family, protocol])
        self.name = f"socket {self.sktid}, {_NAMES[protocol]} {'to' if is_remote else 'on'} {told(named)}"
        self.remote: Optional[Address] = None
        self.times: Optional[ConnectionTimes] = None
        # Behind this nothing more of a stream is handed out.
        self.end: Union[None, Changed, Blocked] = None

    async def open(self, buffer: int, addresses: bytes, deadline: Optional[float]) -> None:
        asked = self._ask_open(buffer, addresses)
        try:
            await self.talk.answer(asked, deadline)
        except Refused as error:
            self._not_opened(error)
            raise
        except BaseException:
            # It may be open, and nobody could close it.
            self.abandon()
            raise

    def _ask_open(self, buffer: int, addresses: bytes) -> Asked:
        payload = self.head + number("NOPEN: buffer", buffer, 4) + addresses
        asked = self.talk.put(messages.NOPEN, payload, f"NOPEN ({self.name})")
        # It may be open as well if no answer comes.
        self.talk.open.add(self.sktid)
        return asked

    def _not_opened(self, error: Refused) -> None:
        self.talk.open.discard(self.sktid)
        if error.status == ESKTINUSE:
            self.talk.in_use.add(self.sktid)

    async def close(self) -> None:
        if self.sktid in self.talk.open:
            await self.talk.request(messages.NCLOSE, self.head[:1], f"NCLOSE ({self.name})")
            self.talk.open.discard(self.sktid)

    def abandon(self) -> None:
        """Closes it; nobody waits for the answer."""
        if self.sktid in self.talk.open and not self.talk.is_over:
            self.talk.disown(self.talk.put(messages.NCLOSE, self.head[:1], f"NCLOSE ({self.name})"))
            self.talk.open.discard(self.sktid)

    async def send(
        self,
        data: bytes,
        when: int,
        tag: Optional[int],
        remote: Optional[Address] = None,
        deadline: Optional[float] = None,
    ) -> int:
        if tag is None:
            self.tag = tag = self.tag % 0xFFFF + 1
            # What was told of an earlier packet of this number is not of this one.
            self.talk.forget_sent(self.sktid, tag)
        if not 1 <= tag <= 0xFFFF:
            raise MletError(f"NSEND: tag {tag} is not from 1 to 65535 (of tag 0 endpoints tell nothing)")
        head = self.head + number("NSEND: time", when, 8) + number("NSEND: tag", tag, 2)
        to = f" to {told(remote)}" if remote else ""
        address = encode_address(remote) if remote else b""
        await self.talk.request(messages.NSEND, head + address + data, f"NSEND ({self.name}{to})", deadline)
        return tag

    async def sent(self, tag: int, timeout: Optional[float]) -> Sent:
        places = [Place(self.sktid, Sent, tag)]
        news = await self._next(places, self.talk.deadline(timeout), f"news that packet {tag} has left")
        assert isinstance(news, Sent)
        if news.status != 0:
            kind = Denied if news.status in DENIALS else NotSent
            raise kind(f"{self.name}: not sent", news.status)
        return news

    async def receive(self, timeout: Optional[float]) -> Received:
        places = [Place(self.sktid, Received), Place(self.sktid, Blocked)]
        news = await self._next(places, self.talk.deadline(timeout), "data")
        if isinstance(news, Blocked):
            raise self._blocked(news)
        assert isinstance(news, Received)
        return news

    def _blocked(self, news: Blocked) -> Denied:
        denied = Denied(self.name, ECTLMONREJ if news.code else ECTLMONUKN)
        blocked = f"a monitor blocked what came (its code {news.code})"
        denied.args = (f"{self.name}: {blocked if news.code else 'a monitor crashed at what came, which is blocked'}",)
        return denied

    async def capture(self, program: bytes, until: int) -> None:
        request = self.head + number("NCAP: time", until, 8) + program
        await self.talk.request(messages.NCAP, request, f"NCAP ({self.name})")

    # TCP alone.

    def times_known(self) -> ConnectionTimes:
        if self.times is None:
            raise MletError(f"{self.name}: times are known of connections that the endpoint made, when they stand")
        return self.times

    async def connect(self, remote: Address, deadline: Optional[float], buffer: int) -> None:
        """Waits until the connection stands; else it is closed."""
        talk = self.talk
        begun = talk.monotonic()
        talk.claim(self.sktid)
        under_way: List[Asked] = []
        try:
            await talk.room(deadline)
            # Nothing comes between the three.
            before = _ask_memory(talk, CLOCK, 8)
            opened = self._ask_open(buffer, any_address(remote) + encode_address(remote))
            after = _ask_memory(talk, CLOCK, 8)
            under_way += (before, opened, after)
            began = await self._clock(before, deadline)
            try:
                await talk.answer(opened, deadline)
            except Refused as error:
                self._not_opened(error)
                raise
            began_by = await self._clock(after, deadline)
            news = await self._established(remote, begun, deadline)
            self.remote = news.remote
            self.times = ConnectionTimes(began, began_by, news.time, opened.at, news.came)
        except BaseException:
            for asked in under_way:
                talk.give_up(asked)
            if under_way:
                self.abandon()
            raise
        finally:
            talk.end_claim(self.sktid)

    async def _clock(self, asked: Asked, deadline: Optional[float]) -> int:
        return int.from_bytes(_memory(await self.talk.answer(asked, deadline), CLOCK, 8), "big")

    async def _established(self, remote: Address, begun: float, deadline: Optional[float]) -> Changed:
        """Waits for the news, and looks into the endpoint's memory, which may be all that tells of a failure."""
        talk, what = self.talk, f"no connection to {told(remote)}"
        while True:
            look = talk.monotonic() + _LOOK_INTERVAL
            try:
                limit = look if deadline is None else min(look, deadline)
                news: Optional[Notification] = await self._next(
                    [Place(self.sktid, Changed)], limit, "a connection"
                )
            except Silence:
                news = None
            assert news is None or isinstance(news, Changed)
            if news is not None and news.remote is not None:
                if not _is_same(news.remote, remote):
                    reason = f"the endpoint says that it stands with {told(news.remote)}"
                    raise ConnectionFailed(0xFF, reason, what, talk.monotonic() - begun)
                return news
            try:
                state = await self._state(deadline)
            except MletError:
                if news is None:
                    raise
                state = 0
            waited = talk.monotonic() - begun
            if news is not None or state < 0:
                raise connection_failed(news.code if news else 0, state, what, waited)
            if deadline is not None and talk.monotonic() >= deadline:
                silence = Silence(f"the connection to {told(remote)}", waited)
                silence.args = (f"{what}: the endpoint told nothing of it, given up after {waited:.3f} s",)
                raise silence

    async def _state(self, deadline: Optional[float]) -> int:
        """The socket's state in memory; 0 if the endpoint does not tell in time."""
        address = _SOCKET_STATES + 0x400 * self.sktid
        try:
            state = await read_memory(self.talk, address, 1, deadline)
        except (Refused, Silence):
            return 0
        return int.from_bytes(state, "big", signed=True)

    async def accept(self, timeout: Optional[float]) -> Address:
        news = await self._next([Place(self.sktid, Changed)], self.talk.deadline(timeout), "a peer")
        assert isinstance(news, Changed)
        if news.remote is None:
            raise connection_failed(news.code, 0, self.name, 0.0)
        self.remote = news.remote
        return news.remote

    async def receive_piece(self, timeout: Optional[float]) -> Optional[Received]:
        """The next piece of a stream; None once the peer has closed its side."""
        self.end = self.end or self.talk.ends.get(self.sktid)
        if self.end is None:
            places = [Place(self.sktid, kind) for kind in (Received, Changed, Blocked)]
            news = await self._next(places, self.talk.deadline(timeout), "data")
            if isinstance(news, Received):
                return news
            assert isinstance(news, (Changed, Blocked))
            self.end = news
        if isinstance(self.end, Blocked):
            # A part is missing, so that what follows would be another stream.
            raise self._blocked(self.end)
        if self.end.code == 3:
            return None
        what = f"{self.name}: the connection broke"
        # What stood cannot have been refused.
        if self.end.code == 1:
            raise ConnectionReset(1, "reset", what)
        raise ConnectionFailed(self.end.code, UNKNOWN_REASON if self.end.code != 2 else "", what)

    async def receive_all(self, timeout: Optional[float]) -> bytes:
        pieces: List[bytes] = []
        while True:
            piece = await self.receive_piece(timeout)
            if piece is None:
                return b"".join(pieces)
            pieces.append(piece.data)

    async def finish(self, when: int) -> None:
        request = self.head + number("NCTL: time", when, 8) + b"\x01"
        await self.talk.request(messages.NCTL, request, f"NCTL ({self.name})")

    async def _next(self, places: List[Place], deadline: Optional[float], awaited: str) -> Notification:
        """The next notification about this socket that is of these kinds."""
        return await self.talk.notification(
            lambda kept: kept.first_at(places), deadline, lambda: f"{awaited} ({self.name})"
        )


def _is_same(peer: Address, asked: Address) -> bool:
    """Whether a connection is with the peer that was asked for. What an unspecified address leads to is the endpoint's to
    say."""
    address = messages.ip(asked[0])
    return peer[1] == asked[1] and (address.is_unspecified or messages.ip(peer[0]).packed == address.packed)


async def first_of(talk: Talk, sockets: List[SocketOps], timeout: Optional[float]) -> Notification:
    """The first news of any of these sockets."""
    numbers = {one.sktid for one in sockets}
    names = "; ".join(one.name for one in sockets)
    return await talk.notification(
        lambda kept: kept.first(lambda news: news.sktid in numbers), talk.deadline(timeout),
        lambda: f"anything ({names})",
    )  # fmt: skip


async def connect(
    talk: Talk, remote: Address, deadline: Optional[float], buffer: int
) -> SocketOps:
    ops = SocketOps(talk, remote, TCP, is_remote=True)
    # Taken before anything is waited for, so that nobody else chooses it.
    talk.open.add(ops.sktid)
    try:
        with awaiting(talk, f"the connection to {told(remote)}"):
            await ops.connect(remote, deadline, buffer)
    except BaseException:
        talk.open.discard(ops.sktid)
        raise
    return ops


async def listen(
    talk: Talk, local: Address, protocol: int, buffer: int, deadline: Optional[float] = None
) -> SocketOps:
    """A socket that is bound to an address of the endpoint's own. If the answer is not waited for to its end, it is
    closed."""
    ops = SocketOps(talk, local, protocol)
    address = messages.ip(local[0]).packed if protocol == RAW else encode_address(local)
    await ops.open(buffer, address, deadline)
    return ops


