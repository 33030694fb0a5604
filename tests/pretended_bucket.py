"""A server on this machine that answers as Google Cloud Storage does, as far as bertjax asks: JSON over HTTP.

Objects with generations, conditions on them (ifGenerationMatch), ranges, lists by pages; and the faults of a bucket,
which cannot be reached, answers 503, or refuses.
"""

import json
import re
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 50
"""Objects that a list names at once; the service's own limit is 1,000."""


class Bucket:
    """The bucket `bkt`, served until `stop`. `objects` are its bytes by name: change them, and they are damaged."""

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.generations: dict[str, int] = {}
        self.asked = Counter()  # requests by kind: A write and list, B read, delete
        self.refuses = 0  # the HTTP status of every answer; 0 = it serves
        self.written = lambda name: None  # is told of every object that a client has written
        self.lock = threading.RLock()
        self._last = 1000
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._server = None
        self.start()

    def start(self):
        """Be there, at the same address as before."""
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        """Be gone: connections are refused."""
        self.refuses = 503  # on the connections that are still open
        self._server.shutdown()
        self._server.server_close()

    def again(self):
        """Be there again after `stop`."""
        self.refuses = 0
        self.start()

    def empty(self):
        """Be as new."""
        with self.lock:
            self.objects.clear()
            self.generations.clear()
            self.asked.clear()
        self.refuses, self.written = 0, lambda name: None

    @property
    def environment(self):
        """What a process needs to take this for Google's."""
        return {"TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{self.port}", "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none"}

    def put(self, name, content):
        """Write an object; its generation."""
        with self.lock:
            self._last += 1
            self.objects[name], self.generations[name] = bytes(content), self._last
            return self._last

    def delete(self, name):
        """Remove an object; whether it was there."""
        with self.lock:
            self.generations.pop(name, None)
            return self.objects.pop(name, None) is not None

    def below(self, prefix):
        """The names that begin so."""
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Nothing: whoever asked was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer in one piece: its second would wait 40 ms for an acknowledgement
    bucket: Bucket

    def log_message(self, *arguments):
        pass

    def _asked(self):
        url = urlsplit(self.path)
        found = re.fullmatch(r"(?:/upload)?/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        return (found[1], unquote(found[2] or "")), query

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refused(self, bucket):
        """Whether it has answered already: it refuses, or there is no such bucket."""
        status = self.bucket.refuses or (0 if bucket == "bkt" else 404)
        if status:
            self._answer(status, json.dumps({"error": {"code": status, "message": "as told"}}).encode())
        return bool(status)

    def _condition_fails(self, name, query):
        wanted = query.get("ifGenerationMatch")
        return wanted is not None and int(wanted) != self.bucket.generations.get(name, 0)

    def do_GET(self):
        (bucket, name), query = self._asked()
        if self._refused(bucket):
            return
        with self.bucket.lock:
            self.bucket.asked["B" if name else "A"] += 1
            if not name:
                self._list(query)
            elif name not in self.bucket.objects:
                self._answer(404)
            elif query.get("ifGenerationNotMatch") == str(self.bucket.generations[name]):
                self._answer(304)
            elif query.get("alt") != "media":
                self._answer(200, json.dumps(self._told(name)).encode())
            else:
                self._content(name)

    def _content(self, name):
        content, generation = self.bucket.objects[name], self.bucket.generations[name]
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not part:
            self._answer(200, content, x_goog_generation=generation)
            return
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        if first >= len(content):
            self._answer(416)
            return
        place = f"bytes {first}-{last}/{len(content)}"
        self._answer(206, content[first : last + 1], x_goog_generation=generation, Content_Range=place)

    def _told(self, name):
        size, generation = len(self.bucket.objects[name]), self.bucket.generations[name]
        return {"name": name, "bucket": "bkt", "size": str(size), "generation": str(generation)}

    def _list(self, query):
        start = query.get("pageToken") or query.get("startOffset", "")
        end = query.get("endOffset", "")
        names = [n for n in self.bucket.below(query.get("prefix", "")) if n >= start and (not end or n < end)]
        page = {"items": [self._told(name) for name in names[:PAGE]]}
        if len(names) > PAGE:
            page["nextPageToken"] = names[PAGE]
        self._answer(200, json.dumps(page).encode())

    def do_POST(self):
        (bucket, _), query = self._asked()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._refused(bucket):
            return
        with self.bucket.lock:
            self.bucket.asked["A"] += 1
            if self._condition_fails(query["name"], query):
                self._answer(412)
                return
            self.bucket.put(query["name"], content)
            self.bucket.written(query["name"])
            self._answer(200, json.dumps(self._told(query["name"])).encode())

    def do_DELETE(self):
        (bucket, name), query = self._asked()
        if self._refused(bucket):
            return
        with self.bucket.lock:
            self.bucket.asked["delete"] += 1
            if self._condition_fails(name, query):
                self._answer(412)
            else:
                self._answer(204 if self.bucket.delete(name) else 404)
