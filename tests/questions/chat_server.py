"""A chat endpoint on this machine that answers, or fails, as a test says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


def said(text: str) -> Answer:
    """A completion with this text."""
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return 200, {}, json.dumps(body).encode()


class ChatServer:
    """What was asked, and what is answered: the script first, then `always`."""

    def __init__(self) -> None:
        self.script: list[Answer | float] = []
        self.always: Callable[[list[dict[str, str]]], Answer | float] = lambda _: said("yes")
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, path: str, key: str | None, body: bytes) -> Answer | float:
        with self.lock:
            self.requests.append(json.loads(body))
            self.keys.append(key)
            self.paths.append(path)
            if self.script:
                return self.script.pop(0)
            return self.always(self.requests[-1]["messages"])


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server on a free port of 127.0.0.1."""
    chat = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = chat.answer(self.path, self.headers.get("Authorization"), body)
            if isinstance(answer, float):
                # Too late, or never: the line is dropped.
                time.sleep(answer)
                self.close_connection = True
                return
            code, headers, content = answer
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
