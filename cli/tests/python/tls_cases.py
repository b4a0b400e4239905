"""The cases of TLS that cli/tests/tlslite.rs plays against a manager whose mlet echoes.

    tls_cases.py PORT CERTIFICATE KEY

CASES has what each script of tlsfuzzer tries that docs/spec/reliability.md 9 names, written anew for tlslite-ng. A line is
one connection: what it is, what the endpoint does, what the manager must answer on the wire, and what its record and the
log must say: outcome and words. Behind a semicolon stand words that the log alone has beside them.

Prints how many cases there are, as they are played; then plays one for each line it reads, and prints a line of JSON with
where it came from, what must be told of it, and the fault on the wire, if there is one.
"""

import json
import sys
import traceback

from tls_endpoint import *

SUITES = ["aes128gcm", "aes256gcm", "chacha20-poly1305"]

# Outcomes. A session that is as it should be ends with the endpoint, since its mlet echoes.
ENDED, FAILED, REFUSED = "endpoint_closed", "tls_failed", "certificate_refused"

# The answer to what is allowed: the connection goes on as any other does.
SERVED = "served"

UPDATE = handshake(KEY_UPDATE, b"\0")
CANCELED = record(ALERT, bytes([WARNING, 90]))
MESSAGE = record(DATA, message(b""))
KEY = bytes(range(1, 33))
# Identities and binders, and how they may be used (4.2.9, 4.2.11).
TICKET_OF_NOBODY = vector(2, vector(2, b"ticket") + bytes(4)) + vector(2, vector(1, bytes(32)))
WITH_EXCHANGE = b"\x01\x01"
LINFO_MESSAGE = record(DATA, message(b"\x03kind\0" + b"words " * 40, LINFO))
WRONG = "the peer's signature over the handshake is wrong"
EMPTY = "invalid empty payload"

CASES = {
    "conversation": [
        ("as usual", Session(echo(bytes(200_000))), SERVED, ENDED, "the endpoint closed"),
        ("Finished in records of a byte", changed(FINISHED, in_pieces(1)), SERVED, ENDED, "the endpoint closed"),
        ("Certificate in pieces", changed(CERTIFICATE, in_pieces(100)), SERVED, ENDED, "the endpoint closed"),
        ("data in the handshake", before(FINISHED, record(DATA, b"x")), UNEXPECTED_MESSAGE, FAILED, "got application data when expecting"),
        ("HTTP", first(b"GET / HTTP/1.0\r\n\r\n"), UNEXPECTED_MESSAGE, FAILED, "got content type 0x47"),
        ("data instead of ClientHello", first(clear_record(DATA, b"x")), UNEXPECTED_MESSAGE, FAILED, "got application data"),
        ("Finished instead of ClientHello", first(clear_record(HANDSHAKE, handshake(FINISHED, KEY))), UNEXPECTED_MESSAGE, FAILED, "got finished when expecting client hello"),
        ("an alert instead of ClientHello", first(clear_record(ALERT, b"\x02\x28")), UNEXPECTED_MESSAGE, FAILED, "got alert when expecting handshake"),
        ("its alert in the handshake", before(CERTIFICATE, record(ALERT, b"\x02\x2a")), FIN, FAILED, "the peer sent the alert 42, bad_certificate"),
        ("its alert in the clear", before(CERTIFICATE, clear(ALERT, b"\x02\x30")), FIN, FAILED, "the peer sent the alert 48, unknown_ca"),
        ("its alert of an error as a warning", before(CERTIFICATE, record(ALERT, b"\x01\x2a")), FIN, FAILED, "the peer sent the alert 42, bad_certificate"),
        ("its alert before START is answered", greeting(record(ALERT, b"\x02\x2e")), FIN, FAILED, "TLS failed: the peer sent the alert 46, certificate_unknown"),
        ("its alert in a session", Session(record(ALERT, b"\x02\x14")), FIN, FAILED, "TLS broke off: the peer sent the alert 20, bad_record_mac"),
        ("its alert as a warning in a session", Session(record(ALERT, b"\x01\x50")), FIN, FAILED, "TLS broke off: the peer sent the alert 80, internal_error"),
        ("its alert of an unknown level", Session(record(ALERT, b"\x09\x50")), FIN, FAILED, "TLS broke off: the peer sent the alert 80, internal_error"),
        # 6.1 has close_notify; rustls takes a close_notify in its handshake for an error.
        ("close_notify in the handshake", before(CERTIFICATE, record(ALERT, b"\x01\x00")), DECODE_ERROR, ENDED, "the endpoint closed before START"),
        ("close_notify before START is answered", greeting(record(ALERT, b"\x01\x00")), CLOSE_NOTIFY, ENDED, "the endpoint closed before START"),
        ("close_notify in a session", Session(record(ALERT, b"\x01\x00")), CLOSE_NOTIFY, ENDED, "the endpoint closed"),
        ("user_canceled in the handshake", before(CERTIFICATE, CANCELED), SERVED, ENDED, "the endpoint closed"),
        ("user_canceled as often as may be", Session(in_turn(CANCELED, times=32)), SERVED, ENDED, "the endpoint closed"),
        ("a flood of user_canceled", Session(in_turn(CANCELED, times=33)), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("a flood of user_canceled in the handshake", before(CERTIFICATE, in_turn(CANCELED, times=33)), UNEXPECTED_MESSAGE, FAILED, "too many warning alerts received"),
        ("a record of nobody", Session(clear(DATA, bytes(32))), BAD_RECORD_MAC, FAILED, "TLS broke off: cannot decrypt peer's message"),
        ("a record without a tag", Session(clear(DATA, b"x")), BAD_RECORD_MAC, FAILED, "TLS broke off: cannot decrypt peer's message"),
        ("a record of nobody in the handshake", before(CERTIFICATE, clear(DATA, bytes(32))), BAD_RECORD_MAC, FAILED, "TLS failed: cannot decrypt peer's message"),
        # PacketLab's own; for TLS it is data, and no alert is due. What does not fit into the log is counted.
        ("a flood of LINFO", Session(in_turn(LINFO_MESSAGE, times=1000)), SERVED, ENDED, "the endpoint closed; LINFOs lost"),
    ],
    "finished": [
        ("a changed bit", changed(FINISHED, body(flipped)), DECRYPT_ERROR, FAILED, "cannot decrypt peer's message"),
        # tlsfuzzer wants decode_error for another length; 4.4.4 has decrypt_error for whatever is not correct.
        ("too short", changed(FINISHED, body(shorter)), DECRYPT_ERROR, FAILED, "cannot decrypt peer's message"),
        ("too long", changed(FINISHED, body(longer)), DECRYPT_ERROR, FAILED, "cannot decrypt peer's message"),
        ("empty", changed(FINISHED, body(lambda _: b"")), DECRYPT_ERROR, FAILED, "cannot decrypt peer's message"),
        ("a second one", greeting(record(HANDSHAKE, handshake(FINISHED, KEY))), UNEXPECTED_MESSAGE, FAILED, "got finished when expecting key update"),
        ("no CertificateVerify", changed(CERTIFICATE_VERIFY, left_out), UNEXPECTED_MESSAGE, FAILED, "got finished when expecting certificate verify"),
        ("no Certificate", changed(CERTIFICATE, left_out), UNEXPECTED_MESSAGE, FAILED, "got certificate verify when expecting certificate"),
        ("EndOfEarlyData without early data", before(CERTIFICATE, record(HANDSHAKE, handshake(END_OF_EARLY_DATA))), UNEXPECTED_MESSAGE, FAILED, "got end of early data when expecting"),
        ("NewSessionTicket", Session(record(HANDSHAKE, handshake(TICKET, bytes(20)))), UNEXPECTED_MESSAGE, FAILED, "got new session ticket when expecting key update"),
        ("Certificate that is not asked for", Session(record(HANDSHAKE, handshake(CERTIFICATE, bytes(4)))), UNEXPECTED_MESSAGE, FAILED, "got certificate when expecting key update"),
        ("CertificateRequest", Session(record(HANDSHAKE, handshake(CERTIFICATE_REQUEST, bytes(3)))), UNEXPECTED_MESSAGE, FAILED, "got certificate request when expecting key update"),
        ("ClientHello", Session(record(HANDSHAKE, handshake(CLIENT_HELLO))), UNEXPECTED_MESSAGE, FAILED, "got client hello when expecting key update"),
        ("a flood of NewSessionTicket", Session(in_turn(record(HANDSHAKE, handshake(TICKET, bytes(20))), times=33)), UNEXPECTED_MESSAGE, FAILED, "got new session ticket when expecting key update"),
    ],
    "finished-plaintext": [
        ("Finished in the clear", changed(FINISHED, in_the_clear), UNEXPECTED_MESSAGE, FAILED, "got handshake when expecting application data"),
        ("Certificate in the clear", changed(CERTIFICATE, in_the_clear), UNEXPECTED_MESSAGE, FAILED, "got handshake when expecting application data"),
        ("sealed, and a handshake outside", changed(FINISHED, named_handshake_outside), UNEXPECTED_MESSAGE, FAILED, "got handshake when expecting application data"),
        ("an alert in the clear behind a sealed record", before(FINISHED, clear(ALERT, b"\x02\x28")), UNEXPECTED_MESSAGE, FAILED, "got alert when expecting application data"),
        ("in a session", Session(clear(HANDSHAKE, handshake(FINISHED))), UNEXPECTED_MESSAGE, FAILED, "got handshake when expecting application data"),
        ("an alert in a session", Session(clear(ALERT, b"\x02\x28")), UNEXPECTED_MESSAGE, FAILED, "got alert when expecting application data"),
    ],
    "keyupdate": [
        ("both kinds", Session(in_turn(update_keys(0), echo(b"0"), update_keys(1), echo(b"1"), update_keys(1), echo(b"1"))), SERVED, ENDED, "the endpoint closed"),
        ("in pieces", Session(in_turn(update_keys(1, (1, 2, 3, 4, 5)))), SERVED, ENDED, "the endpoint closed"),
        ("as many as may come", Session(in_turn(in_turn(update_keys(1), times=32), echo(bytes(50_000)))), SERVED, ENDED, "the endpoint closed"),
        ("a flood", Session(in_turn(update_keys(0), times=33)), UNEXPECTED_MESSAGE, FAILED, "too many key update requests"),
        ("a flood of those that ask for ours", Session(in_turn(update_keys(1), times=33)), UNEXPECTED_MESSAGE, FAILED, "too many key update requests"),
        ("another value", Session(record(HANDSHAKE, handshake(KEY_UPDATE, b"\x02"))), ILLEGAL_PARAMETER, FAILED, "invalid key update"),
        ("empty", Session(record(HANDSHAKE, handshake(KEY_UPDATE))), DECODE_ERROR, FAILED, "invalid key update"),
        ("too long", Session(record(HANDSHAKE, handshake(KEY_UPDATE, bytes(2)))), DECODE_ERROR, FAILED, "invalid key update"),
        ("two in a record", Session(record(HANDSHAKE, UPDATE + UPDATE)), UNEXPECTED_MESSAGE, FAILED, "key epoch with pending fragment"),
        ("half of one, and then data", Session(in_turn(record(HANDSHAKE, UPDATE[:2]), MESSAGE)), UNEXPECTED_MESSAGE, FAILED, "message interleaved with handshake message"),
        ("half of one, and then close_notify", Session(in_turn(record(HANDSHAKE, UPDATE[:2]), record(ALERT, b"\x01\x00"))), UNEXPECTED_MESSAGE, FAILED, "message interleaved with handshake message"),
        ("in the handshake", before(FINISHED, record(HANDSHAKE, UPDATE)), UNEXPECTED_MESSAGE, FAILED, "got key update when expecting finished"),
        ("in the record of Finished", changed(FINISHED, followed_by(UPDATE)), UNEXPECTED_MESSAGE, FAILED, "key epoch with pending fragment"),
        ("before START is answered", greeting(update_keys(1)), SERVED, ENDED, "the endpoint closed"),
    ],
    "keyupdate-from-server": [
        ("once", Session(changes_our_keys), SERVED, ENDED, "the endpoint closed"),
        ("again and again", Session(in_turn(changes_our_keys, times=40)), SERVED, ENDED, "the endpoint closed"),
    ],
    "empty-alert": [
        ("instead of ClientHello", first(clear_record(ALERT, b"")), UNEXPECTED_MESSAGE, FAILED, EMPTY),
        ("in the handshake", before(CERTIFICATE, record(ALERT, b"")), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("before START is answered", greeting(record(ALERT, b"")), UNEXPECTED_MESSAGE, FAILED, EMPTY),
        ("in a session", Session(record(ALERT, b"")), UNEXPECTED_MESSAGE, FAILED, EMPTY),
        ("padded in a session", Session(record(ALERT, b"", 9)), UNEXPECTED_MESSAGE, FAILED, EMPTY),
        ("one byte in the handshake", before(CERTIFICATE, record(ALERT, b"\x02")), DECODE_ERROR, FAILED, "missing data"),
        ("one byte in a session", Session(record(ALERT, b"\x01")), DECODE_ERROR, FAILED, "missing data alert message payload"),
        ("three bytes in a session", Session(record(ALERT, b"\x01\0\0")), DECODE_ERROR, FAILED, "trailing data alert message payload"),
    ],
    "zero-length-data": [
        ("as much as may come", Session(in_turn(record(DATA, b""), times=32)), SERVED, ENDED, "the endpoint closed"),
        ("a flood", Session(in_turn(record(DATA, b""), times=33)), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("a flood of padding", Session(in_turn(record(DATA, b"", 100), times=33)), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("a flood before START is answered", greeting(in_turn(record(DATA, b""), times=33)), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("in the handshake", before(FINISHED, record(DATA, b"")), UNEXPECTED_MESSAGE, FAILED, "got application data when expecting"),
        ("a handshake message", Session(record(HANDSHAKE, b"")), UNEXPECTED_MESSAGE, FAILED, EMPTY),
        ("a handshake message in the handshake", before(FINISHED, record(HANDSHAKE, b"")), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("padded in the handshake", before(FINISHED, record(HANDSHAKE, b"", 9)), UNEXPECTED_MESSAGE, FAILED, "too many empty fragments"),
        ("instead of ClientHello", first(clear_record(HANDSHAKE, b"")), UNEXPECTED_MESSAGE, FAILED, EMPTY),
    ],
    "zero-content-type": [
        ("in the handshake", before(CERTIFICATE, seal(bytes(20))), UNEXPECTED_MESSAGE, FAILED, "illegal tls inner plaintext"),
        ("before START is answered", greeting(seal(bytes(20))), UNEXPECTED_MESSAGE, FAILED, "illegal tls inner plaintext"),
        ("in a session", Session(seal(bytes(20))), UNEXPECTED_MESSAGE, FAILED, "illegal tls inner plaintext"),
        ("a single zero", Session(seal(b"\0")), UNEXPECTED_MESSAGE, FAILED, "illegal tls inner plaintext"),
        ("nothing at all", Session(seal(b"")), UNEXPECTED_MESSAGE, FAILED, "illegal tls inner plaintext"),
        ("an unknown type", Session(record(25, b"x")), UNEXPECTED_MESSAGE, FAILED, "got content type 0x19"),
        ("an unknown type in the handshake", before(CERTIFICATE, record(25, b"x")), UNEXPECTED_MESSAGE, FAILED, "got content type 0x19"),
        ("an unknown type in the clear", before(CERTIFICATE, clear(25, b"x")), UNEXPECTED_MESSAGE, FAILED, "got content type 0x19"),
        ("an unknown type instead of ClientHello", first(clear_record(25, b"x")), UNEXPECTED_MESSAGE, FAILED, "got content type 0x19"),
    ],
    "record-padding": [
        ("short", Session(echo(b"padded", 1)), SERVED, ENDED, "the endpoint closed"),
        ("long", Session(echo(b"padded", 4000)), SERVED, ENDED, "the endpoint closed"),
        ("up to the longest record", Session(echo(b"padded", MOST - 10)), SERVED, ENDED, "the endpoint closed"),
        ("of Finished", changed(FINISHED, padded(1000)), SERVED, ENDED, "the endpoint closed"),
        ("too much", Session(record(DATA, message(b"padded"), MOST - 9)), RECORD_OVERFLOW, FAILED, "excess record size"),
        ("too much in the handshake", changed(FINISHED, padded(MOST)), RECORD_OVERFLOW, FAILED, "excess record size"),
    ],
    "record-layer-limits": [
        ("the longest record", Session(echo(bytes(MOST - 4))), SERVED, ENDED, "the endpoint closed"),
        ("too much data", Session(record(DATA, bytes(MOST + 1))), RECORD_OVERFLOW, FAILED, "excess record size"),
        ("a longer record than there is", Session(raw(b"\x17\x03\x03\x41\x01")), RECORD_OVERFLOW, FAILED, "excess record size"),
        ("too much in the handshake", before(CERTIFICATE, record(HANDSHAKE, bytes(MOST + 1))), RECORD_OVERFLOW, FAILED, "excess record size"),
        ("a longer record than there is in the handshake", before(CERTIFICATE, raw(b"\x17\x03\x03\x41\x01")), RECORD_OVERFLOW, FAILED, "excess record size"),
        ("a longer record than there is in the clear", first(b"\x16\x03\x01\x40\x01"), RECORD_OVERFLOW, FAILED, "excess record size"),
    ],
    "multiple-ccs-messages": [
        ("one", before(CERTIFICATE, clear(CCS, b"\x01")), SERVED, ENDED, "the endpoint closed"),
        # 5 would have any number dropped; rustls drops two, one behind each ClientHello there can be.
        ("a flood", before(CERTIFICATE, in_turn(clear(CCS, b"\x01"), times=3)), UNEXPECTED_MESSAGE, FAILED, "illegal middlebox change cipher spec"),
        ("another value", before(CERTIFICATE, clear(CCS, b"\x02")), UNEXPECTED_MESSAGE, FAILED, "illegal middlebox change cipher spec"),
        ("two bytes", before(CERTIFICATE, clear(CCS, b"\x01\x01")), UNEXPECTED_MESSAGE, FAILED, "illegal middlebox change cipher spec"),
        ("sealed", before(CERTIFICATE, record(CCS, b"\x01")), UNEXPECTED_MESSAGE, FAILED, "illegal middlebox change cipher spec"),
        # rustls takes it for a sealed one there; 5 would have it dropped, 5.1 nothing between the pieces of a message.
        ("between the pieces of Certificate", changed(CERTIFICATE, in_pieces(200, clear(CCS, b"\x01"))), BAD_RECORD_MAC, FAILED, "cannot decrypt peer's message"),
        ("instead of ClientHello", first(clear_record(CCS, b"\x01")), UNEXPECTED_MESSAGE, FAILED, "got change cipher spec"),
        ("in a session", Session(clear(CCS, b"\x01")), UNEXPECTED_MESSAGE, FAILED, "got change cipher spec when expecting application data"),
        ("sealed in a session", Session(record(CCS, b"\x01")), UNEXPECTED_MESSAGE, FAILED, "got change cipher spec when expecting application data"),
    ],
    "large-number-of-extensions": [
        ("4000 empty ones", changed(CLIENT_HELLO, extensions(4000, 0)), SERVED, ENDED, "the endpoint closed"),
        ("60 of 1000 bytes", changed(CLIENT_HELLO, extensions(60, 1000)), SERVED, ENDED, "the endpoint closed"),
        # 4.2 forbids it and names no alert.
        ("one twice", changed(CLIENT_HELLO, extensions(1, 0), extensions(1, 0)), ILLEGAL_PARAMETER, FAILED, "duplicate extension"),
        ("a ClientHello of 16 MiB", first(clear_record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(100))), DECODE_ERROR, FAILED, "handshake payload too large"),
        ("a byte behind them", changed(CLIENT_HELLO, body(longer)), DECODE_ERROR, FAILED, "trailing data"),
        ("cut off", changed(CLIENT_HELLO, body(shorter)), DECODE_ERROR, FAILED, "message too short"),
        ("a session id of 33 bytes", changed(CLIENT_HELLO, field("session_id", bytearray(33))), DECODE_ERROR, FAILED, "trailing data session id"),
        ("a compression", changed(CLIENT_HELLO, field("compression_methods", [1, 0])), ILLEGAL_PARAMETER, FAILED, "compressions"),
        ("unknown suites", changed(CLIENT_HELLO, suites(0x2A2A, 0x1399)), SERVED, ENDED, "the endpoint closed"),
        ("no other suites", changed(CLIENT_HELLO, field("cipher_suites", [0x2A2A, 0x1399])), HANDSHAKE_FAILURE, FAILED, "no cipher suites in common"),
        ("no suites", changed(CLIENT_HELLO, field("cipher_suites", [])), DECODE_ERROR, FAILED, "illegal empty list cipher suites"),
        ("a ticket of nobody", changed(CLIENT_HELLO, extension(PSK_MODES, WITH_EXCHANGE), extension(PSK, TICKET_OF_NOBODY)), SERVED, ENDED, "the endpoint closed"),
        ("early data that is not taken", changed(CLIENT_HELLO, extension(EARLY_DATA, b""), extension(PSK_MODES, WITH_EXCHANGE), extension(PSK, TICKET_OF_NOBODY)), SERVED, ENDED, "the endpoint closed"),
        ("a ticket that is not the last", changed(CLIENT_HELLO, extension(PSK_MODES, WITH_EXCHANGE), extension(PSK, TICKET_OF_NOBODY), extensions(1, 0)), ILLEGAL_PARAMETER, FAILED, "pre shared key is not final extension"),
        ("a ticket and no modes", changed(CLIENT_HELLO, extension(PSK_MODES, None), extension(PSK, TICKET_OF_NOBODY)), MISSING_EXTENSION, FAILED, "missing psk modes extension"),
    ],
    "unrecognised-groups": [
        ("beside ours", changed(CLIENT_HELLO, extension(GROUPS, vector(2, UNKNOWN, X25519))), SERVED, ENDED, "the endpoint closed"),
        ("with a share", changed(CLIENT_HELLO, extension(GROUPS, vector(2, UNKNOWN, X25519)), shares((UNKNOWN, b"x"), None)), SERVED, ENDED, "the endpoint closed"),
        ("alone", changed(CLIENT_HELLO, extension(GROUPS, vector(2, UNKNOWN))), HANDSHAKE_FAILURE, FAILED, "no kx groups in common"),
        ("none", changed(CLIENT_HELLO, extension(GROUPS, vector(2))), DECODE_ERROR, FAILED, "illegal empty list named groups"),
        # 9.2 has missing_extension; rustls does not tell it from one without a group in common.
        ("no extension of groups", changed(CLIENT_HELLO, extension(GROUPS, None)), HANDSHAKE_FAILURE, FAILED, "no kx groups in common"),
        ("no extension of shares", changed(CLIENT_HELLO, extension(SHARES, None)), MISSING_EXTENSION, FAILED, "key share extension required"),
        ("no share", changed(CLIENT_HELLO, retried()), SERVED, ENDED, "the endpoint closed"),
        ("no share again", changed(CLIENT_HELLO, retried(shares())), ILLEGAL_PARAMETER, FAILED, "refused to follow hello retry request"),
        ("other suites then", changed(CLIENT_HELLO, retried(field("cipher_suites", [0x1399]))), HANDSHAKE_FAILURE, FAILED, "no cipher suites in common"),
        ("an empty record then", changed(CLIENT_HELLO, retried(lambda endpoint, _: clear(HANDSHAKE, b"")(endpoint))), UNEXPECTED_MESSAGE, FAILED, EMPTY),
        ("data then", changed(CLIENT_HELLO, retried(lambda endpoint, _: clear(DATA, KEY)(endpoint))), UNEXPECTED_MESSAGE, FAILED, "got application data"),
        ("change_cipher_spec then", changed(CLIENT_HELLO, retried(lambda endpoint, _: clear(CCS, b"\x01")(endpoint))), SERVED, ENDED, "the endpoint closed"),
        ("a share of 31 bytes", changed(CLIENT_HELLO, shares((X25519, KEY[1:]))), ILLEGAL_PARAMETER, FAILED, "invalid key share"),
        ("a share of zeros", changed(CLIENT_HELLO, shares((X25519, bytes(32)))), ILLEGAL_PARAMETER, FAILED, "invalid key share"),
        ("a share that is no point", changed(CLIENT_HELLO, extension(GROUPS, vector(2, P256)), shares((P256, b"\x04" + bytes(64)))), ILLEGAL_PARAMETER, FAILED, "invalid key share"),
        ("two shares", changed(CLIENT_HELLO, shares(None, None)), ILLEGAL_PARAMETER, FAILED, "duplicate key shares"),
    ],
    "legacy-version": [
        ("that of TLS 1.0", changed(CLIENT_HELLO, field("client_version", (3, 1))), SERVED, ENDED, "the endpoint closed"),
        ("that of TLS 1.3", changed(CLIENT_HELLO, field("client_version", (3, 4))), SERVED, ENDED, "the endpoint closed"),
        ("one of the future", changed(CLIENT_HELLO, field("client_version", (3, 9))), SERVED, ENDED, "the endpoint closed"),
        # D.5 has protocol_version; rustls does not look at it where there are others.
        ("that of SSL 3", changed(CLIENT_HELLO, field("client_version", (3, 0))), SERVED, ENDED, "the endpoint closed"),
        # 5.1 would have the version of a record ignored, D.5 one below SSL 3 refused.
        ("a record of SSL 2", first(clear_record(HANDSHAKE, bytes(40), b"\x02\x00")), DECODE_ERROR, FAILED, "unknown protocol version"),
    ],
    "version-negotiation": [
        ("unknown ones beside ours", changed(CLIENT_HELLO, extension(VERSIONS, vector(1, UNKNOWN, b"\x7f\x1c\x03\x04"))), SERVED, ENDED, "the endpoint closed"),
        ("drafts alone", changed(CLIENT_HELLO, extension(VERSIONS, vector(1, b"\x7f\x1c\x7f\x17"))), PROTOCOL_VERSION, FAILED, "tls12not offered or enabled"),
        ("1.2 and 1.1", changed(CLIENT_HELLO, extension(VERSIONS, vector(1, b"\x03\x03\x03\x02"))), PROTOCOL_VERSION, FAILED, "the peer is incompatible"),
        ("none", changed(CLIENT_HELLO, extension(VERSIONS, vector(1))), DECODE_ERROR, FAILED, "illegal empty list protocol versions"),
        ("one and a half", changed(CLIENT_HELLO, extension(VERSIONS, vector(1, b"\x03\x04\x03"))), DECODE_ERROR, FAILED, "missing data protocol version"),
        ("no extension", changed(CLIENT_HELLO, extension(VERSIONS, None)), PROTOCOL_VERSION, FAILED, "supported versions extension required"),
    ],
    "non-support": [
        ("TLS 1.2", first(old_hello((3, 3))), PROTOCOL_VERSION, FAILED, "supported versions extension required"),
        ("TLS 1.1", first(old_hello((3, 2))), PROTOCOL_VERSION, FAILED, "the peer is incompatible"),
        ("SSL 3", first(old_hello((3, 0))), PROTOCOL_VERSION, FAILED, "the peer is incompatible"),
    ],
    "signature-algorithms": [
        ("many unknown ones", changed(CLIENT_HELLO, extension(SIGNATURES, vector(2, UNKNOWN * 1000, ED25519))), SERVED, ENDED, "the endpoint closed"),
        ("none of ours", changed(CLIENT_HELLO, extension(SIGNATURES, vector(2, b"\x04\x03\x08\x04"))), HANDSHAKE_FAILURE, FAILED, "the peer is incompatible"),
        ("none", changed(CLIENT_HELLO, extension(SIGNATURES, vector(2))), DECODE_ERROR, FAILED, "no signature schemes"),
        ("one and a half", changed(CLIENT_HELLO, extension(SIGNATURES, vector(2, ED25519, b"\x08"))), DECODE_ERROR, FAILED, "missing data signature scheme"),
        ("no extension", changed(CLIENT_HELLO, extension(SIGNATURES, None)), MISSING_EXTENSION, FAILED, "signature algorithms extension required"),
    ],
    "eddsa": [
        ("Ed25519 alone", changed(CLIENT_HELLO, extension(SIGNATURES, vector(2, ED25519))), SERVED, ENDED, "the endpoint closed"),
        ("Ed448 alone", changed(CLIENT_HELLO, extension(SIGNATURES, vector(2, ED448))), HANDSHAKE_FAILURE, FAILED, "the peer is incompatible"),
    ],
    "eddsa-in-certificate-verify": [
        ("of another key", changed(CERTIFICATE, signs(of_a_stranger)), DECRYPT_ERROR, REFUSED, WRONG),
        ("of another transcript", changed(CERTIFICATE, signs(of_another_transcript)), DECRYPT_ERROR, REFUSED, WRONG),
        ("of another session", changed(CERTIFICATE, signs(of_another_session)), DECRYPT_ERROR, REFUSED, WRONG),
        ("of a server", changed(CERTIFICATE, signs(of_a_server)), DECRYPT_ERROR, REFUSED, WRONG),
        ("changed at its front", changed(CERTIFICATE_VERIFY, signature(lambda it: flipped(it, 0))), DECRYPT_ERROR, REFUSED, WRONG),
        ("changed at its end", changed(CERTIFICATE_VERIFY, signature(flipped)), DECRYPT_ERROR, REFUSED, WRONG),
        ("too short", changed(CERTIFICATE_VERIFY, signature(shorter)), DECRYPT_ERROR, REFUSED, WRONG),
        ("too long", changed(CERTIFICATE_VERIFY, signature(longer)), DECRYPT_ERROR, REFUSED, WRONG),
        ("empty", changed(CERTIFICATE_VERIFY, signature(lambda _: b"")), DECRYPT_ERROR, REFUSED, WRONG),
        ("of Ed448", changed(CERTIFICATE_VERIFY, field("signatureAlgorithm", (8, 8))), ILLEGAL_PARAMETER, REFUSED, "unadvertised sig scheme"),
        ("of RSA", changed(CERTIFICATE_VERIFY, field("signatureAlgorithm", (8, 4))), ILLEGAL_PARAMETER, REFUSED, "unadvertised sig scheme"),
        ("of nothing known", changed(CERTIFICATE_VERIFY, field("signatureAlgorithm", (42, 42))), ILLEGAL_PARAMETER, REFUSED, "unadvertised sig scheme"),
        ("cut off", changed(CERTIFICATE_VERIFY, body(shorter)), DECODE_ERROR, FAILED, "message too short"),
    ],
    "certificate-request": [
        ("asks for Ed25519", changed(CERTIFICATE, is_asked_for_ed25519), SERVED, ENDED, "the endpoint closed"),
        ("no certificate", changed(CERTIFICATE, body(lambda _: bytes(4))), CERTIFICATE_REQUIRED, REFUSED, "peer sent no certificates"),
        ("no certificate at all", changed(CERTIFICATE, body(lambda _: b"")), DECODE_ERROR, FAILED, "missing data u8"),
        ("a certificate that is none", changed(CERTIFICATE, certificate(b"none")), CERTIFICATE_UNKNOWN, REFUSED, "the peer's certificates are refused"),
        # 4.4.2 has none so short, so that decode_error might be said as well.
        ("an empty certificate", changed(CERTIFICATE, certificate(b"")), CERTIFICATE_UNKNOWN, REFUSED, "the peer's certificates are refused"),
        ("a context that nobody gave", changed(CERTIFICATE, field("certificate_request_context", b"x")), DECODE_ERROR, FAILED, "invalid cert request"),
        ("an extension that nobody asked for", changed(CERTIFICATE, with_extension(b"\x00\x05", b"\x01" + vector(3, b"x"))), UNSUPPORTED_EXTENSION, FAILED, "unsolicited cert extension"),
        # 4.2 has unsupported_extension for this too.
        ("an extension that nobody knows", changed(CERTIFICATE, with_extension(b"\x40\x00", b"")), DECODE_ERROR, FAILED, "unknown certificate extension"),
        ("cut off", changed(CERTIFICATE, body(shorter)), DECODE_ERROR, FAILED, "message too short"),
        ("compressed", before(CERTIFICATE, record(HANDSHAKE, handshake(COMPRESSED_CERTIFICATE, bytes(8)))), UNEXPECTED_MESSAGE, FAILED, "got compressed certificate"),
    ],
}


def as_played():
    """Each case with a suite: what is allowed in a session with all, the others with one, by turns."""
    for script, cases in CASES.items():
        for name, play, answer, outcome, words in cases:
            is_allowed_session = isinstance(play, Session) and answer == SERVED
            suites = SUITES if is_allowed_session else [SUITES[len(name) % len(SUITES)]]
            for suite in suites:
                yield f"{script}: {name}, {suite}", suite, play, answer, outcome, words


def played(address, suite, play, answer):
    """Plays a case; returns how it was answered."""
    endpoint = Endpoint(address, suite)
    try:
        play(endpoint)
        if answer != SERVED:
            return endpoint.answer()
        endpoint.is_served()
        return SERVED
    except TLSRemoteAlert as alert:
        return endpoint.told(alert)
    except TLSAbruptCloseError:
        return FIN
    finally:
        endpoint.socket.close()


def main():
    cases = list(as_played())
    print(len(cases), flush=True)
    for number, (name, suite, play, answer, outcome, words) in enumerate(cases):
        if not sys.stdin.readline():
            break
        address, fault = f"127.0.{1 + number // 250}.{1 + number % 250}", None
        try:
            got = played(address, suite, play, answer)
            if got != answer:
                fault = f"the answer is {got} instead of {answer}"
        except Exception:
            fault = traceback.format_exc()
        relayed = len(message(Session.BEFORE)) if isinstance(play, Session) and answer != SERVED else None
        told = {"outcome": outcome, "words": words, "relayed": relayed}
        print(json.dumps({"case": name, "address": address, "fault": fault, **told}), flush=True)


main()
