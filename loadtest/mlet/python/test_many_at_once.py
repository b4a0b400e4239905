"""Many connections and sockets at once, blocking and on asyncio, at an endpoint that is played over a socket pair."""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
import unittest
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple
from unittest import mock

from pktlab_mlet import (
    AsyncSession, ConnectionRefused, ConnectionTimes, Denied, LookUpFailed, MletError, NotSent, Received, Session,
    SessionOver, Silence,
)  # fmt: skip

HERE = Path(__file__).parent
CLOCK = 1_700_000_000_000_000_000
OK = b"\x40\0\0\0"


def message(message_type: int, payload: bytes) -> bytes:
    return struct.pack("!I", message_type << 24 | len(payload)) + payload


def told(sktid: int, message_type: int, when: int, rest: bytes, protocol: int = 6) -> bytes:
    """NSTAT or NDATA."""
    return message(message_type, struct.pack("!BBBQ", sktid, 4, protocol, when) + rest)


def _receive(far: socket.socket) -> bytes:
    """What has come; nothing when the mlet is gone."""
    try:
        return far.recv(1 << 16)
    except OSError:
        return b""


class Played:
    """An endpoint whose clock goes on by 1 us a look. What becomes of a connection is told by its port: 8000 + n stands
    after n others have been asked for, 9001 is refused, 9002 is denied, 9003 is never heard of."""

    def __init__(self, far: socket.socket) -> None:
        self.far = far
        self.looks = 0
        self.waiting: Dict[int, List[bytes]] = {}
        self.opened = 0
        # Sockets for connections: those that are open, and the most that ever were.
        self.open_now: Set[int] = set()
        self.open_most = 0
        # Numbers of others' sockets.
        self.in_use: Set[int] = set()
        self.states: Dict[int, int] = {}
        self.closed: List[int] = []
        self.datagram: Callable[[bytes], bytes] = lambda data: data
        # Who sends datagrams back, if not who was asked.
        self.stranger = b""
        # Answers to the opening of a UDP socket wait here for the test.
        self.answers_opening = True
        self.unanswered: List[bytes] = []

    def serve(self) -> None:
        come = b""
        while True:
            more = _receive(self.far)
            if not more:
                return
            come += more
            while len(come) >= 4 and len(come) >= 4 + int.from_bytes(come[1:4], "big"):
                end = 4 + int.from_bytes(come[1:4], "big")
                try:
                    self.far.sendall(self.answer(come[0], come[4:end]))
                except OSError:
                    # The mlet is gone.
                    return
                come = come[end:]

    def answer(self, kind: int, payload: bytes) -> bytes:
        if kind == 0x28:
            address, length = struct.unpack("!IH", payload)
            if address == 0x10010000:
                self.looks += 1
                return message(0x41, payload[:4] + struct.pack("!Q", CLOCK + 1000 * self.looks))
            state = self.states.get((address - 0x20000002) >> 10, 1) & 0xFF
            return message(0x41, payload[:4] + bytes([state]) * length)
        if kind == 0x2A and payload[0] in self.in_use:
            return message(0x40, b"\0\x32")
        if kind == 0x2A and payload[2] == 6:
            return self.open(payload[0], int.from_bytes(payload[17:19], "big"))
        if kind == 0x2A and not self.answers_opening:
            self.unanswered.append(OK)
            return b""
        if kind == 0x2C:
            sktid, tag = payload[0], payload[11:13]
            back = b""
            if payload[2] == 17:
                remote, data = self.stranger or payload[13:19], self.datagram(payload[19:])
                back = told(sktid, 0x62, CLOCK + 5_000_000, remote + data, 17) if data else b""
            status = b"\0\x39" if tag == b"\x11\x11" else b"\0\x41" if tag == b"\x22\x22" else b""
            return OK + back + message(0x60, bytes([sktid]) + tag + struct.pack("!Q", CLOCK + 2_000_000) + status)
        if kind == 0x2B:
            self.closed.append(payload[0])
            self.open_now.discard(payload[0])
        return OK

    def open(self, sktid: int, port: int) -> bytes:
        self.opened += 1
        if port == 9002:
            return message(0x40, b"\0\x3a")
        if sktid in self.open_now:
            return message(0x40, b"\0\x32")
        self.open_now.add(sktid)
        self.open_most = max(self.open_most, len(self.open_now))
        failed = b""
        self.states.pop(sktid, None)
        if port == 9001:
            self.states[sktid] = -1
            failed = told(sktid, 0x61, CLOCK, b"\1")
        if port < 9000:
            news = told(sktid, 0x61, CLOCK + port * 1000, bytes((192, 0, 2, 7)) + port.to_bytes(2, "big"))
            self.waiting.setdefault(port - 8000, []).append(news)
        ready = [number for number in self.waiting if number < self.opened]
        return OK + failed + b"".join(news for number in sorted(ready) for news in self.waiting.pop(number))


@contextmanager
def played() -> Iterator[Tuple[socket.socket, Played]]:
    near, far = socket.socketpair()
    endpoint = Played(far)
    serving = threading.Thread(target=endpoint.serve)
    serving.start()
    try:
        yield near, endpoint
    finally:
        near.close()
        far.shutdown(socket.SHUT_RDWR)
        serving.join()
        far.close()


class ConnectionsTest(unittest.TestCase):
    def test_any_number_of_servers_is_connected_to_and_what_is_none_is_told(self) -> None:
        bad = {"192.0.2.7:9001": "refused", "192.0.2.7:http": "unresolved", "192.0.2.7:0": "failed"}
        bad["192.0.2.7:65536"] = "failed"
        with played() as (near, world), Session(near, "192.0.2.1") as endpoint:
            # They stand when 256 have been asked for.
            servers = ["192.0.2.7:8255"] * 256 + list(bad) + ["192.0.2.7"] * 44
            made = list(endpoint.connect_each(servers, 8000, timeout=30))
            self.assertEqual(len(made), len(servers))
            stood = [server for server, times in made if isinstance(times, ConnectionTimes)]
            self.assertEqual((stood.count("192.0.2.7:8255"), stood.count("192.0.2.7")), (256, 44))
            self.assertEqual({server: one.word for server, one in made if isinstance(one, MletError)}, bad)
            # All have been closed.
            endpoint.clock()
            self.assertEqual((world.open_most, world.open_now, endpoint._talk.open), (256, set(), set()))

    def test_no_more_connections_are_made_at_once_than_the_mlet_says(self) -> None:
        with played() as (near, world), Session(near, "192.0.2.1") as endpoint:
            made = list(endpoint.connect_each(["192.0.2.7:8000"] * 20, 80, timeout=30, at_once=3))
            self.assertTrue(all(isinstance(times, ConnectionTimes) for _, times in made), made)
            self.assertEqual((len(made), world.open_most), (20, 3))

    def test_what_was_not_asked_for_of_many_connections_is_closed(self) -> None:
        with played() as (near, world), Session(near, "192.0.2.1") as endpoint:
            each = endpoint.connect_each(["192.0.2.7:9003", "192.0.2.7:8000", "192.0.2.7:9003"], 80, timeout=30)
            self.assertEqual(next(each)[0], "192.0.2.7:8000")
            each.close()
            endpoint.clock()
            self.assertEqual((world.open_now, endpoint._talk.open), (set(), set()))

    def test_where_the_mlet_has_all_sockets_itself_each_server_is_told_so(self) -> None:
        with played() as (near, world), Session(near, "192.0.2.1") as endpoint:
            endpoint._talk.open = set(range(256))
            made = list(endpoint.connect_each(["192.0.2.7:8000"] * 2, 80))
            self.assertEqual([str(error) for _, error in made], ["an endpoint has 256 sockets at most; close one"] * 2)
            self.assertEqual(world.opened, 0)

    def test_a_number_that_is_in_use_at_the_endpoint_costs_no_server_its_connection(self) -> None:
        for at_once in (3, 256):
            with played() as (near, world), Session(near, "192.0.2.1") as endpoint:
                world.in_use = {0, 1, 5}
                made = list(endpoint.connect_each(["192.0.2.7:8000"] * 300, 80, timeout=30, at_once=at_once))
                self.assertEqual([one for _, one in made if not isinstance(one, ConnectionTimes)], [])
                self.assertEqual(len(made), 300)
                # Another becomes free where none was known to be, and then there is none.
                world.in_use = set(range(256)) - {0}
                made = list(endpoint.connect_each(["192.0.2.7:8000"] * 2, 80, timeout=30))
                self.assertEqual(len([one for _, one in made if isinstance(one, ConnectionTimes)]), 2)
                world.in_use.add(0)
                told = [str(error) for _, error in endpoint.connect_each(["192.0.2.7:8000"] * 2, 80, timeout=30)]
                self.assertEqual([error.count("ESKTINUSE") for error in told], [1, 1], told)

    def test_a_connection_tells_the_endpoints_own_times(self) -> None:
        with played() as (near, _), Session(near, "192.0.2.1") as endpoint:
            with endpoint.connect("192.0.2.7", 8000) as server:
                times = server.times
                self.assertEqual((times.began, times.began_by), (CLOCK + 1000, CLOCK + 2000))
                self.assertEqual(times.established, CLOCK + 8_000_000)
                self.assertEqual((times.took_ms, times.uncertainty_ms), (7.999, 0.001))
                self.assertLessEqual(times.asked, times.told)

    def test_the_first_of_several_connections_is_told_while_others_are_waited_for(self) -> None:
        with played() as (near, _), Session(near, "192.0.2.1") as endpoint:
            for port, timeout in ((9003, 0.5), (8001, 30), (9001, 30)):
                endpoint.begin_connect("192.0.2.7", port, timeout=timeout)
            ended: List[Tuple[int, object]] = []
            while (done := endpoint.next_connection()) is not None:
                try:
                    ended.append((done.remote[1], done.stream().sktid))
                except (ConnectionRefused, Silence) as error:
                    ended.append((done.remote[1], error.word))
            self.assertEqual(sorted(ended[:2], key=str), [(8001, 1), (9001, "refused")])
            self.assertEqual(ended[2:], [(9003, "silence")])

    def test_each_failure_is_of_its_own_kind_and_says_how_long_it_took(self) -> None:
        with played() as (near, far), Session(near, "192.0.2.1") as endpoint:
            with self.assertRaisesRegex(ConnectionRefused, r"no connection to 192.0.2.7:9001: refused after 0\.\d+ s"):
                endpoint.connect("192.0.2.7", 9001)
            with self.assertRaisesRegex(Denied, r"NOPEN \(socket 0, TCP to 192.0.2.7:9002\): ESKTOPNDENY"):
                endpoint.connect("192.0.2.7", 9002)
            with self.assertRaisesRegex(Silence, r"no connection to 192.0.2.7:9003: the endpoint told nothing of it, given up after 0\.[12]"):
                endpoint.connect("192.0.2.7", 9003, timeout=0.1)
            endpoint.clock()
            # The one that was denied has never been open.
            self.assertEqual((far.closed, endpoint._talk.open), ([0, 0], set()))

    def test_the_first_news_of_several_sockets_and_of_packets_that_do_not_leave(self) -> None:
        with played() as (near, _), Session(near, "192.0.2.1") as endpoint:
            quiet, busy = endpoint.udp(), endpoint.udp()
            tag = busy.send(b"x", "192.0.2.7", 7)
            news = endpoint.first_of([quiet, busy], 30)
            assert isinstance(news, Received)
            self.assertEqual((news.sktid, news.data, news.remote), (1, b"x", ("192.0.2.7", 7)))
            self.assertGreater(news.came, news.time)
            self.assertEqual(busy.wait_until_sent(tag), CLOCK + 2_000_000)
            for tag, kind in ((0x1111, Denied), (0x2222, NotSent)):
                busy.send(b"x", "192.0.2.7", 7, tag=tag)
                with self.assertRaisesRegex(kind, "socket 1, UDP on 0.0.0.0:0: not sent"):
                    busy.wait_until_sent(tag)
            said = r"anything \(socket 0, UDP on 0.0.0.0:0\) did not come in 0\.0"
            with self.assertRaisesRegex(Silence, said):
                endpoint.first_of([quiet], 0.01)

    def test_many_requests_are_under_way_at_once(self) -> None:
        with played() as (near, _), Session(near, "192.0.2.1") as endpoint:
            asked = [endpoint.ask(0x28, struct.pack("!IH", 0x10010000, 8), "MREAD") for _ in range(1000)]
            answers = [endpoint.answer(one).payload for one in reversed(asked)]
            clocks = [struct.unpack("!IQ", answer)[1] - CLOCK for answer in reversed(answers)]
            self.assertEqual(clocks, [1000 * number for number in range(1, 1001)])


def resource(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


class LookUpTest(unittest.TestCase):
    def reply(self, question: bytes, records: List[bytes], flags: int = 0x8180) -> bytes:
        return question[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0) + question[12:] + b"".join(records)

    def test_addresses_are_those_of_the_name_and_of_its_aliases(self) -> None:
        with played() as (near, far), Session(near, "192.0.2.1") as endpoint:
            records = [
                resource(b"\xc0\x0c", 5, b"\5other\xc0\x10"),
                resource(b"\5OTHER\xc0\x10", 1, bytes((192, 0, 2, 7))),
                resource(b"\5third\xc0\x10", 1, bytes((192, 0, 2, 8))),
            ]
            far.datagram = lambda question: self.reply(question, records)
            found = endpoint.look_up("www.example", "192.0.2.53")
            self.assertEqual((found.addresses, found.server), (["192.0.2.7"], ("192.0.2.53", 53)))
            self.assertEqual(found.took_ms, 3.0)
            self.assertEqual(endpoint._talk.open, set())

    def test_what_does_not_answer_the_question_is_passed_over(self) -> None:
        good = resource(b"\xc0\x0c", 1, bytes((192, 0, 2, 7)))
        spoils: Tuple[Callable[[bytes], bytes], ...] = (
            lambda reply: b"xy" + reply[2:],
            lambda reply: reply[:2] + b"\x01" + reply[3:],
            lambda reply: reply.replace(b"www", b"wwx"),
            lambda reply: reply[:-1],
            lambda reply: reply[:-6] + b"\0\5" + reply[-4:] + b"x",
            lambda reply: reply.replace(b"\xc0\x0c", b"\xc0\x80"),
            lambda reply: reply[:20],
            # A pointer to itself.
            lambda reply: reply.replace(b"\xc0\x0c", b"\xc0\x1d"),
            # A right answer, but of another server.
            lambda reply: reply,
        )
        for number, spoil in enumerate(spoils, 1):
            with played() as (near, far), Session(near, "192.0.2.1") as endpoint:
                far.stranger = b"\xc0\0\x02\x36\x14\xe9" if number == len(spoils) else b""
                far.datagram = lambda question: spoil(self.reply(question, [good]))
                told = "the answer of 192.0.2.53:5353 on www.example did not come in 0.050 s"
                with self.assertRaisesRegex(Silence, told):
                    endpoint.look_up("www.example", "192.0.2.53:5353", 0.05)

    def test_an_answer_without_addresses_is_one_and_a_refusal_says_why(self) -> None:
        round_about = [resource(b"\xc0\x0c", 5, b"\xc0\x0c")]
        for flags, records, said in (
            (0x8183, [], "says that there is no such domain"), (0x8380, [], "truncated"), (0x8180, round_about, "go round"),
        ):  # fmt: skip
            with played() as (near, far), Session(near, "192.0.2.1") as endpoint:
                far.datagram = lambda question: self.reply(question, records, flags)
                with self.assertRaisesRegex(LookUpFailed, said):
                    endpoint.look_up("www.example", "192.0.2.53")
                far.datagram = lambda question: self.reply(question, [])
                self.assertEqual(endpoint.look_up("www.example", "192.0.2.53").addresses, [])
                self.assertEqual(endpoint.look_up("www.example.", "192.0.2.53").addresses, [])
                none, long = "no domain name", "too long for a domain name"
                foreign = r"not ASCII: give its A-label \(xn--...\)"
                for bad, what in (
                    ("", none), ("a..b", none), ("a..", none), ("x" * 64, none), ("x." * 128, long),
                    ("b\u00fccher.example", foreign), ("\u00e4..b", foreign), ("\ud800.example", foreign),
                ):  # fmt: skip
                    with self.assertRaisesRegex(LookUpFailed, f"53 on '.*': this is {what}") as failed:
                        endpoint.look_up(bad, "192.0.2.53")
                    self.assertEqual(failed.exception.word, "look_up_failed")


class AsyncTest(unittest.TestCase):
    def test_connections_are_made_at_once_and_come_as_they_stand(self) -> None:
        async def measure(near: socket.socket) -> List[int]:
            async with AsyncSession(near, "192.0.2.1") as endpoint:
                ports = (8002, 8001, 8000)
                connecting = [endpoint.connect("192.0.2.7", port) for port in ports]
                came = []
                for done in asyncio.as_completed(connecting, timeout=30):
                    stream = await done
                    assert stream.remote is not None
                    came.append(stream.remote[1])
                    await stream.close()
                return came

        with played() as (near, far):
            # The three are asked for in this order, and 8000 + n stands once n others have been asked for.
            came = asyncio.run(measure(near))
            self.assertEqual((sorted(came), sorted(far.closed)), ([8000, 8001, 8002], [0, 1, 2]))

    def test_a_call_that_is_cancelled_shifts_no_answer_and_leaves_no_connection(self) -> None:
        async def measure(near: socket.socket, far: Played) -> None:
            async with AsyncSession(near, "192.0.2.1") as endpoint:
                connecting = asyncio.ensure_future(endpoint.connect("192.0.2.7", 9003))
                first = asyncio.ensure_future(endpoint.clock())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                first.cancel()
                while not far.opened:
                    await asyncio.sleep(0.001)
                connecting.cancel()
                await asyncio.gather(first, connecting, return_exceptions=True)
                clocks = [await endpoint.clock() for _ in range(3)]
                self.assertEqual([clock - clocks[0] for clock in clocks], [0, 1000, 2000])
                self.assertEqual((far.closed, endpoint._talk.open), ([0], set()))

        with played() as (near, far):
            asyncio.run(measure(near, far))

    def test_an_opening_and_a_look_up_that_are_cancelled_leave_no_socket(self) -> None:
        async def measure(near: socket.socket, far: Played) -> None:
            async with AsyncSession(near, "192.0.2.1") as endpoint:
                for number, doing in enumerate((endpoint.udp(), endpoint.look_up("a.example", "192.0.2.53", 30)), 1):
                    task = asyncio.ensure_future(doing)
                    while len(far.unanswered) < number:
                        await asyncio.sleep(0.001)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    self.assertTrue(task.cancelled())
                    far.far.sendall(far.unanswered[-1])
                    await endpoint.clock()
                    self.assertEqual((far.closed, endpoint._talk.open), ([0] * number, set()))

        with played() as (near, far):
            far.answers_opening = False
            asyncio.run(measure(near, far))

    def test_a_timeout_without_end_lasts_until_what_is_awaited_comes(self) -> None:
        async def measure(near: socket.socket) -> None:
            async with AsyncSession(near, "192.0.2.1", timeout=float("inf"), deadline=10**400) as endpoint:
                async with await endpoint.udp() as udp:
                    await udp.send(b"x", "192.0.2.7", 7)
                    self.assertEqual((await udp.receive(float("inf"))).data, b"x")

        with played() as (near, _):
            asyncio.run(measure(near))

    def test_a_name_that_nobody_answers_for_is_given_up_in_time_and_nobody_else_waits(self) -> None:
        # As slow as the controller's own DNS server may be.
        answers = threading.Event()
        asked: List[str] = []
        answered: List[str] = []

        def resolve(host: str, port: int, family: Optional[int]) -> Tuple[str, int]:
            if host != "slow.example":
                return host, port
            asked.append(host)
            answers.wait(20)
            answered.append(host)
            return "192.0.2.53", port

        told = "the address of slow.example did not come in 0"

        async def measure(near: socket.socket) -> None:
            async with AsyncSession(near, "192.0.2.1", timeout=0.1) as endpoint, await endpoint.udp() as udp:
                for doing in (
                    endpoint.look_up("a.example", "slow.example:5353", 0.1),
                    endpoint.connect("slow.example", 8000, timeout=0.1),
                    udp.send(b"x", "slow.example", 53),
                ):
                    asked.clear()
                    waiting = asyncio.ensure_future(doing)
                    while not asked:
                        await asyncio.sleep(0.001)
                    await endpoint.clock()
                    self.assertEqual(answered, [])
                    with self.assertRaisesRegex(Silence, told):
                        await waiting

        def block(near: socket.socket) -> None:
            with Session(near, "192.0.2.1", timeout=0.1) as endpoint, endpoint.udp() as udp:
                for doing in (
                    lambda: endpoint.look_up("a.example", "slow.example:5353", 0.1),
                    lambda: endpoint.connect("slow.example", 8000, timeout=0.1),
                    lambda: endpoint.begin_connect("slow.example", 8000, timeout=0.1),
                    lambda: udp.send(b"x", "slow.example", 53),
                ):  # type: Callable[[], object]
                    with self.assertRaisesRegex(Silence, told):
                        doing()
                # It holds up nobody behind it.
                made = list(endpoint.connect_each(["slow.example", "192.0.2.7:8000"], 8000, timeout=1))
                self.assertEqual([isinstance(one, Silence) for _, one in made], [True, False])
                endpoint.end_by(0.1)
                with self.assertRaises(SessionOver):
                    endpoint.connect("slow.example", 8000, timeout=30)

        try:
            with mock.patch("pktlab_mlet.names.resolve", resolve):
                with played() as (near, _):
                    asyncio.run(measure(near))
                with played() as (near, _):
                    block(near)
            self.assertEqual(answered, [])
        finally:
            answers.set()

    def test_a_deadline_that_is_set_while_others_wait_ends_their_waits(self) -> None:
        async def measure(near: socket.socket) -> None:
            async with AsyncSession(near, "192.0.2.1") as endpoint:
                waiting = asyncio.ensure_future((await endpoint.udp()).receive(60))
                while not endpoint._waiting:
                    await asyncio.sleep(0)
                endpoint.end_by(0.05)
                with self.assertRaises(SessionOver):
                    await asyncio.wait_for(waiting, 30)

        with played() as (near, _):
            asyncio.run(measure(near))

    def test_times_and_silence_are_as_for_one_who_blocks(self) -> None:
        async def measure(near: socket.socket) -> None:
            async with AsyncSession(near, "192.0.2.1") as endpoint:
                async with await endpoint.udp() as udp:
                    tag = await udp.send(b"x", "192.0.2.7", 7)
                    received, sent = await asyncio.gather(udp.receive(30), udp.sent(tag))
                    self.assertEqual((received.time - sent.time, received.data), (3_000_000, b"x"))
                    with self.assertRaisesRegex(Silence, r"data \(socket 0, UDP on 0.0.0.0:0\) did not come in 0\.0"):
                        await udp.receive(0.01)
                with self.assertRaises(ConnectionRefused):
                    await endpoint.connect("192.0.2.7", 9001)

        with played() as (near, _):
            asyncio.run(measure(near))


class ExampleTest(unittest.TestCase):
    def test_the_example_of_the_readme_is_a_mlet_as_it_stands(self) -> None:
        script = (HERE / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        with played() as (near, _):
            environment = {"EPADDR": "192.0.2.1", "PYTHONPATH": str(HERE)}
            ended = subprocess.run(
                [sys.executable, "-c", script], stdin=near.fileno(), capture_output=True, text=True, timeout=60, env=environment
            )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        line = json.loads(ended.stdout)
        self.assertEqual((line["server"], line["connect_ms"]), (["192.0.2.7", 80], 0.079))

    def test_the_example_on_asyncio_prints_a_line_for_each_server(self) -> None:
        with played() as (near, _):
            script = str(Path(__file__).with_name("at_once.py"))
            servers = ["192.0.2.7:8001", "192.0.2.7:9001"]
            environment = {"EPADDR": "192.0.2.1", "PKTLAB_SESSION": "7"}
            ended = subprocess.run(
                [script, *servers], stdin=near.fileno(), capture_output=True, text=True, timeout=60, env=environment
            )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        lines = {line["server"]: line for line in map(json.loads, ended.stdout.splitlines())}
        self.assertEqual(sorted(lines), servers)
        self.assertEqual((lines[servers[0]]["session"], lines[servers[1]]["error"]), (7, "refused"))
        self.assertGreater(lines[servers[0]]["ms"], 0)


if __name__ == "__main__":
    unittest.main()
