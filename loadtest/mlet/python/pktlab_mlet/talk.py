"""What one session's conversation knows, and what it is waited with.

An answer does not say whose it is: answers come in the order of the requests, with notifications in between. So a
request whose answer nobody waits for any more is given up, and its answer is dropped when it comes. An answer is handed
out only to the request that it answers.

Nothing here reads a clock or a stream of its own. What waits is a coroutine that yields until when it waits, and is to
be sent None when something has come or that time is over: session.py does it for one who blocks, aio.py on asyncio.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import (
    Callable, Coroutine, Deque, Dict, Generator, Iterator, NamedTuple, Optional, Set, Tuple, Type, TypeVar, Union,
)  # fmt: skip

from . import messages
from .errors import (
    EndpointLeft, MletError, SessionOver, Silence, Suspended, TooMuchKept, Unread,
)  # fmt: skip
from .kept import KEPT_EACH, Kept, Place
from .messages import Blocked, Changed, Notification, Sent

T = TypeVar("T")

Doing = Coroutine[Optional[float], None, T]
"""Something that waits: it yields until when, by the monotonic clock; None for as long as it takes."""

KEPT_LEN_MAX = 64 << 20
"""So many bytes of notifications and answers are kept at most until they are asked for: as much as an endpoint has receive
buffers. Beyond that nothing more is read, and calls fail with TooMuchKept."""

OUTGOING_LEN_MAX = 1 << 20
"""Requests wait to be sent until they are so many bytes; whoever asks then waits for room."""

SILENCE_MAX = 60.0
"""Seconds that a session waits at most for anything, unless it is given another timeout."""

_TIMEOUT_MAX = 100 * 365 * 24 * 60 * 60.0
"""A timeout that is longer than these seconds, such as infinity, lasts as long: nobody waits for 100 years."""


class Answer(NamedTuple):
    """RESULT or MDATA, and when it came, by the controller's clock in nanoseconds since 1970."""

    type: int
    payload: bytes
    came: int


class Asked:
    """A request that was asked and whose answer is still to be taken. `at` is when, by the controller's clock."""

    def __init__(self, ticket: int, message_type: int, what: str, at: int, begun: float) -> None:
        self.ticket, self.type, self.what = ticket, message_type, what
        self.at, self._begun = at, begun


class _Owed(NamedTuple):
    """A request whose answer has not come: whether that is wanted, and which socket it opens or closes, or -1."""

    ticket: int
    is_wanted: bool
    type: int
    sktid: int


class _Pause:
    """Awaited, it lets whoever moves the bytes go on until something comes or this time is over."""

    def __init__(self, limit: Optional[float]) -> None:
        self._limit = limit

    def __await__(self) -> Generator[Optional[float], None, None]:
        yield self._limit


class _Late(Exception):
    """A wait is over without what was awaited: `why` is Silence, SessionOver, or what nothing more comes for."""

    def __init__(self, waited: float, why: Union[Type[Silence], Type[SessionOver], MletError]) -> None:
        super().__init__()
        self.waited, self.why = waited, why

    def error(self, awaited: str) -> MletError:
        if not isinstance(self.why, MletError):
            return self.why(awaited, self.waited)
        # Raised itself, it would grow by a traceback each time.
        if isinstance(self.why, (EndpointLeft, Suspended, TooMuchKept)):
            return type(self.why)(f"{self.why}; {awaited} had been awaited for {self.waited:.3f} s")
        return type(self.why)(*self.why.args)


@contextmanager
def awaiting(talk: Talk, what: str) -> Iterator[None]:
    """What is done within is made of several requests: errors say that it was awaited, and for how long."""
    begun = talk.monotonic()
    try:
        yield
    except MletError as error:
        # Errors of waits are raised where these are caught.
        late = error.__context__
        if not isinstance(late, _Late) or late.why is Silence:
            raise
        raise _Late(talk.monotonic() - begun, late.why).error(what) from None


class Talk:
    """The state of a conversation. `timeout` is the longest wait for anything, in seconds; None waits for ever.

    `session_deadline`, by the monotonic clock, ends every wait.
    """

    def __init__(
        self,
        timeout: Optional[float],
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.timeout = timeout
        self.session_deadline: Optional[float] = None
        self.monotonic, self.clock = monotonic, clock
        self.open: Set[int] = set()
        """Numbers of sockets that are open, or may be."""
        self.in_use: Set[int] = set()
        """Numbers that the endpoint says are in use by others; none of these is chosen while there is another."""
        self._pending = bytearray()
        # When these came, by the controller's clock.
        self._came = 0
        self._next = 0
        # Requests whose answers have not come.
        self._owed: Deque[_Owed] = deque()
        self._answers: Dict[int, Answer] = {}
        self._notifications = Kept()
        # Of each socket that was closed the number of the first notification that can be of a later one.
        self._closed: Dict[int, int] = {}
        self.ends: Dict[int, Union[Blocked, Changed]] = {}
        """Behind what nothing more of a stream is handed out, by socket, as far as that has been told."""
        # What answers cost that nobody has taken yet.
        self._answers_cost = 0
        # Sockets whose news is for one alone.
        self._claims: Set[int] = set()
        self._outgoing: Deque[Tuple[int, bytes]] = deque()
        self._first_sent = 0
        self._fault: Optional[MletError] = None
        # The next message answers no request, unless one is asked.
        self._unasked: Optional[MletError] = None
        self._heard: Optional[float] = None
        self._looks = 0

    # For whoever moves the bytes.

    @property
    def unsent(self) -> memoryview:
        """What is to be sent next."""
        return memoryview(self._outgoing[0][1])[self._first_sent :] if self._outgoing else memoryview(b"")

    def sent(self, length: int) -> None:
        """So many bytes of it have been sent."""
        self._first_sent += length
        if self._outgoing and self._first_sent >= len(self._outgoing[0][1]):
            self._outgoing.popleft()
            self._first_sent = 0

    @property
    def is_full(self) -> bool:
        """No more may come now: too much is kept that nobody has asked for."""
        return self._notifications.cost + self._answers_cost > KEPT_LEN_MAX

    @property
    def is_over(self) -> bool:
        """Nothing more comes."""
        return self._fault is not None

    def push(self, data: bytes) -> None:
        """Bytes came."""
        self._heard, self._came = self.monotonic(), self.clock()
        self._pending += data
        self._take_in()

    def end(self, reason: str) -> None:
        """No more bytes come."""
        self._fault = self._fault or EndpointLeft(reason)

    def looked(self) -> None:
        """The stream has been looked at."""
        self._looks += 1

    # For whoever asks.

    def put(self, message_type: int, payload: bytes, what: str) -> Asked:
        """Puts a request to those that are to be sent; `what` names it in errors."""
        message = messages.encode(message_type, payload, what)
        ticket, self._next = self._next, self._next + 1
        self._outgoing.append((ticket, message))
        sktid = payload[0] if message_type in (messages.NOPEN, messages.NCLOSE) else -1
        self._owed.append(_Owed(ticket, True, message_type, sktid))
        self._take_in()
        return Asked(ticket, message_type, what, self.clock(), self.monotonic())

    def give_up(self, asked: Asked) -> None:
        """Nobody waits for this answer any more. A request of which nothing was sent is never sent."""
        is_owed = any(owed.ticket == asked.ticket for owed in self._owed)
        for index, (ticket, _) in enumerate(self._outgoing if is_owed else ()):
            if ticket == asked.ticket and (index > 0 or self._first_sent == 0):
                del self._outgoing[index]
                self._owed = deque(owed for owed in self._owed if owed.ticket != ticket)
                return
        self.disown(asked)

    def disown(self, asked: Asked) -> None:
        """The same, but the request is sent all the same."""
        for index, owed in enumerate(self._owed):
            if owed.ticket == asked.ticket:
                self._owed[index] = owed._replace(is_wanted=False)
                return
        self._answer(asked.ticket)

    async def room(self, deadline: Optional[float] = None) -> None:
        """Waits until there is room for a request."""

        def has_room() -> Optional[bool]:
            return sum(len(message) for _, message in self._outgoing) < OUTGOING_LEN_MAX or None

        try:
            await self._wait(self.monotonic(), deadline, has_room)
        except _Late as late:
            raise _unread(late, "the requests before") from None

    async def answer(self, asked: Asked, deadline: Optional[float] = None) -> Answer:
        """The answer of a request; without a deadline it is waited for as long as something comes. It is given up if it
        does not come."""
        try:
            answer = await self._wait(asked._begun, deadline, lambda: self._answer(asked.ticket))
        except _Late as late:
            if any(ticket == asked.ticket for ticket, _ in self._outgoing):
                raise _unread(late, asked.what) from None
            raise late.error(f"the answer to {asked.what}") from None
        finally:
            self.give_up(asked)
        if answer.type == messages.RESULT:
            messages.check_result(asked.what, answer.payload)
        if (answer.type == messages.MDATA) != (asked.type == messages.MREAD):
            raise MletError(f"the endpoint answered {asked.what} with 0x{answer.type:02x}")
        return answer

    async def request(
        self, message_type: int, payload: bytes, what: str, deadline: Optional[float] = None
    ) -> Answer:
        """Asks and waits for the answer."""
        await self.room(deadline)
        return await self.answer(self.put(message_type, payload, what), deadline)

    async def notification(
        self,
        first: Callable[[Kept], Optional[int]],
        deadline: Optional[float],
        awaited: Callable[[], str],
    ) -> Notification:
        """The next one that `first` finds the number of; the others before it are kept."""

        def take() -> Optional[Notification]:
            number = first(self._notifications)
            if number is None:
                return None
            taken = self._notifications.take(number)
            if isinstance(taken, Blocked) or (isinstance(taken, Changed) and taken.remote is None):
                self.ends[taken.sktid] = taken
            self._take_in()
            return taken

        try:
            return await self._wait(self.monotonic(), deadline, take)
        except _Late as late:
            raise late.error(awaited()) from None

    async def any_notification(self, deadline: Optional[float]) -> Notification:
        """The next one, but of sockets that are claimed."""
        return await self.notification(
            lambda kept: kept.first(lambda news: news.sktid not in self._claims), deadline, lambda: "anything"
        )

    def forget_sent(self, sktid: int, tag: int) -> None:
        """Drops what was told of the departure of packets of this number, and has not been asked for."""
        self._notifications.forget_at(Place(sktid, Sent, tag))
        self._take_in()

    def claim(self, sktid: int) -> None:
        """News of this socket is for him alone who claims it, until he ends that."""
        self._claims.add(sktid)

    def end_claim(self, sktid: int) -> None:
        self._claims.discard(sktid)

    def deadline(self, timeout: Optional[float]) -> Optional[float]:
        """In so many seconds; without, in as many as the longest wait lasts."""
        limit = self.timeout if timeout is None else timeout
        return None if limit is None else self.after(limit)

    def after(self, seconds: float) -> float:
        """The time in so many seconds, by the monotonic clock."""
        return self.monotonic() + bounded(seconds)

    def limit(self, deadline: Optional[float]) -> Optional[float]:
        """When a wait ends: at its own deadline or the session's."""
        return min((one for one in (deadline, self.session_deadline) if one is not None), default=None)

    # Within.

    async def _wait(
        self, begun: float, deadline: Optional[float], take: Callable[[], Optional[T]]
    ) -> T:
        """Waits until `take` finds something, or until the deadline; without one until nothing has come for the longest
        wait. What has come is looked at once, even if the time is over before."""
        looks = self._looks
        while True:
            found = take()
            if found is not None:
                return found
            fault = self._fault or self._unasked
            if fault is None and self.is_full:
                kept = f"more than {KEPT_LEN_MAX >> 20} MiB of notifications"
                fault = TooMuchKept(f"the endpoint has sent {kept} that the mlet has not asked for")
            if fault is not None:
                raise _Late(self.monotonic() - begun, fault)
            own = deadline
            if own is None and self.timeout is not None:
                own = max(begun, self._heard or begun) + bounded(self.timeout)
            limit = self.limit(own)
            now = self.monotonic()
            if limit is not None and now >= limit and self._looks > looks:
                raise _Late(now - begun, Silence if limit == own else SessionOver)
            await _Pause(limit)

    def _answer(self, ticket: int) -> Optional[Answer]:
        answer = self._answers.pop(ticket, None)
        if answer is not None:
            self._answers_cost -= KEPT_EACH + len(answer.payload)
            self._take_in()
        return answer

    def _take_in(self) -> None:
        """Takes messages out of the bytes that have come, until there are none or too much is kept."""
        at, self._unasked = 0, None
        try:
            while not self.is_full and (self._fault is None or isinstance(self._fault, EndpointLeft)):
                end = at + 4 + int.from_bytes(self._pending[at + 1 : at + 4], "big")
                if len(self._pending) < at + 4 or len(self._pending) < end:
                    return
                message_type, payload = self._pending[at], bytes(self._pending[at + 4 : end])
                if message_type in (messages.RESULT, messages.MDATA) and not self._owed:
                    self._unasked = MletError("the endpoint sent an answer to no request")
                    return
                at = end
                self._take(message_type, payload)
        except MletError as error:
            self._fault = error
        finally:
            del self._pending[:at]

    def _take(self, message_type: int, payload: bytes) -> None:
        if message_type == messages.SUSPD:
            raise Suspended("the endpoint has suspended the session")
        if message_type not in (messages.RESULT, messages.MDATA):
            self._notifications.keep(messages.notification(message_type, payload, self._came))
            return
        owed = self._owed.popleft()
        if owed.type == messages.NCLOSE:
            self._closed[owed.sktid] = self._notifications.next
        elif owed.type == messages.NOPEN and message_type == messages.RESULT and not any(payload):
            # What came before the earlier socket of this number was closed is of that one. News of the new one may come
            # before the answer.
            self._notifications.forget(owed.sktid, self._closed.pop(owed.sktid, 0))
            self.ends.pop(owed.sktid, None)
        if owed.is_wanted:
            self._answers_cost += KEPT_EACH + len(payload)
            self._answers[owed.ticket] = Answer(message_type, payload, self._came)


def bounded(seconds: float) -> float:
    """As long as a wait can be."""
    if seconds != seconds:
        raise MletError(f"{seconds} seconds are no time to wait")
    return min(seconds, _TIMEOUT_MAX)


def _unread(late: _Late, request: str) -> MletError:
    if late.why is Silence:
        return Unread(request, late.waited)
    return late.error(f"{'room for' if late.why is SessionOver else 'the answer to'} {request}")
