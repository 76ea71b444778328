"""A client of chat endpoints that speak as OpenAI's does, with the standard library alone.

The key is read from an environment variable when a request is made. It is kept nowhere, travels
only encrypted or within this machine, follows no redirection, and stands in no message.
"""

import email.utils
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actioncast.questions.prompts import Message

PASSING = frozenset({408, 425, 429})
"""Answers after which asking again helps, besides all of 500 and above."""
LARGEST = 4_000_000
"""Bytes of an answer that are read at most."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class EndpointError(ValueError):
    """The endpoint does not answer, however often it is asked, or refuses the request."""


class RefusedError(EndpointError):
    """It would refuse every other request too: a wrong key, address or model."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key must not follow to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


REFUSED_AT_MOST = 3
"""Attempts at a place where nothing listens: a server that starts anew is soon back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatEndpoint:
    """Where a language model answers."""

    url: str
    """Base address, as https://api.openai.com/v1; `/chat/completions` is put after it."""
    model: str
    """The model's name there."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; where it is empty, no key is sent."""
    temperature: float = 0.7
    """Of sampling."""
    timeout: float = 120.0
    """Seconds to wait for an answer."""
    attempts: int = 8
    """How often one request is made before giving up."""
    first_wait: float = 1.0
    """Seconds before the second attempt; doubled each time, and shortened at random by up to
    half."""
    longest_wait: float = 300.0
    """Seconds to wait at most; a server that asks for more is asked another day."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    """Waits; replaced in tests."""

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"the endpoint must be an address that starts with https:// (or http:// on this "
                f"machine), got {_shown(self.url)!r}."
            )
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "the endpoint must be an address without a user, a password or a query; the key "
                f"belongs into the environment variable {self.key_variable}."
            )
        if not self.model.strip():
            raise ValueError("an endpoint needs the name of its model (--model), got none.")
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, got {self.attempts}.")

    def complete(self, messages: Sequence[Message]) -> str:
        """The model's answer.

        Raises:
            RefusedError: The endpoint refuses the request for good.
            EndpointError: It gave no answer in all attempts.
        """
        body = {"model": self.model, "messages": list(messages), "temperature": self.temperature}
        content = json.dumps(body).encode()
        trouble = ""
        for attempt in range(self.attempts):
            asked = 0.0
            try:
                return self._ask_once(content)
            except urllib.error.HTTPError as error:
                with error:
                    trouble = f"HTTP {error.code}"
                    if error.code not in PASSING and error.code < 500:
                        raise RefusedError(self._refusal(error.code)) from None
                    asked = retry_after(error.headers.get("Retry-After"), time.time())
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                trouble = type(reason).__name__
                if isinstance(reason, ConnectionRefusedError) and attempt + 1 >= REFUSED_AT_MOST:
                    raise RefusedError(
                        f"nothing listens at {_shown(self.url)}; start the server, or correct "
                        "--endpoint, and run the same command again."
                    ) from None
            except _BrokenAnswerError as error:
                trouble = str(error)
            if asked > self.longest_wait:
                raise RefusedError(
                    f"{_shown(self.url)} asks to wait {asked:.0f} s ({trouble}); run the same "
                    "command again later."
                )
            if attempt + 1 < self.attempts:
                self.sleep(max(asked, self._wait(attempt)))
        raise EndpointError(
            f"{_shown(self.url)} gave no answer in {self.attempts} attempts, the last: {trouble}."
        )

    def _wait(self, attempt: int) -> float:
        longest = min(self.longest_wait, self.first_wait * 2.0**attempt)
        return longest * random.uniform(0.5, 1.0)

    def _ask_once(self, content: bytes) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(self.key_variable, "").strip():
            self._require_safe(key)
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, content, headers, method="POST")
        handlers: list[Any] = [_NoRedirect]
        if urllib.parse.urlsplit(self.url).hostname in LOOPBACK:
            # What is meant for this machine goes through no proxy.
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=self.timeout) as response:
            answer = response.read(LARGEST + 1)
        if len(answer) > LARGEST:
            raise _BrokenAnswerError(f"an answer of more than {LARGEST} bytes")
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise _BrokenAnswerError("an answer that is no chat completion") from None
        if not isinstance(text, str) or not text.strip():
            raise _BrokenAnswerError("an empty answer")
        return text

    def _require_safe(self, key: str) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise RefusedError(
                f"a key must not travel unencrypted to {parts.hostname}; give an https:// address, "
                f"or unset {self.key_variable} if the server needs none."
            )
        if not key.isascii() or not key.isprintable():
            raise RefusedError(
                f"{self.key_variable} must hold a key of plain characters, got others."
            )

    def _refusal(self, code: int) -> str:
        where = _shown(self.url)
        if code in (401, 403):
            return f"{where} refuses the key (HTTP {code}); set {self.key_variable} to a valid one."
        if code == 404:
            return f"{where} knows no chat completions, or no model {self.model} (HTTP 404)."
        if 300 <= code < 400:
            return f"{where} points elsewhere (HTTP {code}); give the final address."
        return f"{where} refuses the request (HTTP {code}); is {self.model} one of its models?"


class _BrokenAnswerError(Exception):
    """An answer that is no chat completion."""


def retry_after(value: str | None, now: float) -> float:
    """Seconds that a server asks to wait, by a number or a date; 0 where it does not say."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, date.timestamp() - now)


def _shown(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
