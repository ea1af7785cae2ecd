"""What reads bytes from outside: each with good inputs, and the errors with which it may refuse others."""

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from fanline.cli.run.requests import BadRequest, read_request
from fanline.engine.access.routes import Routes
from fanline.engine.bus.nats.signatures import Signatures
from fanline.engine.presence.delta import decode as decode_delta
from fanline.engine.presence.online import decode_users
from fanline.engine.presence.questions import decode_numbers, decode_question
from fanline.engine.presence.roster import Roster
from fanline.protocol.auth.api_keys import key_text, read_key
from fanline.protocol.auth.claims import TokenError, check_meant, check_times, decode_claims
from fanline.protocol.auth.public_keys import read_key_set
from fanline.protocol.auth.request_token import token_of
from fanline.protocol.auth.revocation import decode_removal, decode_revocation, encode_revocation
from fanline.protocol.auth.rights import GrantError, Grants, parse_grant
from fanline.protocol.auth.tokens import TokenRules, UnusableKeyError, secret_key, sign, verify
from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.compat.escapes import escape_id, unescape_id
from fanline.protocol.dialects import ECHO, FLAT, PLAIN
from fanline.protocol.envelope import check_names, decode_cbor, decode_json, encode_cbor, encode_json, from_producer
from fanline.protocol.errors import FrameError, HttpError, MessageError
from fanline.protocol.handlers import (
    AuthenticateAnswer,
    AuthorizeAnswer,
    HandlerError,
    decode_answer,
    encode_answer,
    encode_request,
)
from fanline.protocol.hooks.events import BadEventError, decode_event, encode_event
from fanline.protocol.hooks.questions import ClientCall, ClientMessage
from fanline.protocol.hooks.questions import decode_question as decode_client_question
from fanline.protocol.http.forwarding import AnswerReader, check_forwardable, forwarded_head
from fanline.protocol.management.monitor import ServerTried, decode_note, encode_note
from fanline.protocol.management.questions import decode_answered
from fanline.protocol.management.questions import decode_question as decode_management
from fanline.protocol.messages.commands import AskHistory, Authenticate, CallData, Subscribe
from fanline.protocol.messages.control_data import ControlData, read
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser, header_of, status_of
from fanline.protocol.notifications.notification import BadNotificationError, decode_notification
from fanline.protocol.notifications.preferences import BadPreferencesError, decode_preferences
from fanline.protocol.notifications.templates import TEMPLATES, render
from fanline.protocol.websocket.addresses import Networks, client_address, read_address
from fanline.protocol.websocket.frames import FrameReader, Opcode, encode_masked_frame
from fanline.protocol.websocket.handshake import HeadReader, Request, check_upgrade, choose_subprotocol
from fanline.protocol.websocket.origins import HostRules
from fanline.protocol.websocket.proxy_protocol import MAX_SIZE, ProxyHeaderError, ProxyHeaderReader
from fanline.workers.configuration.loading import load_settings
from fanline.workers.errors import SettingsError
from tests.support.paths import ROOT
from tests.support.raw_client import MASK, upgrade_request

SECRET = "a secret that is long enough for SHA-256"
_LIMIT = 64 * 1024
_PROXIES = Networks(["10.0.0.0/8"])
ROUTES = Routes({}, 90.0, 30.0, 0)


class Target(NamedTuple):
    """One reader of bytes."""

    good: Sequence[bytes]
    run: Callable[[bytes, random.Random], object]
    refusals: tuple[type[Exception], ...]


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """The data as a socket might deliver it."""
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.choice((0, 0, 1, 3, 9))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _passed_on(data: bytes, chance: random.Random) -> object:
    """Whatever was understood, the next reader sees one request, with the same end."""
    reader, request = HeadReader(), None
    for piece in pieces(data, chance):
        if request is None:
            request = reader.feed(piece)
        elif not reader.whole:
            reader.feed_body(piece)
    if request is None or not reader.whole:
        return None
    check_forwardable(request)
    body = bytes(reader.body)
    passed_on = forwarded_head(request, len(body), "192.0.2.1", "http") + body
    again = HeadReader()
    understood = again.feed(passed_on)
    assert understood is not None
    assert (understood.method, understood.path, understood.query) == (request.method, request.path, request.query)
    assert (again.whole, bytes(again.body)) == (True, body)
    assert understood.headers["x-forwarded-for"] == "192.0.2.1"
    return understood


def _control_answer(data: bytes, chance: random.Random) -> object:
    reader = AnswerReader(to_head=chance.random() < 0.1)
    for piece in pieces(data, chance):
        reader.feed(piece)
    assert bytes(reader.data) == data
    return reader.whole


def _api_key(data: bytes, _: random.Random) -> object:
    text = data.decode("latin-1")
    shown = read_key(text)
    assert shown is None or key_text(shown.id, shown.secret) == text
    return shown


def _management(data: bytes, _: random.Random) -> object:
    return decode_management(data), decode_answered(data), decode_note(data)


def _handshake(data: bytes, chance: random.Random) -> None:
    reader = HeadReader()
    for piece in pieces(data, chance):
        request = reader.feed(piece)
        if request is not None:
            HostRules(["app.example"], ["https://app.example"]).check(request, "127.0.0.1")
            check_upgrade(request)
            choose_subprotocol(request, ("fanline.v1.json", "fanline.v1.cbor"))
            token_of(request, "session")
            client_address("10.0.0.1", request.headers, _PROXIES)
            return


def _presence(data: bytes, _: random.Random) -> None:
    delta = decode_delta(data)
    if delta is not None:
        Roster().take(delta)
    decode_question(data)
    decode_numbers(data)
    decode_users(data)


def _proxy_header(data: bytes, chance: random.Random) -> None:
    """Nothing behind the header is asked for, and what it names is an address."""
    reader, most = ProxyHeaderReader(), chance.choice((1, 16, MAX_SIZE))
    while data:
        wanted = min(reader.wanted, most)
        assert wanted > 0
        header = reader.feed(data[:wanted])
        if header is not None:
            assert header.address is None or read_address(header.address) is not None
            return
        data = data[wanted:]


def _frames(data: bytes, chance: random.Random) -> None:
    reader = FrameReader(_LIMIT, deflated=chance.random() < 0.5)
    for piece in pieces(data, chance):
        for message in reader.feed(piece):
            assert len(message.payload) <= _LIMIT


def _json(data: bytes, chance: random.Random) -> None:
    """What is accepted can be written in both codecs, and reads as itself."""
    envelope = decode_json(data)
    assert decode_json(encode_json(envelope)).value == envelope.value
    encode_cbor(envelope)


def _cbor(data: bytes, chance: random.Random) -> None:
    envelope = decode_cbor(data)
    decode_cbor(encode_cbor(envelope))


def _route(data: bytes, chance: random.Random) -> None:
    """Whatever is joined is a channel, and the names in a path come back from it."""
    path, _, query = data.decode("latin-1").partition("?")
    found = ROUTES.find(Request("GET", path, query, "1.1", {}, b""))
    if found is not None:
        route, visit = found
        for name in route.channels(visit, "anna", is_plain=True):
            assert check_channel_or_pattern(name) == name
        assert all(unescape_id(escape_id(value)) == value for value in visit.path_values.values())


def _plain(data: bytes, chance: random.Random) -> None:
    ECHO.decode(data)
    PLAIN.decode(data)


def _producer(data: bytes, chance: random.Random) -> None:
    envelope = from_producer(data)
    encode_json(envelope)
    encode_cbor(envelope)
    PLAIN.encode(envelope)
    FLAT.encode(envelope)


def _channel(data: bytes, chance: random.Random) -> None:
    check_channel(data.decode("utf-8", "surrogateescape"))


def _grant(data: bytes, chance: random.Random) -> None:
    parse_grant(data.decode("utf-8", "surrogateescape"))


def _token(data: bytes, chance: random.Random) -> None:
    """Only a token that was not changed passes."""
    text = data.decode("latin-1")
    verify(text, [secret_key(SECRET)], TokenRules(), 1e9)
    assert data in TARGETS["token"].good, text


def _claims(data: bytes, chance: random.Random) -> None:
    """What a provider may have signed, whose users choose some of it."""
    claims = decode_claims(data)
    Grants(claims.grants(), claims.sub).on("task:42")
    check_meant(claims, "fanline", None)
    check_times(claims, 1e9, 10.0)


def _revocation(data: bytes, chance: random.Random) -> None:
    revocation = decode_revocation(data)
    assert decode_revocation(encode_revocation(revocation)) == revocation
    assert revocation.key.isascii()
    revocation.covers("anna", "t", 1.0)


def _control(data: bytes, chance: random.Random) -> None:
    """The data of what a client says."""
    command = decode_json(data)
    check_names(command)
    read(_DATA.get(command.type, CallData), command)


_DATA: dict[str, type[ControlData]] = {"auth": Authenticate, "sub": Subscribe, "history": AskHistory}


def _forwarded(data: bytes, chance: random.Random) -> None:
    """The answer is an address, and nothing that a client sends in front of what proxies add changes it."""
    header = data.decode("latin-1")
    found = client_address("10.0.0.1", {"x-forwarded-for": header}, _PROXIES)
    assert read_address(found) is not None
    if found not in _PROXIES:
        assert client_address("10.0.0.1", {"x-forwarded-for": f"6.6.6.6, {header}"}, _PROXIES) == found


def _settings(data: bytes, chance: random.Random) -> None:
    load_settings({}, {"HOME": "~"}, ("fanline.toml", data.decode("utf-8", "replace")))


def _environment(data: bytes, chance: random.Random) -> None:
    name, _, value = data.decode("utf-8", "surrogateescape").partition("=")
    load_settings({}, {"HOME": "~", f"FANLINE_{name}": value})


def _key_set(data: bytes, chance: random.Random) -> None:
    for key in read_key_set(data):
        assert not key.algorithms & {"none", "HS256", "HS384", "HS512"}


def _nats(data: bytes, chance: random.Random) -> None:
    parser = Parser()
    for piece in pieces(data, chance):
        for found in parser.feed(piece):
            if isinstance(found, NatsMessage):
                status_of(found.headers)
                header_of(found.headers, "Nats-Sequence")


def _signature(data: bytes, chance: random.Random) -> None:
    position = b"Nats-Sequence: 7\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n"
    message = NatsMessage(1, "fanline.out.task.1", "", b"{}", b"NATS/1.0\r\n" + data + b"\r\n" + position)
    assert not Signatures(b"key").position_of("task:1", message).signed


def _answer(data: bytes, chance: random.Random) -> None:
    """Only one that allows something says so."""
    for kind in (AuthenticateAnswer, AuthorizeAnswer):
        with suppress(HandlerError):
            answer = decode_answer(data, kind)
            assert not answer.allow or json.loads(data)["allow"] is True, data
            assert decode_answer(encode_answer(answer), kind) == answer


def _removal(data: bytes, chance: random.Random) -> None:
    assert decode_removal(encode_revocation(decode_removal(data))) == decode_removal(data)


_ENVELOPES = json.loads((ROOT / "tests" / "vectors" / "envelopes.json").read_text())["envelopes"]
_TOKENS = [
    sign(claims, SECRET.encode()).encode()
    for claims in ({"exp": 2e9, "sub": "anna"}, {"exp": 2e9, "channels": {"task:*": ["sub"]}})
]
_HEADERS = b"NATS/1.0 503 No Responders\r\nNats-Sequence: 7\r\n\r\n"
TARGETS: dict[str, Target] = {
    "handshake": Target(
        [
            upgrade_request(),
            upgrade_request(subprotocol="fanline.token.a.b.c, fanline.v1.cbor"),
            upgrade_request(subprotocol=None, Authorization="Bearer a.b.c", Host="app.example"),
            upgrade_request(
                "/ws?project_id=1",
                Cookie="other=x; session=a.b.c",
                Origin="https://app.example",
                X_Forwarded_For="1.2.3.4, 10.0.0.2",
            ),
        ],
        _handshake,
        (HttpError,),
    ),
    "forwarded request": Target(
        [
            b"GET /api/x?a=b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-Forwarded-For: b\r\n\r\nabc",
            b"POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ],
        _passed_on,
        (HttpError,),
    ),
    "answer of the control process": Target(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ],
        _control_answer,
        (HttpError,),
    ),
    "request of a command": Target(
        [
            b'{"verb": "progress", "done": 3, "total": 10, "stage": "link", "id": 1}',
            b'{"verb": "ask", "text": "Which one?", "options": ["blue", "green"], "deadline": 600, "id": "a"}',
            b'{"verb": "result", "value": {"tests": [1, null, 2.5]}}',
        ],
        lambda data, _: read_request(data),
        (BadRequest,),
    ),
    "key of the management API": Target([b"fl_0123456789ab_" + b"x" * 43], _api_key, ()),
    "questions of the control process": Target(
        [
            b'{"ask":"connections","after":"ab-1","limit":5,"user":"anna"}',
            b'{"ask":"send","connection":"ab-1","event":"x","data":{"a":[1]}}',
            b'{"worker":"w","body":{"items":[],"total":0,"more":false}}',
            encode_note(ServerTried(server="h/1", seconds=0.5)),
        ],
        _management,
        (),
    ),
    "PROXY protocol": Target(
        [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb",
            b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
        ],
        _proxy_header,
        (ProxyHeaderError,),
    ),
    "route": Target(
        [b"/ws?project_id=7", b"/ws/review/%E4%BB%BB", b"/ws/chat/session/a.b", b"/ws/board?token=x&project_id=a%20b"],
        _route,
        (HttpError, MessageError),
    ),
    "frames": Target(
        [
            encode_masked_frame(Opcode.TEXT, b"hello", MASK),
            encode_masked_frame(Opcode.BINARY, b"x" * 300, MASK),
            encode_masked_frame(Opcode.PING, b"", MASK),
            b"\x01\x81\x00\x00\x00\x00a\x80\x81\x00\x00\x00\x00b",
            b"\xc1\x87\x00\x00\x00\x00\xf2H\xcd\xc9\xc9\x07\x00",
        ],
        _frames,
        (FrameError,),
    ),
    "envelope, JSON": Target([entry["json"].encode() for entry in _ENVELOPES], _json, (MessageError,)),
    "envelope, CBOR": Target([bytes.fromhex(entry["cbor"]) for entry in _ENVELOPES], _cbor, (MessageError,)),
    "plain dialect": Target(
        [
            b'{"type":"subscribe","channel":"task:1"}',
            b'{"type":"task_input","task_id":1,"input":[1]}',
            b'{"type":"ping","timestamp":1}',
            b'{"type":"new_message","session_id":"1","data":{}}',
        ],
        _plain,
        (MessageError,),
    ),
    "producers": Target(
        [b'{"v":1,"e":"task_progress","d":{"percent":50}}', b'"text"', b"\xa1ad\x01", b"[1,2.5,null]"],
        _producer,
        (MessageError,),
    ),
    "channel": Target([b"task:42", b"user:anna@example.com", b"doc:a.b.c"], _channel, (MessageError,)),
    "grant": Target([b"task:*:sub+call", b"user:{user}:sub", b"*:pub"], _grant, (GrantError,)),
    "events": Target(
        (encode_event("order_paid", "x", 0, "handlers", {"order": 7, "lines": [1, None, "a"]}),),
        lambda data, chance: decode_event(data),
        (BadEventError,),
    ),
    "notifications": Target(
        (
            b'{"user":"anna","title":"T","level":"WARNING","channels":["email"],"auto_close":2.5,"data":{"a":[1]}}',
            b'{"user":"*","template":"quota_80","parameters":{"used":80,"limit":100,"quota":"calls"},"id":"n-1"}',
        ),
        lambda data, chance: render(decode_notification(data), TEMPLATES),
        (BadNotificationError,),
    ),
    "preferences": Target(
        (
            b'{"user":"anna","email":"anna@example.com","channels":{"info":["push"]},'
            b'"quiet_hours":{"begins":"22:00","ends":"07:00","zone":"Europe/Berlin"}}',
        ),
        lambda data, chance: decode_preferences(data),
        (BadPreferencesError,),
    ),
    "what clients ask of the application": Target(
        (
            encode_request(ClientMessage(name="pay", data={"order": 7}, connection_id="c1", roles=("a",))),
            encode_request(ClientCall(name="total", data=[1, 2], channel="doc:1", connection_id="c1", user="anna")),
        ),
        lambda data, chance: decode_client_question(data),
        (HandlerError,),
    ),
    "answers of handlers": Target(
        [
            b'{"allow":true,"identity":{"user":"anna","channels":{"task:*":["sub"]},"expires":2e9}}',
            b'{"allow":true,"ttl":60}',
            b'{"allow":false,"reason":"who are you?"}',
            b'{"error":"it raised ValueError"}',
        ],
        _answer,
        (),
    ),
    "removal": Target([b'{"user":"anna","channel":"project:7","reason":"gone"}'], _removal, (ValueError,)),
    "token": Target(_TOKENS, _token, (TokenError,)),
    "claims": Target(
        [
            b'{"exp":2e9,"aud":["fanline"],"sub":"anna","channels":{"task:*":["sub","call"],"user:{user}":["pub"]}}',
            b'{"exp":1000000000,"nbf":1,"iat":0.5,"aud":"fanline","roles":["admin"],"jti":"t","username":"A","connections":5}',
        ],
        _claims,
        (TokenError,),
    ),
    "revocation": Target(
        [
            b'{"token_id":"t","user":null,"before":1700000000.5,"until":2e9}',
            b'{"user":"anna","before":1,"until":2}',
            b'{"before":1,"until":2}',
        ],
        _revocation,
        (ValueError,),
    ),
    "control data": Target(
        [
            b'{"v":1,"t":"auth","i":"1","d":{"token":"a.b.c"}}',
            b'{"v":1,"t":"auth","d":{"session":"abc","positions":{"task:1":[5,"e"]}}}',
            b'{"v":1,"t":"sub","c":"task:1","d":{"last":5,"lines":10}}',
            b'{"v":1,"t":"call","c":"task:1","e":"cancel","d":{"by":"ann","deadline":3,"ask":"q","value":1}}',
        ],
        _control,
        (MessageError,),
    ),
    "forwarded for": Target(
        [
            b"1.2.3.4",
            b"1.2.3.4, 10.0.0.2, 10.0.0.3",
            b"[2001:db8::1]:80, 10.0.0.2:8080",
            b"fe80::1%eth0,::ffff:10.0.0.9",
        ],
        _forwarded,
        (),
    ),
    "settings": Target(
        [
            b'port = 8080\nauth = "token"\n[tokens]\nsecret = "a secret that is long enough for SHA-256"\n',
            b'[access]\neveryone = ["news:*:sub"]\n[access.roles]\neditor = ["doc:*:sub+pub"]\n',
            b'[namespaces.news]\ndurable = true\nhistory = 10\n[engine]\norigins = ["https://app.example"]\n',
        ],
        _settings,
        (SettingsError,),
    ),
    "environment": Target(
        [
            b"HOST=localhost",
            b"PORT=8080",
            b"ENGINE_ORIGINS=https://a.example, https://b.example",
            b"NATS=tls://a:1,nats://b",
        ],
        _environment,
        (SettingsError,),
    ),
    "key set": Target(
        [
            b'{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"a"}]}',
            b'{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","use":"sig"}]}',
        ],
        _key_set,
        (UnusableKeyError,),
    ),
    "presence": Target(
        [
            b'{"worker":"a","number":2,"connections":3,"users":{"ann":[1,"Ann"],"bob":[2,null]},"gone":["cid"]}',
            b'{"worker":"a","number":2,"large":true,"came_digests":"AAECAwQFBgc=","gone_digests":"AAECAwQFBgc="}',
            b'{"type":"snapshot","channel":"room:1"}',
            b'{"type":"numbers","channels":["room:1"]}',
            b'{"worker":"a","numbers":[1]}',
            b'{"connections":1,"anonymous":0,"digests":"AAECAwQFBgc=","complete":true}',
        ],
        _presence,
        (),
    ),
    "NATS": Target(
        [
            b"MSG fanline.pub.task.1 1 5\r\nhello\r\n",
            b"HMSG a 2 %d %d\r\n%shello\r\n" % (len(_HEADERS), len(_HEADERS) + 5, _HEADERS),
            b"HMSG a 2 r 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
            b'INFO {"version":"2.11"}\r\nPING\r\n',
            b"-ERR 'x'\r\n+OK\r\n",
        ],
        _nats,
        (NatsError,),
    ),
    "signature": Target(
        [
            b"Fanline-Signature: 1767225600000 " + b"ab" * 32 + b"\r\nNats-Msg-Id: e/task:1/x",
            b"Nats-Msg-Id: e/task:1/x\r\nFanline-Signature: 1767225600000 00",
        ],
        _signature,
        (),
    ),
}
"""Name -> reader."""
