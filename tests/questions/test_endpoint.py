"""An endpoint is asked patiently, told its key and nobody else, and believed nothing."""

import dataclasses
import socket

import pytest
from chat_server import chat_server, said

from actioncast.questions.endpoint import ChatEndpoint, EndpointError, RefusedError, retry_after

ASK = [{"role": "user", "content": "really?"}]


@pytest.fixture
def chat():
    with chat_server() as server:
        yield server


@pytest.fixture
def waits():
    return []


@pytest.fixture
def endpoint(chat, waits, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    # A proxy must not see what is meant for this machine.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    return ChatEndpoint(
        url=chat.url,
        model="m",
        key_variable="TEST_KEY",
        timeout=0.5,
        attempts=4,
        sleep=waits.append,
    )


def test_an_answer_comes_with_model_messages_and_key(chat, endpoint):
    assert endpoint.complete(ASK) == "yes"
    assert chat.paths == ["/v1/chat/completions"]
    assert chat.keys == ["Bearer sk-secret"]
    assert (chat.requests[0]["model"], chat.requests[0]["messages"]) == ("m", ASK)


def test_without_a_key_none_is_sent(chat, endpoint, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    assert endpoint.complete(ASK) == "yes"
    assert chat.keys == [None]


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {}, b"slow down"),
        (500, {}, b""),
        (503, {}, b"<html>"),
        (408, {}, b""),
        (200, {}, b"no json"),
        (200, {}, b"[]"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": null}}]}'),
        said("  "),
        0.0,
        0.8,
    ],
)
def test_what_passes_is_waited_for(chat, endpoint, waits, trouble):
    chat.script = [trouble, trouble]
    assert endpoint.complete(ASK) == "yes"
    assert len(chat.requests) == 3
    # 1 s and 2 s, each shortened by up to half.
    assert 0.5 <= waits[0] <= 1
    assert 1 <= waits[1] <= 2


def test_a_server_says_how_long_to_wait(chat, endpoint, waits):
    chat.script = [(429, {"Retry-After": "17"}, b""), (503, {"Retry-After": "0"}, b"")]
    assert endpoint.complete(ASK) == "yes"
    assert waits[0] == 17
    assert 1 <= waits[1] <= 2


def test_who_asks_for_an_hour_is_asked_another_day(chat, endpoint, waits):
    chat.script = [(429, {"Retry-After": "3600"}, b"")]
    with pytest.raises(RefusedError, match="wait 3600 s"):
        endpoint.complete(ASK)
    assert not waits


def test_a_wait_may_be_a_date():
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946_684_789.0) == 10
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946_684_800.0) == 0
    assert [retry_after(odd, 0) for odd in (None, "", "soon", "-3", "nan")] == [0] * 5


def test_patience_ends(chat, endpoint, waits):
    chat.always = lambda _: (500, {}, b"sk-secret leaked by the server")
    with pytest.raises(EndpointError, match=r"4 attempts, the last: HTTP 500") as error:
        endpoint.complete(ASK)
    assert not isinstance(error.value, RefusedError)
    assert (len(chat.requests), len(waits)) == (4, 3)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("code", "match"),
    [(401, "TEST_KEY"), (403, "TEST_KEY"), (404, "no model m"), (400, "its models")],
)
def test_a_refusal_is_final(chat, endpoint, waits, code, match):
    chat.always = lambda _: (code, {}, b"bad key sk-secret")
    with pytest.raises(RefusedError, match=match) as error:
        endpoint.complete(ASK)
    assert (len(chat.requests), waits) == (1, [])
    assert "sk-secret" not in str(error.value)


def test_the_key_follows_no_redirection(chat, endpoint):
    with chat_server() as other:
        for code in (301, 302, 303, 307, 308):
            chat.script = [(code, {"Location": f"{other.url}/chat/completions"}, b"")]
            with pytest.raises(RefusedError, match="points elsewhere"):
                endpoint.complete(ASK)
        assert not other.requests


def test_nobody_listens(waits):
    with chat_server() as gone:
        url = gone.url
    endpoint = ChatEndpoint(url=url, model="m", attempts=2, sleep=waits.append)
    with pytest.raises(EndpointError, match="ConnectionRefusedError"):
        endpoint.complete(ASK)


def test_a_key_travels_encrypted_or_not_at_all(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    endpoint = ChatEndpoint(url="http://models.example/v1", model="m", key_variable="TEST_KEY")
    with pytest.raises(RefusedError, match="unencrypted") as error:
        endpoint.complete(ASK)
    assert "sk-secret" not in str(error.value)


def test_a_key_of_two_lines_is_refused_unsaid(monkeypatch, endpoint):
    monkeypatch.setenv("TEST_KEY", "sk-sec\nret: x")
    with pytest.raises(RefusedError, match="plain characters") as error:
        endpoint.complete(ASK)
    assert "sk-sec" not in str(error.value)


def test_the_endpoint_never_shows_the_key(endpoint):
    assert "sk-secret" not in repr(endpoint)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "models.example", "https://", "https://me:pw@x/v1", "https://x?k=1"],
)
def test_an_address_must_be_one(url):
    with pytest.raises(ValueError, match="must be an address") as error:
        ChatEndpoint(url=url, model="m")
    assert "pw" not in str(error.value)


def test_a_model_must_be_named():
    with pytest.raises(ValueError, match="--model"):
        ChatEndpoint(url="https://x/v1", model=" ")


def test_where_nothing_listens_it_soon_says_so(endpoint, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = dataclasses.replace(endpoint, url=f"http://127.0.0.1:{port}/v1", attempts=8)
    with pytest.raises(RefusedError, match=r"nothing listens at .*correct --endpoint"):
        nobody.complete(ASK)
    assert len(waits) == 2
