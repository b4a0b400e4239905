"""Requests under way at once, at an endpoint that answers as late as is drawn, on a clock that only jumps."""

import random
import struct
import unittest
from typing import Any, Deque, List, Optional, Tuple, TypeVar
from collections import deque

from pktlab_mlet import EndpointLeft, Refused, SessionOver, Silence, Suspended
from pktlab_mlet import operations
from pktlab_mlet.messages import MREAD, MWRITE, Sent
from pktlab_mlet.talk import Asked, Doing, Talk

T = TypeVar("T")


def message(message_type: int, payload: bytes) -> bytes:
    return struct.pack("!I", message_type << 24 | len(payload)) + payload


class World:
    """The endpoint, the way to it, and the time, in milliseconds."""

    def __init__(self, draw: random.Random, leaves: float = float("inf")) -> None:
        self.now = 0
        self.talk = Talk(1.0, lambda: self.now / 1000, lambda: self.now)
        self.draw = draw
        self.leaves = leaves
        self.come = b""
        self.coming: Deque[Tuple[int, bytes]] = deque()
        self.last = 0
        self.answered: List[int] = []
        self.told = 0
        self.delays: Deque[int] = deque()

    def flush(self) -> None:
        """What the client has to send comes to the endpoint, which draws when its answer arrives, in what pieces, and
        what it tells before."""
        while self.talk.unsent:
            self.come += bytes(self.talk.unsent)
            self.talk.sent(len(self.talk.unsent))
        while len(self.come) >= 4:
            end = 4 + int.from_bytes(self.come[1:4], "big")
            request, self.come = self.come[:end], self.come[end:]
            said = b""
            for _ in range(self.draw.randrange(3)):
                said += message(0x60, struct.pack("!BHQ", 1, self.told, 0))
                self.told += 1
            number = int.from_bytes(request[4:8], "big")
            said += answer(number, request[0] == MREAD)
            cut = self.draw.randrange(len(said))
            delay = self.delays.popleft() if self.delays else self.pause()
            first = max(self.last, self.now + delay)
            self.last = first + (0 if self.delays else self.pause())
            self.coming += [(first, said[:cut]), (self.last, said[cut:])]
            self.answered.append(self.last)

    def pause(self) -> int:
        return self.draw.choice((0, self.draw.randrange(3000)))

    def run(self, doing: Doing[T]) -> T:
        try:
            limit = doing.send(None)
            while True:
                self.turn(limit)
                limit = doing.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            doing.close()

    def turn(self, limit: Optional[float]) -> None:
        """The next bytes come, or the endpoint leaves, or the wait is over."""
        self.flush()
        until = float("inf") if limit is None else round(limit * 1000)
        comes = self.coming[0][0] if self.coming else float("inf")
        happens = min(comes, self.leaves)
        self.now = max(self.now, int(min(until, happens)))
        if happens <= until:
            if comes <= self.leaves:
                self.talk.push(self.coming.popleft()[1])
            else:
                self.talk.end("the endpoint has left")
        self.talk.looked()


def answer(number: int, is_read: bool) -> bytes:
    if is_read:
        return message(0x41, struct.pack("!II", number, number))
    return message(0x40, struct.pack("!H", 0x7000 + number))


class PipeliningTest(unittest.TestCase):
    def test_every_answer_is_that_of_its_request_whatever_is_under_way(self) -> None:
        seen = {"taken": 0, "late": 0, "left": 0, "heard": 0}
        for seed in range(400):
            with self.subTest(seed=seed):
                self.converse(random.Random(seed), seen)
        # All of it has happened.
        self.assertGreater(min(seen.values()), 100, seen)

    def converse(self, draw: random.Random, seen: Any) -> None:
        leaves = draw.choice((float("inf"), float("inf"), draw.randrange(20_000)))
        world = World(draw, leaves)
        under_way: List[Tuple[int, Asked]] = []
        asked = heard = 0
        for _ in range(draw.randrange(1, 40)):
            what = draw.randrange(8)
            if what < 3:
                kind, payload = draw.choice(((MREAD, b"\0\4"), (MWRITE, b"data")))
                world.run(world.talk.room())
                under_way.append((asked, world.talk.put(kind, struct.pack("!I", asked) + payload, "it")))
                world.flush()
                asked += 1
            elif what < 6 and under_way:
                number, request = under_way.pop(draw.randrange(len(under_way)))
                seen[self.wait(world, number, request, draw.randrange(2500))] += 1
            elif what == 6 and under_way:
                world.talk.give_up(under_way.pop(draw.randrange(len(under_way)))[1])
            elif what == 7:
                deadline = (world.now + draw.randrange(2500)) / 1000
                try:
                    news = world.run(world.talk.any_notification(deadline))
                except (Silence, EndpointLeft):
                    continue
                assert isinstance(news, Sent)
                self.assertEqual(news.tag, heard)
                heard += 1
                seen["heard"] += 1

    def wait(self, world: World, number: int, request: Asked, timeout: int) -> str:
        deadline, comes = world.now + timeout, world.answered[number]
        try:
            given = world.run(world.talk.answer(request, deadline / 1000))
            self.assertEqual(given.payload, struct.pack("!II", number, number))
            self.assertEqual(given.came, comes)
        except Refused as refused:
            self.assertEqual(refused.status, 0x7000 + number)
        except Silence as silence:
            self.assertEqual(world.now, deadline)
            # What comes in two pieces at that very time may be half there.
            self.assertGreaterEqual(comes, deadline)
            self.assertRegex(str(silence), r"\Athe answer to it did not come in \d+\.\d\d\d s\Z")
            return "late"
        except EndpointLeft as left:
            self.assertRegex(str(left), r"\Athe endpoint has left; the answer to it had been awaited for \d+\.\d\d\d s\Z")
            self.assertGreaterEqual(comes, world.leaves)
            return "left"
        self.assertLessEqual(comes, min(deadline, world.leaves))
        return "taken"

    def test_after_a_timeout_later_answers_are_those_of_later_requests(self) -> None:
        """The clock is asked for each half second, with a timeout of a second, and the endpoint stands still for 1.7 s."""
        world = World(random.Random(0))
        outcomes: List[Optional[int]] = []
        world.delays = deque([0, 0, 1700, 0, 0, 0, 0])
        for number in range(6):
            try:
                deadline = (world.now + 1000) / 1000
                read = operations.read_memory(world.talk, number, 4, deadline)
                outcomes.append(int.from_bytes(world.run(read), "big"))
            except Silence:
                outcomes.append(None)
            world.now += 500
        self.assertEqual(outcomes, [0, 1, None, 3, 4, 5])

    def test_a_session_that_is_suspended_says_what_was_awaited(self) -> None:
        world = World(random.Random(0))
        world.coming.append((200, message(0x68, b"")))
        world.delays = deque([400, 0])
        told = "the endpoint has suspended the session; the answer to MREAD (memory 0x10010000) had been awaited for 0.200 s"
        with self.assertRaises(Suspended) as over:
            world.run(operations.clock(world.talk))
        self.assertEqual(str(over.exception), told)

    def test_the_deadline_of_the_session_ends_every_wait_and_says_what_was_awaited(self) -> None:
        world = World(random.Random(0))
        world.talk.session_deadline = 0.3
        world.delays = deque([400, 0])
        told = "the session's deadline passed when the answer to MREAD (memory 0x10010000) had been awaited for 0.300 s"
        with self.assertRaises(SessionOver) as over:
            world.run(operations.clock(world.talk))
        self.assertEqual((str(over.exception), world.now), (told, 300))
        self.assertRaises(SessionOver, world.run, world.talk.any_notification(None))
        self.assertEqual(world.now, 300)


if __name__ == "__main__":
    unittest.main()
