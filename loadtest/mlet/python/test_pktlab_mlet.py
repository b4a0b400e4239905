"""What pktlab_mlet does with endpoints and managers that are not as they should be. Each test is one end of a
socket pair; mlets with a real pktxpmgr and real endpoints are tested elsewhere."""

import doctest
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple, Type

import pktlab_mlet
from pktlab_mlet import (
    ConnectionFailed, ConnectionRefused, ConnectionReset, ConnectionTimedOut, Denied, EndpointLeft, MletError, NoResults,
    NotSent, Refused, RefusedOrReset, Sent, Session, SessionOver, Silence, Suspended, TooMuchKept, Unreachable, Unread,
    ebpf, resolve, results, sessions, to_rows,
)  # fmt: skip
from pktlab_mlet.kept import Kept, Place
from pktlab_mlet.messages import Notification
from pktlab_mlet.streams import PipedStream, SocketStream

HERE = Path(__file__).parent
OK = b"\x40\0\0\0"


def session(answers: bytes, timeout: float = 30.0) -> Tuple[Session, socket.socket]:
    """A session whose endpoint has already sent `answers`."""
    near, far = socket.socketpair()
    far.sendall(answers)
    return Session(near, "192.0.2.1", timeout), far


def message(message_type: int, payload: bytes) -> bytes:
    return struct.pack("!I", message_type << 24 | len(payload)) + payload


def memory(address: int, data: bytes) -> bytes:
    """MDATA."""
    return message(0x41, struct.pack("!I", address) + data)


@contextmanager
def flood(far: socket.socket, one: bytes) -> Iterator[None]:
    """The endpoint sends this message until nobody reads any more."""

    def send() -> None:
        try:
            while True:
                far.sendall(one * (1 + 0x10000 // len(one)))
        except OSError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        far.shutdown(socket.SHUT_RDWR)
        thread.join()


class PipesTest(unittest.TestCase):
    """A session over pipes, and the manager's ends of socket and pipes."""

    def setUp(self) -> None:
        near, self.socket = socket.socketpair()
        read, self.to_mlet = os.pipe()
        self.from_mlet, written = os.pipe()
        self.endpoint = Session(near, "192.0.2.1", 30.0)
        self.endpoint._stream = PipedStream(near, read, written)
        # Who waits where nothing comes is to fail, not to hang.
        os.set_blocking(self.from_mlet, False)

    def tearDown(self) -> None:
        self.socket.close()
        for pipe in (self.to_mlet, self.from_mlet):
            try:
                os.close(pipe)
            except OSError:
                pass

    def test_an_answer_may_begin_on_the_socket_and_go_on_over_the_pipe(self) -> None:
        answer = memory(pktlab_mlet.CLOCK, struct.pack("!Q", 7))
        self.socket.sendall(answer[:5])
        self.socket.shutdown(socket.SHUT_WR)
        os.write(self.to_mlet, answer[5:])
        self.assertEqual(self.endpoint.clock(), 7)
        self.assertEqual(os.read(self.from_mlet, 100)[0], 0x28)
        self.socket.setblocking(False)
        self.assertRaises(BlockingIOError, self.socket.recv, 1)

    def test_waits_are_bounded_both_ways(self) -> None:
        self.endpoint.timeout = 0.01
        self.socket.shutdown(socket.SHUT_WR)
        self.assertRaises(Silence, self.endpoint.clock)
        with self.assertRaisesRegex(Unread, "the endpoint did not take NSEND in 0.0"):
            self.endpoint.request(0x2C, bytes(4 << 20), "NSEND")

    def test_the_end_of_the_pipe_is_the_end_of_the_session(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        os.close(self.to_mlet)
        told = r"the endpoint left; the answer to MREAD \(memory 0x10010000\) had been awaited for \d+\.\d{3} s\Z"
        for _ in range(2):
            with self.assertRaisesRegex(pktlab_mlet.EndpointLeft, told):
                self.endpoint.clock()

    def test_what_the_mlet_starts_does_not_get_the_pipes_and_its_end_closes_them(self) -> None:
        stream = self.endpoint._stream
        assert isinstance(stream, PipedStream)
        self.assertFalse(os.get_inheritable(stream._written))
        self.endpoint.end()
        self.assertEqual(os.read(self.from_mlet, 1), b"")


class SessionTest(unittest.TestCase):
    def test_a_request_too_long_for_a_message_is_refused_here(self) -> None:
        endpoint, far = session(OK)
        with self.assertRaisesRegex(MletError, "NSEND.*16777215"):
            endpoint.request(0x2C, bytes(0x1000000), "NSEND")
        far.setblocking(False)
        self.assertRaises(BlockingIOError, far.recv, 1)

    def test_a_deadline_holds_while_other_messages_come_without_end(self) -> None:
        endpoint, far = session(b"", timeout=0.05)
        with flood(far, message(0x69, b"")):
            started = time.monotonic()
            deadline = endpoint._talk.deadline(0.05)
            never = endpoint._talk.notification(lambda _: None, deadline, lambda: "what never comes")
            self.assertRaises(Silence, endpoint._run, never)
            self.assertGreaterEqual(time.monotonic() - started, 0.05)
            asked = endpoint.ask(0x28, bytes(5) + b"\1", "MREAD")
            self.assertRaises(Silence, endpoint.answer, asked, 0.05)
            self.assertGreater(len(endpoint._talk._notifications), 0)
            endpoint.end()

    def test_only_so_much_is_kept_and_what_is_kept_can_be_had(self) -> None:
        endpoint, far = session(b"")
        with flood(far, message(0x65, bytes(0x10000))):
            for _ in range(2):
                with self.assertRaisesRegex(TooMuchKept, r"not asked for; the answer to MREAD .* had been awaited for \d"):
                    endpoint.clock()
            self.assertLess(len(endpoint._talk._notifications), 1030)
            for _ in range(1100):
                endpoint.notification()
            self.assertLess(endpoint._talk._notifications.cost, 64 << 20)
            endpoint.notification()
            endpoint.end()

    def test_a_result_of_one_byte_is_malformed(self) -> None:
        endpoint, _far = session(b"\x40\0\0\1\0")
        with self.assertRaisesRegex(MletError, "malformed"):
            endpoint.write_memory(0, b"x")

    def test_a_result_of_a_monitor_without_its_index_or_code_is_malformed(self) -> None:
        for short in ("0012", "00120001", "0013"):
            endpoint, _far = session(message(0x40, bytes.fromhex(short)))
            with self.assertRaisesRegex(MletError, "NOPEN.*: the endpoint sent a malformed RESULT"):
                endpoint.udp()

    def test_a_notification_of_no_family_or_protocol_is_malformed(self) -> None:
        rests = ((0x61, "NSTAT", 9), (0x62, "NDATA", 1 << 20), (0x63, "NDROP", 24), (0x64, "NBLOCK", 10))
        for kind, name, rest in rests:
            for socket_of in (b"\1\1\6", b"\1\4\1"):
                endpoint, far = session(b"")
                with flood(far, message(kind, socket_of + b"\1" * rest)):
                    with self.assertRaisesRegex(MletError, f"the endpoint sent a malformed {name} of {3 + rest} bytes"):
                        endpoint.notification()
                    endpoint.end()

    def test_a_malformed_notification_is_named(self) -> None:
        for kind, name in ((0x60, "NTAG"), (0x61, "NSTAT"), (0x62, "NDATA"), (0x63, "NDROP"), (0x64, "NBLOCK")):
            endpoint, _ = session(message(kind, b"\1\4"))
            with self.assertRaisesRegex(MletError, rf"\Athe endpoint sent a malformed {name} of 2 bytes; the session is over\Z"):
                endpoint.notification()

    def test_success_is_no_answer_to_a_memory_read(self) -> None:
        endpoint, _far = session(OK)
        with self.assertRaisesRegex(MletError, "MREAD"):
            endpoint.clock()

    def test_memory_is_no_answer_to_an_open(self) -> None:
        endpoint, _far = session(message(0x41, bytes(4)))
        with self.assertRaisesRegex(MletError, "NOPEN"):
            endpoint.udp()

    def test_a_refusal_names_the_monitor(self) -> None:
        endpoint, _far = session(message(0x40, bytes.fromhex("001200010007")))
        said = r"ECTLMONREJ \(0x0012\): a monitor rejected it \(monitor 1, its code 7\)"
        with self.assertRaisesRegex(Refused, said) as caught:
            endpoint.udp()
        self.assertEqual(caught.exception.status, 0x12)

    def test_a_datagram_goes_to_an_address_of_its_sockets_family(self) -> None:
        endpoint, far = session(OK + OK)
        with self.assertRaisesRegex(MletError, "::1 has no IPv4 address"):
            endpoint.udp().send(b"data", "::1", 53)
        far.setblocking(False)
        self.assertEqual(far.recv(100)[0], 0x2A)
        self.assertRaises(BlockingIOError, far.recv, 1)

    def test_an_answer_that_nobody_asked_for_is_an_error(self) -> None:
        endpoint, _far = session(OK)
        with self.assertRaisesRegex(MletError, "answer to no request"):
            endpoint.notification()

    def test_other_memory_is_no_answer_to_a_memory_read(self) -> None:
        for answer in (memory(8, bytes(4)), memory(0, bytes(3)), memory(0, bytes(5))):
            endpoint, _far = session(answer)
            with self.assertRaisesRegex(MletError, "other memory"):
                endpoint.read_memory(0, 4)

    def test_of_tag_0_nothing_is_told_so_it_is_none(self) -> None:
        endpoint, far = session(OK + OK + OK)
        udp = endpoint.udp()
        for tag in (0, -1, 0x10000):
            with self.assertRaisesRegex(MletError, "from 1 to 65535"):
                udp.send(b"data", "192.0.2.7", 53, tag=tag)
        self.assertEqual(udp.send(b"data", "192.0.2.7", 53), 1)
        udp._ops.tag = 0xFFFF
        self.assertEqual(udp.send(b"data", "192.0.2.7", 53), 1)

    def test_what_no_message_can_hold_is_refused_here_in_one_line(self) -> None:
        endpoint, far = session(OK + OK)
        udp, raw = endpoint.udp(), endpoint.raw()
        far.recv(100)
        for said, ask in (
            ("192.0.2.7:70000: port 70000 is not from 1 to 65535", lambda: endpoint.connect("192.0.2.7", 70000)),
            ("192.0.2.7:0: port 0 is not from 1 to 65535", lambda: endpoint.connect("192.0.2.7", 0)),
            ("192.0.2.7:70000: port 70000 is not from 1 to 65535", lambda: udp.send(b"x", "192.0.2.7", 70000)),
            ("192.0.2.7:0: port 0 is not from 1 to 65535", lambda: udp.send(b"x", "192.0.2.7", 0)),
            ("port: -1 is not from 0 to 65535", lambda: endpoint.listen(-1)),
            ("localhost is no IP address", lambda: endpoint.listen(0, "localhost")),
            ("localhost is no IP address", lambda: endpoint.udp(0, "localhost")),
            ("localhost is no IP address", lambda: endpoint.raw("localhost")),
            ("a..b has no address", lambda: endpoint.connect("a..b", 80)),
            ("NOPEN: buffer: -1 is not from 0 to 4294967295", lambda: endpoint.udp(buffer=-1)),
            ("MREAD: length: 70000 is not from 1 to 65535", lambda: endpoint.read_memory(0, 70000)),
            ("MREAD: length: 0 is not from 1 to 65535", lambda: endpoint.read_memory(0, 0)),
            ("MREAD: address: -1 is not from 0", lambda: endpoint.read_memory(-1, 1)),
            ("MWRITE: address: 4294967296 is not from 0", lambda: endpoint.write_memory(1 << 32, b"x")),
            ("NSEND: time: 1.5 is no whole number", lambda: raw.send(b"x", when=1.5)),  # type: ignore[arg-type]
            ("NCAP: time: -1 is not from 0", lambda: raw.capture(b"", until=-1)),
            ("YIELD: time: -1 is not from 0", lambda: endpoint.yield_until(-1)),
            ("eBPF: opcode: 256 is not from 0 to 255", lambda: ebpf((256, 0, 0, 0, 0))),
        ):
            with self.subTest(said=said), self.assertRaises(MletError) as refused:
                ask()
            self.assertRegex(str(refused.exception), rf"\A{said}")
            self.assertNotIn("\n", str(refused.exception))
        far.setblocking(False)
        self.assertRaises(BlockingIOError, far.recv, 1)
        self.assertEqual(endpoint._talk.open, {udp.sktid, raw.sktid})

    def test_silence_tells_how_long_was_waited_whatever_else_came(self) -> None:
        endpoint, far = session(OK)
        udp = endpoint.udp()
        stop = threading.Event()

        def chatter() -> None:
            while not stop.wait(0.01):
                far.sendall(message(0x60, struct.pack("!BHQ", 7, 1, 0)))

        talking = threading.Thread(target=chatter)
        talking.start()
        try:
            with self.assertRaisesRegex(Silence, r"data \(socket 0, UDP on 0.0.0.0:0\) did not come in 0.\d\d\d s"):
                udp.receive(0.1)
        finally:
            stop.set()
            talking.join()
        self.assertGreater(len(endpoint._talk._notifications), 0)

    def test_a_socket_whose_opening_is_not_answered_in_time_is_closed_before_its_number_is_used_again(self) -> None:
        for open_one in (Session.udp, Session.raw, lambda endpoint: endpoint.listen(80)):
            endpoint, far = session(b"", timeout=0.01)
            self.assertRaises(Silence, open_one, endpoint)
            # NOPEN, and then NCLOSE of the same.
            asked = far.recv(100)
            self.assertEqual((asked[0], asked[4], asked[-5:]), (0x2A, 0, bytes.fromhex("2b00000100")))
            far.sendall(OK + OK + OK)
            self.assertEqual(endpoint.udp().sktid, 0)

    def test_a_look_up_is_over_in_its_time_wherever_the_endpoint_stops(self) -> None:
        servers = memory(0x10020000, bytes((1,)) + bytes(15) + bytes((192, 0, 2, 53)))
        for answers, server in ((b"", ""), (servers, ""), (b"", "192.0.2.53"), (OK, "192.0.2.53"), (OK + OK, "192.0.2.53")):
            with self.subTest(answers=answers):
                endpoint, far = session(answers, timeout=30.0)
                with self.assertRaises(Silence) as silence:
                    endpoint.look_up("a.example", server, timeout=0.05)
                self.assertLess(silence.exception.waited, 30.0)
                self.assertEqual(endpoint._talk.open, set())

    def test_a_timeout_without_end_lasts_until_what_is_awaited_comes(self) -> None:
        for endless in (float("inf"), 1e300, 10**400):
            endpoint, far = session(OK, timeout=endless)
            endpoint.end_by(endless)
            udp = endpoint.udp()
            timer = threading.Timer(0.01, far.sendall, [message(0x62, struct.pack("!BBBQ", 0, 4, 17, 7) + bytes(6) + b"x")])
            timer.start()
            self.assertEqual(udp.receive(endless).data, b"x")
            timer.join()
        with self.assertRaisesRegex(MletError, "nan seconds are no time to wait"):
            udp.receive(float("nan"))

    def test_what_is_told_of_a_packet_is_not_of_an_earlier_one_with_its_number(self) -> None:
        endpoint, far = session(OK)
        with endpoint.udp() as udp:
            for when in (1, 2):
                udp._ops.tag = 0
                far.sendall(OK + message(0x60, struct.pack("!BHQ", 0, 1, when)))
                self.assertEqual(udp.send(b"x", "192.0.2.7", 7), 1)
            self.assertEqual(udp.sent(1).time, 2)
            self.assertEqual((len(endpoint._talk._notifications), endpoint._talk._notifications.cost), (0, 0))
            far.sendall(OK)


class BlockedTest(unittest.TestCase):
    """What a monitor of the endpoint's operator blocks of what comes, which NBLOCK tells, and other ends of a stream."""

    def denied(self, receive: Callable[[], object], name: str) -> None:
        with self.assertRaises(Denied) as denied:
            receive()
        told = f"{name}: a monitor blocked what came (its code 55)"
        self.assertEqual((str(denied.exception), denied.exception.word), (told, "denied"))

    def block(self, protocol: int, code: int = 55) -> bytes:
        return message(0x64, struct.pack("!BBBHQ", 0, 4, protocol, code, 0))

    def ended(self, code: int) -> bytes:
        return message(0x61, struct.pack("!BBBQB", 0, 4, 6, 0, code))

    def test_a_stream_does_not_go_on_over_what_a_monitor_blocked(self) -> None:
        def piece(data: bytes) -> bytes:
            return message(0x62, struct.pack("!BBBQ", 0, 4, 6, 0) + data)

        told = OPENED + established(0) + piece(b"before") + self.block(6) + piece(b"behind")
        endpoint, _far = session(told + OK + OPENED + established(0) + piece(b"new"))
        stream = endpoint.connect("192.0.2.7", 80)
        self.assertEqual(stream.receive(), b"before")
        for receive in (stream.receive, stream.receive_all):
            self.denied(receive, "socket 0, TCP to 192.0.2.7:80")
        stream.close()
        self.assertEqual(endpoint.connect("192.0.2.7", 80).receive(), b"new")

    def test_a_stream_does_not_go_on_over_what_was_told_as_other_news(self) -> None:
        behind = message(0x62, struct.pack("!BBBQ", 0, 4, 6, 0) + b"behind")
        endpoint, _far = session(OPENED + established(0) + self.block(6) + behind)
        stream = endpoint.connect("192.0.2.7", 80)
        self.assertIsInstance(endpoint.first_of([stream]), pktlab_mlet.Blocked)
        self.denied(stream.receive, "socket 0, TCP to 192.0.2.7:80")
        # Who asks for all news gets it all the same.
        self.assertIsInstance(endpoint.notification(), pktlab_mlet.Received)

    def test_a_stream_whose_end_was_told_as_other_news_is_over(self) -> None:
        for code, told in ((3, None), (1, ConnectionReset)):
            endpoint, _far = session(OPENED + established(0) + self.ended(code), 1.0)
            stream = endpoint.connect("192.0.2.7", 80)
            self.assertIsInstance(endpoint.first_of([stream]), pktlab_mlet.Changed)
            if told is None:
                self.assertEqual(stream.receive(), b"")
            else:
                self.assertRaises(told, stream.receive)

    def test_a_datagram_that_a_monitor_blocked_is_told_and_the_next_one_follows(self) -> None:
        following = message(0x62, struct.pack("!BBBQ4sH", 0, 4, 17, 7, bytes((192, 0, 2, 7)), 7) + b"next")
        endpoint, _far = session(OK + self.block(17) + following)
        udp = endpoint.udp()
        self.denied(udp.receive, "socket 0, UDP on 0.0.0.0:0")
        self.assertEqual(udp.receive().data, b"next")

    def test_a_monitor_that_crashed_is_told_as_such(self) -> None:
        endpoint, _far = session(OK + self.block(17, code=0))
        with self.assertRaises(Denied) as denied:
            endpoint.udp().receive()
        told = "socket 0, UDP on 0.0.0.0:0: a monitor crashed at what came, which is blocked"
        self.assertEqual((str(denied.exception), denied.exception.status), (told, 0x13))

    def test_a_look_up_whose_answer_a_monitor_blocked_is_denied(self) -> None:
        endpoint, _far = session(OK + OK + self.block(17))
        self.denied(lambda: endpoint.look_up("a.example", "192.0.2.53"), "192.0.2.53:53 on a.example")


class KeptTest(unittest.TestCase):
    def test_what_is_kept_comes_out_as_it_came_whatever_is_asked_for(self) -> None:
        draw, kept = random.Random(7), Kept()
        came: List[Notification] = []
        numbers: Dict[Notification, int] = {}
        taken = 0
        for number in range(4000):
            sktid, what = draw.randrange(3), draw.randrange(10)
            if what < 5:
                news: Notification = draw.choice((
                    Sent(sktid, draw.randrange(4), number, 0),
                    pktlab_mlet.Received(sktid, number, None, bytes(draw.randrange(9))),
                    pktlab_mlet.Changed(sktid, number, None, 3),
                ))  # fmt: skip
                numbers[news] = kept.next
                kept.keep(news)
                came.append(news)
                continue
            if what == 9 and draw.random() < 0.1:
                before = draw.randrange(kept.next + 1)
                kept.forget(sktid, before)
                came = [one for one in came if one.sktid != sktid or numbers[one] >= before]
                continue
            places = [Place(sktid, Sent, 1), Place(sktid, pktlab_mlet.Received)]
            is_any = what >= 7

            def wanted(one: Notification) -> bool:
                is_there = isinstance(one, pktlab_mlet.Received) or isinstance(one, Sent) and one.tag == 1
                return one.sktid == sktid and (is_any or is_there)

            found = kept.first(wanted) if is_any else kept.first_at(places)
            expected = next((one for one in came if wanted(one)), None)
            if expected is None:
                self.assertIsNone(found)
            else:
                assert found is not None
                self.assertIs(kept.take(found), expected)
                came.remove(expected)
                taken += 1
            self.assertEqual(len(kept), len(came))
        self.assertGreater(taken, 500)
        for sktid in range(3):
            kept.forget(sktid, kept.next)
        self.assertEqual((kept.cost, len(kept), kept._places), (0, 0, {}))


class LateAnswersTest(unittest.TestCase):
    def test_every_answer_is_that_of_its_request_however_late_the_others_come(self) -> None:
        for seed in range(60):
            with self.subTest(seed=seed):
                self.converse(random.Random(seed))

    def converse(self, draw: random.Random) -> None:
        """Draws notifications before each answer, and how much of all that the endpoint says has come when
        the client waits for it, and when it listens: often all, and often a part that ends in a message."""
        endpoint, far = session(b"", timeout=0.001)
        said = b""
        come = told = 0
        heard: List[int] = []
        for number in range(draw.randrange(1, 16)):
            for _ in range(draw.randrange(3)):
                said += message(0x60, struct.pack("!BHQ", 1, told, 0))
                told += 1
            reads = draw.random() < 0.5
            data = struct.pack("!I", number)
            said += memory(number, data) if reads else message(0x40, struct.pack("!H", 0x7000 + number))
            to = draw.choice((len(said), draw.randrange(come, len(said) + 1)))
            far.sendall(said[come:to])
            come = to
            try:
                if reads:
                    self.assertEqual(endpoint.read_memory(number, 4), data)
                else:
                    with self.assertRaises(Refused) as refused:
                        endpoint.write_memory(number, data)
                    self.assertEqual(refused.exception.status, 0x7000 + number)
                self.assertEqual(come, len(said))
            except Silence:
                self.assertLess(come, len(said))
            if draw.random() < 0.5:
                to = draw.randrange(come, len(said) + 1)
                far.sendall(said[come:to])
                come = to
                self.listen(endpoint, heard)
        far.sendall(said[come:] + OK)
        endpoint.write_memory(0, b"x")
        self.listen(endpoint, heard)
        self.assertEqual(heard, list(range(told)))

    def listen(self, endpoint: Session, heard: List[int]) -> None:
        try:
            while True:
                news = endpoint.notification(0)
                assert isinstance(news, Sent)
                heard.append(news.tag)
        except Silence:
            pass

    def test_a_session_with_half_a_request_sends_the_rest_later(self) -> None:
        endpoint, far = session(OK, timeout=0.01)
        with self.assertRaisesRegex(Unread, "did not take"):
            with endpoint.udp():
                endpoint.write_memory(0, bytes(15_000_000))

        def serve() -> None:
            # NOPEN, the long request, NCLOSE of the socket that was left, and MWRITE.
            left = 17 + 8 + 15_000_000 + 5 + 9
            while left > 0:
                left -= len(far.recv(1 << 20))
            far.sendall(message(0x40, b"\0\x33") + OK + OK)

        serving = threading.Thread(target=serve)
        serving.start()
        endpoint.timeout = 30.0
        endpoint.write_memory(0, b"x")
        serving.join()

    def test_a_request_of_which_nothing_was_taken_is_never_sent(self) -> None:
        endpoint, far = session(b"", timeout=0.01)
        stream, waiting = endpoint._stream, 0
        try:
            while True:
                waiting += stream.write_now(memoryview(bytes(4096)))
        except BlockingIOError:
            pass
        self.assertRaises(Unread, endpoint.write_memory, 0, b"x")
        while waiting > 0:
            waiting -= len(far.recv(waiting))
        far.sendall(OK)
        endpoint.write_memory(0, b"y")
        self.assertEqual(far.recv(100), bytes.fromhex("29000005 00000000") + b"y")


def established(sktid: int, when: int = 0) -> bytes:
    return message(0x61, struct.pack("!BBBQ4sH", sktid, 4, 6, when, bytes((192, 0, 2, 7)), 80))


CLOCK = memory(pktlab_mlet.CLOCK, struct.pack("!Q", 7))

OPENED = CLOCK + OK + CLOCK
"""What is answered to the requests of a connection."""


class ConnectTest(unittest.TestCase):
    """Each endpoint answers looks at the state of socket 0 as its test says, and everything else with
    success."""

    late = b""
    """What is said before the next answer to anything but a look."""

    def connect(self, look: Callable[[], bytes], timeout: float = 30.0, deadline: float = 300.0) -> Session:
        endpoint, far = session(b"", timeout)
        endpoint.end_by(deadline)

        def serve() -> None:
            come = b""
            while more := far.recv(100):
                come += more
                while len(come) >= 4 and len(come) >= 4 + int.from_bytes(come[1:4], "big"):
                    end = 4 + int.from_bytes(come[1:4], "big")
                    request, come = come[:end], come[end:]
                    if request == bytes.fromhex("28000006200000020001"):
                        far.sendall(look())
                        continue
                    is_clock = request == bytes.fromhex("28000006100100000008")
                    far.sendall(self.late + (CLOCK if is_clock else OK))
                    self.late = b""

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        self.endpoint = endpoint
        endpoint.connect("192.0.2.7", 80)
        return endpoint

    def failure(self, answer: bytes) -> ConnectionFailed:
        with self.assertRaises(ConnectionFailed) as failed:
            self.connect(lambda: answer)
        # The socket is closed, with an answer of its own.
        self.assertEqual(self.endpoint._talk.open, set())
        self.endpoint.write_memory(0, b"x")
        return failed.exception

    def state(self, number: int) -> bytes:
        return memory(0x20000002, struct.pack("!b", number))

    def test_the_originals_endpoints_tell_of_a_refused_connection_in_memory_alone(self) -> None:
        for number, code, kind, word, reason in (
            (-1, 1, ConnectionRefused, "refused", "refused"),
            (-2, 1, ConnectionReset, "reset", "reset"),
            (-3, 2, ConnectionTimedOut, "timed_out", "timed out at the endpoint"),
            (-4, 0xFF, Unreachable, "unreachable", "unreachable"),
            (-128, 0xFF, ConnectionFailed, "unknown", "for an unknown reason"),
        ):
            failed = self.failure(self.state(number))
            self.assertEqual((failed.code, failed.reason, failed.word), (code, reason, word))
            self.assertIs(type(failed), kind)
            self.assertRegex(str(failed), rf"\Ano connection to 192.0.2.7:80: {reason} after 0\.\d\d\d s\Z")

    def test_a_code_is_believed_if_memory_tells_nothing(self) -> None:
        endpoint, far = session(OPENED + message(0x61, struct.pack("!BBBQB", 0, 4, 6, 0, 1)))
        far.sendall(message(0x40, b"\0\x48") + OK)
        with self.assertRaisesRegex(RefusedOrReset, "no connection to 192.0.2.7:80: refused or reset"):
            endpoint.connect("192.0.2.7", 80)

    def test_news_of_a_connection_that_comes_before_the_answer_is_not_lost(self) -> None:
        early = CLOCK + established(0, 7) + OK + CLOCK
        endpoint, _far = session(early + established(0, 8) + OK + early + OK)
        for _ in range(2):
            with endpoint.connect("192.0.2.7", 80, timeout=1) as server:
                self.assertEqual(server.times.established, 7)

    def test_a_connection_with_another_peer_is_not_the_one_that_was_asked_for(self) -> None:
        endpoint, _far = session(OPENED + established(0))
        said = r"no connection to 192.0.2.8:80: the endpoint says that it stands with 192.0.2.7:80 after 0\.\d\d\d s"
        with self.assertRaisesRegex(ConnectionFailed, said):
            endpoint.connect("192.0.2.8", 80)
        # Where an unspecified address leads to is the endpoint's to say.
        endpoint, _far = session(OPENED + established(0))
        endpoint.connect("0.0.0.0", 80)

    def test_a_connection_may_be_made_after_some_looks(self) -> None:
        looks = [self.state(1), self.state(1) + established(0)]
        endpoint = self.connect(lambda: looks.pop(0))
        endpoint.write_memory(0, b"x")

    def test_a_connection_or_look_up_that_the_sessions_end_cuts_off_was_awaited_since_it_began(self) -> None:
        def over(kind: Type[MletError], begun: Callable[[], object], told: str) -> None:
            with self.assertRaisesRegex(kind, rf"{told} had been awaited for \d\.\d\d\d s\Z"):
                begun()

        def connect() -> object:
            return endpoint.connect("192.0.2.7", 80)

        with self.assertRaises(SessionOver) as late:
            self.connect(lambda: self.state(1), deadline=1.2)
        self.assertEqual(late.exception.awaited, "the connection to 192.0.2.7:80")
        self.assertGreater(late.exception.waited, 1.0)
        endpoint = self.endpoint
        over(SessionOver, connect, "passed when the connection to 192.0.2.7:80")
        endpoint, far = session(OPENED)
        far.shutdown(socket.SHUT_WR)
        over(EndpointLeft, connect, "left; the connection to 192.0.2.7:80")
        endpoint, _far = session(OPENED + message(0x68, b""))
        over(Suspended, connect, "; the connection to 192.0.2.7:80")
        endpoint, _far = session(OK + OK)
        endpoint.end_by(0.05)
        told = "passed when the answer of 192.0.2.53:53 on a.example"
        over(SessionOver, lambda: endpoint.look_up("a.example", "192.0.2.53", 30), told)

    def test_a_look_that_is_answered_too_late_shifts_no_answer(self) -> None:
        def look() -> bytes:
            self.late += self.state(1)
            return b""

        with self.assertRaisesRegex(Silence, "no connection to 192.0.2.7:80: the endpoint told nothing of it, given up after 0.7"):
            self.connect(look, timeout=0.7)
        self.assertEqual(self.endpoint._talk.open, set())
        self.endpoint.timeout = 30.0
        self.endpoint.write_memory(0, b"x")
        self.assertEqual(len(self.endpoint._talk._owed), 0)


class NamesTest(unittest.TestCase):
    def test_an_ipv4_address_is_preferred(self) -> None:
        def both(*_: object, **__: object) -> object:
            kind = socket.SOCK_STREAM
            return [
                (socket.AF_INET6, kind, 6, "", ("2001:db8::1", 80, 0, 0)),
                (socket.AF_INET, kind, 6, "", ("192.0.2.1", 80)),
            ]

        original, socket.getaddrinfo = socket.getaddrinfo, both  # type: ignore[assignment]
        try:
            self.assertEqual(resolve("both.example", 80), ("192.0.2.1", 80))
            self.assertEqual(resolve("both.example", 80, 6), ("2001:db8::1", 80))
        finally:
            socket.getaddrinfo = original


class SessionsTest(unittest.TestCase):
    def test_half_a_session_is_no_end(self) -> None:
        control, manager = socket.socketpair()
        manager.sendall(b"127.0.0.1")
        manager.close()
        with self.assertRaisesRegex(MletError, "half a session"):
            next(sessions(control))

    def test_a_session_comes_with_its_address_or_with_all_facts(self) -> None:
        control, manager = socket.socketpair()
        key = "ab12cd34" * 8
        for told in (b"192.0.2.1", f"192.0.2.1 41 {key} hello".encode(), b"192.0.2.1 42 - open"):
            near, _far = socket.socketpair()
            socket.send_fds(manager, [told + b"\0"], [near.fileno()])
        of_control = sessions(control)
        alone, whole, keyless = next(of_control), next(of_control), next(of_control)
        self.assertEqual((alone.key, alone.address, alone.number, alone.snikey), (None, "192.0.2.1", None, None))
        self.assertEqual((whole.key, whole.address, whole.number, whole.snikey), (key, "192.0.2.1", 41, "hello"))
        self.assertEqual((keyless.key, keyless.number, keyless.snikey), (None, 42, "open"))
        self.assertEqual((whole.columns, str(whole)), (f"{key}\t192.0.2.1", "ab12cd34ab12 192.0.2.1"))
        self.assertEqual((keyless.columns, str(keyless)), ("-\t192.0.2.1", "192.0.2.1"))

    def test_a_message_that_tells_of_no_endpoint_is_an_error(self) -> None:
        for told in (b"192.0.2.1 41\0", b"192.0.2.1 x - open\0", b"1" * 255):
            control, manager = socket.socketpair()
            near, _far = socket.socketpair()
            socket.send_fds(manager, [told], [near.fileno()])
            with self.assertRaisesRegex(MletError, "neither an address nor all facts"):
                next(sessions(control))

    def test_no_file_left_for_a_session_says_so(self) -> None:
        script = (
            "import resource, socket, sys, pktlab_mlet\n"
            "control, manager = socket.socketpair()\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (manager.fileno() + 1,) * 2)\n"
            "socket.send_fds(manager, [b'127.0.0.1\\0'], [0])\n"
            "next(pktlab_mlet.sessions(control))\n"
        )
        ended = run(["-c", script], stdin=subprocess.DEVNULL)
        self.assertIn("too many open files", ended.stderr)


class ResultsTest(unittest.TestCase):
    def setUp(self) -> None:
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(home.name)
        self.folder = Path("campaign")
        self.folder.mkdir()
        self.lines: List[bytes] = []
        self.add(ev="run.start", run="7f3a")
        self.session(7, "ab12cd34" * 8, "ok", 812.5, 902113, b"hello\n")
        self.session(9, "cd34ab12" * 8, "mlet_failed", 31.0, 0, b"half of\n")

    def add(self, **members: Any) -> None:
        record = {"v": 1, "t": "2026-11-23T11:40:02.113204Z", **members}
        self.lines.append(json.dumps(record).encode() + b"\n")
        (self.folder / "events.jsonl").write_bytes(b"".join(self.lines))

    def session(self, sid: int, key: str, outcome: str, run: float, from_ep: int, stdout: bytes) -> None:
        place = f"sessions/{sid:06}-{key[:8]}"
        (self.folder / place).mkdir(parents=True)
        (self.folder / place / "stdout").write_bytes(stdout)
        (self.folder / place / "stderr").write_bytes(b"\xff")
        self.add(
            ev="session.end", run="7f3a", sid=sid, outcome=outcome, failed=outcome != "ok", exit=0, news={},
            ep={"key": key, "snikey": "hello"}, ms={"tls": 1.5, "run": run},
            bytes={"to_ep": 5, "from_ep": from_ep}, relay_us=None,
            output={"dir": place, "stdout": len(stdout), "stderr": 1, "truncated": False},
        )  # fmt: skip

    def test_the_examples_of_the_documentation_are_true(self) -> None:
        modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "pktlab_mlet"]
        runs = [doctest.testmod(module) for module in modules]
        self.assertEqual(sum(run.failed for run in runs), 0)
        self.assertGreater(sum(run.attempted for run in runs), 15)

    def test_a_session_tells_what_its_record_says(self) -> None:
        first, second = results(str(self.folder))
        self.assertEqual((first.key, first.snikey, first.run), ("ab12cd34" * 8, "hello", "7f3a"))
        self.assertEqual((first.exit, first.signal, first.reason, first.failed), (0, None, None, False))
        self.assertEqual((second.failed, second.stderr(), second.stderr_text()), (True, b"\xff", "\ufffd"))

    def test_a_stranger_never_counts_as_failed_and_has_no_output(self) -> None:
        self.add(ev="session.end", sid=10, outcome="tls_failed", ep={"key": None}, output=None)
        *_, last = results(self.folder)
        self.assertEqual((last.failed, last.key, last.stdout_text()), (False, None, ""))
        self.assertIsNone(last.row()["run_ms"])

    def test_a_row_is_flat_and_has_every_column(self) -> None:
        first, _ = to_rows(results(self.folder))
        self.assertEqual(len(first), 43)
        self.assertEqual((first["session"], first["to_ep_bytes"], first["failed"]), (7, 5, False))
        self.assertFalse([value for value in first.values() if isinstance(value, (dict, list))])

    def test_a_line_that_is_no_record_is_told_and_a_torn_last_one_is_not(self) -> None:
        for line in (b'{"v":1,"ev":"sess\n', b"[1]\n", b"\xff\n", b'{"v":1,"ev":"session.end","sid":1}\n'):
            self.lines.append(line)
        self.lines.append(b'{"v":2,"ev":"session.end"}\n')
        self.session(11, "ef" * 32, "ok", 1.0, 1, b"")
        with open(self.folder / "events.jsonl", "ab") as events:
            events.write(b'{"v":1,"ev":"session.e')
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = [result.session for result in results(self.folder)]
        self.assertEqual(found, [7, 9, 11])
        numbers = [str(warning.message).split(" line ")[1].split(" ")[0] for warning in told]
        self.assertEqual(numbers, ["4", "5", "6", "7", "8"])
        self.assertEqual(told[0].filename, __file__)
        self.assertTrue(str(told[2].message).endswith("events.jsonl: line 6 is passed over: it is no JSON"))

    def test_what_is_not_there_is_an_error_in_one_line(self) -> None:
        with self.assertRaisesRegex(NoResults, "nowhere.*name the folder of --out"):
            next(results("nowhere"))
        (self.folder / "sessions/000007-ab12cd34/stdout").unlink()
        with self.assertRaisesRegex(NoResults, "the stdout of session 7: "):
            next(results(self.folder)).stdout()

    def test_an_output_is_found_in_the_file_of_all_sessions(self) -> None:
        frames = [(b"o", 7, 0, b"one "), (b"o", 9, 0, b"other"), (b"e", 7, 0, b"no"), (b"o", 7, 18, b"two")]
        file = b"pktxpmgr stream 1\n"
        for what, sid, before, data in frames:
            last = len(file)
            file += b"PXF" + what + struct.pack(">QQI", sid, before, len(data)) + data
        (self.folder / "streams").mkdir()
        (self.folder / "streams/0001.stream").write_bytes(file)
        place = {"stream": "streams/0001.stream", "stdout_at": last, "stderr_at": 75, "stdout": 7, "stderr": 2}
        self.add(ev="session.end", sid=7, outcome="ok", output=place)
        self.add(ev="session.end", sid=8, outcome="ok", output=place)
        self.add(ev="session.end", sid=7, outcome="ok", output={**place, "stdout_at": 0})
        found, stranger, silent = list(results(self.folder))[-3:]
        self.assertEqual((found.stdout(), found.stderr(), silent.stdout()), (b"one two", b"no", b""))
        self.assertEqual(found.row()["output_stream"], "streams/0001.stream")
        with self.assertRaisesRegex(NoResults, "the stdout of session 8: .* does not hold it whole"):
            stranger.stdout()

    def test_no_file_beside_the_folder_is_shown_as_output(self) -> None:
        Path("stdout").write_bytes(b"secret")
        for place in ("..", "/", os.getcwd(), "sessions/../.."):
            self.add(ev="session.end", sid=12, outcome="ok", output={"dir": place})
            *_, last = results(self.folder)
            with self.assertRaisesRegex(NoResults, "session 12: its output is not in campaign"):
                last.stdout()


class ErrorsTest(unittest.TestCase):
    def test_a_mlet_that_is_started_by_hand_says_what_to_do_in_one_line(self) -> None:
        ended = run([str(HERE / "fetch_page.py"), "127.0.0.1"], stdin=subprocess.DEVNULL)
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"\Afetch_page.py: .*fd 0 is no socket.*pktxpmgr.*\n\Z")

    def test_an_error_that_nobody_catches_is_one_line_with_the_endpoint(self) -> None:
        near, far = socket.socketpair()
        far.sendall(CLOCK + message(0x40, b"\0\x31") + CLOCK)
        ended = run([str(HERE / "fetch_page.py"), "127.0.0.1"], stdin=near.fileno())
        self.assertEqual(ended.returncode, 1)
        socket_told = r"NOPEN \(socket 0, TCP to 127.0.0.1:80\): ESYSNOPERM"
        told = rf"\Afetch_page.py: endpoint ab12cd34ab12 192.0.2.9: {socket_told} .*\n\Z"
        self.assertRegex(ended.stderr, told)

    def test_a_mlet_of_one_endpoint_finds_its_facts_in_the_environment(self) -> None:
        near, _far = socket.socketpair()
        script = "import pktlab_mlet\ns = pktlab_mlet.Session()\nprint(s.columns, s.number, s.snikey)\n"
        for environment, expected in (
            (ONE_ENDPOINT, f"{ONE_ENDPOINT['PKTLAB_ENDPOINT_KEY']}\t192.0.2.9 41 hello\n"),
            ({"EPADDR": "192.0.2.9"}, "-\t192.0.2.9 None None\n"),
        ):
            ended = run(["-c", script], near.fileno(), environment)
            self.assertEqual((ended.stderr, ended.stdout), ("", expected))

    def test_a_mlet_of_one_endpoint_and_one_of_all_say_which_way_they_are_started(self) -> None:
        near, _far = socket.socketpair()
        all_endpoints = [str(HERE / "time_datagrams.py"), "127.0.0.1", "7"]
        ended = run(all_endpoints, stdin=near.fileno())
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"\Atime_datagrams.py: .*start pktxpmgr with -s\n\Z")
        ended = run([str(HERE / "fetch_page.py"), "127.0.0.1"], near.fileno(), environment={})
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"\Afetch_page.py: EPADDR is not set.*sessions\(\).*mlet-single.*\n\Z")


class ArgumentsTest(unittest.TestCase):
    def judged(self, *words: str) -> Tuple[int, str, str]:
        ended = run([str(HERE / words[0]), *words[1:]], subprocess.DEVNULL, environment={})
        return ended.returncode, ended.stdout, ended.stderr

    def test_arguments_are_judged_without_an_endpoint(self) -> None:
        for words in (
            ["fetch_page.py", "a"], ["fetch_page.py", "a:8080", "/b"], ["time_datagrams.py", "a", "9", "2"],
            ["at_once.py", "a"],
        ):  # fmt: skip
            told = self.judged(words[0], "--check-args", *words[1:])
            self.assertEqual(told, (0, "arguments ok\n", ""), words)

    def test_what_is_wrong_with_them_is_one_line_and_code_2(self) -> None:
        for words, why in (
            (["fetch_page.py"], "an argument is missing"),
            (["fetch_page.py", "a:http"], "a:http has no address: it is no HOST or HOST:PORT"),
            (["fetch_page.py", "a:0"], "a:0: port 0 is not from 1 to 65535"),
            (["time_datagrams.py", "a", "0"], "'0' is no whole number from 1 to 65535"),
            (["time_datagrams.py", "a", "9", "0"], "'0' is no whole number from 1 to 65535"),
            (["time_datagrams.py", "a", "9", "few"], "'few' is no whole number from 1 to 65535"),
            (["at_once.py", "a:80", "a:b"], "a:b has no address: it is no HOST or HOST:PORT"),
        ):
            for before in ([], ["--check-args"]):
                code, printed, told = self.judged(words[0], *before, *words[1:])
                self.assertEqual((code, printed, told), (2, "", f"{words[0]}: {why}\n"))

    def test_a_mlet_that_judges_nothing_is_no_mlet_whose_arguments_are_right(self) -> None:
        script = "import sys; from pktlab_mlet import Session; host = sys.argv[1]; Session()"
        ended = run(["-c", script, "--check-args", "a"], subprocess.DEVNULL, environment={})
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))


class ExamplesTest(unittest.TestCase):
    def test_a_page_that_is_none_is_a_failure(self) -> None:
        for data in (b"220 ready\r\n\r\n", b"HTTP/1.0 200 OK\r\n", b""):
            near, far = socket.socketpair()
            piece = message(0x62, struct.pack("!BBBQ", 0, 4, 6, 0) + data)
            closed = message(0x61, struct.pack("!BBBQB", 0, 4, 6, 0, 3))
            far.sendall(OPENED + established(0) + OK + (piece if data else b"") + closed + OK)
            ended = run([str(HERE / "fetch_page.py"), "192.0.2.7"], stdin=near.fileno())
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertRegex(ended.stderr, r"\Afetch_page.py: endpoint ab12cd34ab12 192.0.2.9: .* no answer of HTTP\n\Z")


class DrawsTest(unittest.TestCase):
    def drawn(self, **names: str) -> List[str]:
        script = "from pktlab_mlet import random_bytes\nfor count in (8, 8, 2): print(random_bytes(count).hex())"
        return run(["-c", script], subprocess.DEVNULL, names).stdout.split()

    def test_a_mlet_with_the_same_names_draws_the_same_and_every_other_draws_others(self) -> None:
        names = [{"PKTLAB_RUN": "ab" * 8, "PKTLAB_SESSION": "1"}, {"PKTLAB_RUN": "ab" * 8, "PKTLAB_SESSION": "2"}, {}]
        first = [self.drawn(**each) for each in names]
        self.assertEqual([[len(one) for one in each] for each in first], 3 * [[16, 16, 4]])
        self.assertEqual(len({one for each in first for one in each[:2]}), 6)
        # For good: what was captured yesterday is replayed tomorrow.
        self.assertEqual(first[0], ["f40c1ab9a2f9152b", "b3d8b05e2bf9f745", "f152"])
        again = [self.drawn(**each) for each in names]
        self.assertEqual([one == other for one, other in zip(first, again)], [True, True, False])


ONE_ENDPOINT = {
    "EPADDR": "192.0.2.9", "PKTLAB_ENDPOINT_KEY": "ab12cd34" * 8, "PKTLAB_SESSION": "41", "PKTLAB_SNIKEY": "hello",
}  # fmt: skip


def run(
    arguments: "list[str]", stdin: int, environment: "dict[str, str]" = ONE_ENDPOINT
) -> "subprocess.CompletedProcess[str]":
    """A mlet in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(HERE), **environment},
        check=False,
    )


if __name__ == "__main__":
    unittest.main()
