# Runs Python functions for the process driver. The channel's protocol is
# described in package frame; what user code sees is the open runtimes' contract.
# Needs Python 3.8. Everything is imported here, before user code can shadow it.
import asyncio
import contextvars
import gc
import glob
import heapq
import importlib
import importlib.machinery
import importlib.util
import inspect
import io
import itertools
import json
import os
import platform
import queue
import re
import site
import socket
import struct
import sys
import threading
import time
import traceback
import types
import urllib.parse

CALL, HEAD, DATA, WINDOW, RESET, LOG, READY, BIND, BOUND = range(1, 10)
END = 1
CREDIT = 256 << 10
PIECE = 64 << 10  # body bytes in one frame
BODY_LIMIT = 20 << 20  # of a request
UNSENT_LIMIT = 256 << 10  # who sends more than this at once waits
LINE_LIMIT = 8000
CANCEL_GRACE = 0.05  # what a cancelled coroutine has to end
NATIVE = "Native logs detected. Use context.log() or context.error() for better experience.\n"

HEADER = struct.Struct("<IIBB")
compact = json.JSONEncoder(separators=(",", ":")).encode
readable = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode

current = contextvars.ContextVar("call", default=None)  # whose code runs


# ---- the channel ----


class Channel:
    """Writes frames in order. Who finds nobody writing writes for all, until one
    who waits takes over."""

    def __init__(self):
        self.sock = socket.socket(fileno=3)
        self.sock.setblocking(True)
        self.sock.set_inheritable(False)
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self.out = []
        self.size = 0  # bytes in out
        self.waiting = 0  # for room
        self.writing = False

    def send(self, id, type, flags, *payload):
        size = sum(map(len, payload))
        with self.lock:
            self.out.append(HEADER.pack(size + 6, id, type, flags))
            self.out.extend(payload)
            self.size += size
            if self.writing and (self.size <= UNSENT_LIMIT or not self.wait()):
                return
            self.writing = True
        self.write()

    def wait(self):
        """Waits for room; True: nobody is writing what there is. Holds lock."""
        self.waiting += 1
        while self.writing and self.size > UNSENT_LIMIT:
            self.room.wait()
        self.waiting -= 1
        return not self.writing and bool(self.out)

    def write(self):
        wrote = False
        while True:
            with self.lock:
                if wrote and self.waiting:
                    self.writing = False
                    self.room.notify_all()
                    return
                if not self.out:
                    self.writing = False
                    return
                data = b"".join(self.out)
                self.out.clear()
                self.size = 0
                wrote = True
            try:
                self.sock.sendall(data)
            except OSError:
                os._exit(0)

    def frames(self):
        buf = bytearray()
        while True:
            data = self.sock.recv(PIECE * 4)
            if not data:
                return
            buf += data
            at = 0
            while len(buf) - at >= 10:
                length, id, type, flags = HEADER.unpack_from(buf, at)
                if len(buf) - at < length + 4:
                    break
                yield id, type, flags, bytes(buf[at + 10 : at + length + 4])
                at += length + 4
            del buf[:at]


# ---- loading ----


class LoadError(Exception):
    pass


class Function:
    """The user's main function."""

    def __init__(self):
        self.main = None
        self.is_async = False
        self.lock = threading.Lock()

    def bind(self, root, entrypoint, env):
        self.root, self.entrypoint = root, entrypoint
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        os.chdir(root)
        sys.argv[:] = [os.path.normpath(os.path.join(root, entrypoint))]
        del sys.path[0]  # where the harness lies
        self.add_packages(os.path.join(root, ".fnkit", "site-packages"))
        for dir in sorted(glob.glob(os.path.join(glob.escape(root), "runtime-env", "lib", "python*", "site-packages"))):
            self.add_packages(dir)
        # Last, so that the function's files do not shadow what libraries import.
        sys.path += dict.fromkeys([os.path.dirname(sys.argv[0]), os.path.normpath(root)])
        package = types.ModuleType("function")
        package.__path__ = [root]
        sys.modules["function"] = package

    def add_packages(self, dir):
        """Makes what the build installed come before what the machine has."""
        before, sys.path[:] = sys.path[:], []
        site.addsitedir(dir)
        system = [i for i, p in enumerate(before) if os.path.basename(p) in ("site-packages", "dist-packages")]
        at = system[0] if system else len(before)
        sys.path[:] = before[:at] + sys.path + before[at:]

    def load(self):
        """Sets main, or raises LoadError."""
        with self.lock:
            if self.main is not None:
                return
            try:
                main = getattr(self.module(), "main", None)
            except LoadError:
                raise
            except SystemExit as e:
                leave(e)
            except BaseException as e:
                raise LoadError(self.failure(e)) from None
            if not callable(main):
                raise LoadError("Function signature invalid. Did you forget to export a 'main' function?")
            self.is_async = inspect.iscoroutinefunction(main)
            self.main = main

    def module(self):
        file = os.path.join(self.root, self.entrypoint)
        inside = os.path.realpath(file).startswith(os.path.join(os.path.realpath(self.root), ""))
        if not inside or not os.path.isfile(file):
            raise LoadError("Failed to load entrypoint, file %s does not exist." % self.entrypoint)
        importlib.invalidate_caches()
        parts = os.path.normpath(os.path.splitext(self.entrypoint)[0]).split(os.sep)
        name = ".".join(["function"] + parts)
        if file.endswith(".py") and all(p.isidentifier() for p in parts):
            return importlib.import_module(name)
        loader = importlib.machinery.SourceFileLoader(name, file)
        module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, file, loader=loader))
        sys.modules[name] = module
        loader.exec_module(module)
        return module

    def failure(self, e):
        if isinstance(e, SyntaxError):
            return "Syntax error in %s: %s" % (self.entrypoint, e)
        if isinstance(e, ModuleNotFoundError):
            return "Module not found: %s" % e.name
        return "Failed to load module: " + error_text(e)


# ---- what user code sees ----


class Context:
    def __init__(self, call):
        self.req = Request(call)
        self.res = Response()
        self._call = call

    def log(self, *args):
        self._call.log(1, " ".join(map(show, args)))

    def error(self, *args):
        self._call.log(2, " ".join(map(show, args)))


class Request:
    def __init__(self, call):
        head = call.head
        self.body_binary = call.body
        self.method = head["m"]
        self.headers = {k: v for k, v in head.get("h", {}).items() if not k.startswith("x-open-runtimes-")}
        self.headers.update(enforced)
        path, _, self.query_string = head["p"].partition("?")
        self.path = urllib.parse.unquote(path)
        self.query = parse_query(self.query_string)
        self.scheme = self.headers.get("x-forwarded-proto") or "http"
        standard = 443 if self.scheme == "https" else 80
        self.host, port = HOST.match(self.headers.get("host", "")).groups()
        self.port = int(port) if port else standard
        self.url = self.scheme + "://" + self.host
        if self.port != standard:
            self.url += ":%d" % self.port
        self.url += head["p"] if self.query_string else path

    @property
    def body_text(self):
        return self.body_binary.decode("utf-8")

    @property
    def body_raw(self):
        return self.body_text

    @property
    def body_json(self):
        return json.loads(self.body_text)

    @property
    def body(self):
        if not self.headers.get("content-type", "").lower().startswith("application/json"):
            return self.body_text
        return self.body_json if self.body_binary else {}


HOST = re.compile(r"(.*?)(?::(\d+))?\Z", re.S)


def parse_query(text):
    query = {}
    for part in text.split("&"):
        key, _, value = part.partition("=")
        if key:
            query[urllib.parse.unquote_plus(key)] = urllib.parse.unquote_plus(value)
    return query


class Response:
    @staticmethod
    def send(body, statusCode=200, headers=None):
        return {"body": body, "statusCode": statusCode, "headers": headers or {}}

    @staticmethod
    def text(body, statusCode=200, headers=None):
        return {"body": str(body).encode("utf-8"), "statusCode": statusCode, "headers": headers or {}}

    @staticmethod
    def binary(body, statusCode=200, headers=None):
        return {"body": body, "statusCode": statusCode, "headers": headers or {}}

    @staticmethod
    def json(obj, statusCode=200, headers=None):
        kept = {k: v for k, v in (headers or {}).items() if str(k).lower() != "content-type"}
        kept["content-type"] = "application/json"
        return {"body": compact(obj).encode(), "statusCode": statusCode, "headers": kept}

    @staticmethod
    def empty():
        return {"body": b"", "statusCode": 204, "headers": {}}

    @staticmethod
    def redirect(url, statusCode=301, headers=None):
        return {"body": b"", "statusCode": statusCode, "headers": {**(headers or {}), "location": url}}


# ---- calls ----


class Call:
    def __init__(self, id, head, body):
        self.id, self.head, self.body = id, head, body
        self.logging = head.get("l") == 1
        self.parts = None  # of an upload
        self.size = len(body)
        self.received = 0  # no credit was given for these bytes yet
        self.lock = threading.Lock()  # guards over, and what is sent before it
        self.over = False
        self.muted = False
        self.answered = False  # main has returned
        self.timed_out = False
        self.timer = None
        self.native = False  # something was printed
        self.partial = ""
        self.credit = CREDIT
        self.changed = threading.Condition(self.lock)  # credit or over did
        self.waiter = None  # a future of the loop that waits for the same
        self.task = None  # on the loop

    # -- ends; each does nothing if the call is over --

    def end(self, type, *payload):
        with self.lock:
            if self.over:
                return
            self.flush()
            self.over = True
            channel.send(self.id, type, END, *payload)
        calls.pop(self.id, None)
        timers.cancel(self.timer)

    def finish(self, status, marks=None):
        head = compact({"s": status, **(marks or {})}).encode()
        self.end(HEAD, struct.pack("<H", len(head)), head)

    def fail(self, e):
        if self.timed_out:  # that is why
            return self.finish(500, {"t": 1})
        self.log(2, error_text(e))
        self.finish(500)

    def abort(self, e):
        self.log(2, error_text(e))
        self.end(RESET, ("stream failed: %s" % e).encode("utf-8", "replace")[:512])

    def drop(self):
        """The host has given the call up."""
        with self.lock:
            self.over = True
        timers.cancel(self.timer)
        self.wake()
        if self.task is not None:
            loop.call_soon_threadsafe(self.task.cancel)

    # -- logs --

    def log(self, stream, text):
        if not self.logging:
            return
        with self.lock:
            if not self.over and not self.muted:
                self.write(stream, text)

    def write(self, stream, text):
        if len(text) > LINE_LIMIT:
            text = text[:LINE_LIMIT] + "... Log truncated due to size limit (%d characters)" % LINE_LIMIT
        channel.send(self.id, LOG, 0, bytes([stream]), text.encode("utf-8", "replace"), b"\n")

    def printed(self, text):
        if not self.logging:
            return
        with self.lock:
            if self.over or self.muted:
                return
            if not self.native:
                self.native = True
                channel.send(self.id, LOG, 0, b"\x01", NATIVE.encode())
            lines = (self.partial + text).split("\n")
            # No more of a line is kept than is shown of it.
            self.partial = lines.pop()[: LINE_LIMIT + 1]
            for line in lines:
                self.write(1, line)

    def flush(self):
        if self.partial and not self.muted:
            self.write(1, self.partial)
        self.partial = ""

    # -- streams --

    def begin(self, head, body=b""):
        """Sends the head of a response of which more follows."""
        with self.lock:
            if self.over:
                return False
            channel.send(self.id, HEAD, 0, struct.pack("<H", len(head)), head, body)
            return True

    def wake(self):
        with self.lock:
            self.changed.notify_all()
            waiter = self.waiter
        if waiter is not None:
            loop.call_soon_threadsafe(lambda: waiter.done() or waiter.set_result(None))

    def push(self, piece):
        """Sends what there is credit for, and returns the rest. Holds lock."""
        while piece and self.credit > 0 and not self.over:
            n = min(len(piece), PIECE, self.credit)
            self.credit -= n
            channel.send(self.id, DATA, 0, bytes(piece[:n]))
            piece = piece[n:]
        return piece

    def send(self, piece):
        """Sends a piece of a stream; False: the call is over."""
        piece = memoryview(piece)
        with self.lock:
            while not self.over:
                piece = self.push(piece)
                if not piece:
                    return True
                self.changed.wait()
        return False

    async def send_async(self, piece):
        piece = memoryview(piece)
        while True:
            with self.lock:
                piece = self.push(piece)
                if self.over:
                    return False
                if not piece:
                    return True
                self.waiter = loop.create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None


def on_call(id, flags, payload):
    n = payload[0] | payload[1] << 8
    call = calls[id] = Call(id, json.loads(payload[2 : 2 + n]), payload[2 + n :])
    if flags & END:
        start(call)
    else:
        call.parts = [call.body]


def on_data(call, flags, payload):
    if call.parts is None:
        return
    call.size += len(payload)
    if call.size > BODY_LIMIT:
        return call.end(RESET, b"the request body is too large")
    call.parts.append(payload)
    call.received += len(payload)
    if flags & END:
        call.body, call.parts = b"".join(call.parts), None
        start(call)
    elif call.received >= CREDIT // 2:
        channel.send(call.id, WINDOW, 0, struct.pack("<I", call.received))
        call.received = 0


def start(call):
    if call.head.get("t", 0) > 0:
        call.timer = timers.add(call.head["t"] / 1000, on_timeout, call)
    if function.is_async:
        on_loop(call, run_async(call))
    else:
        workers.run(call, run_sync, call)


def run_sync(call):
    try:
        if function.main is None:
            try:
                function.load()
            except LoadError as e:
                call.log(2, str(e))
                return call.finish(503)
        result = function.main(Context(call))
    except BaseException as e:
        leave_fork(e)
        return call.fail(e)
    leave_fork()
    if inspect.isawaitable(result):
        on_loop(call, run_async(call, result))
    else:
        answer(call, result, False)


async def run_async(call, result=None):
    call.task = asyncio.current_task()
    if call.over:
        return
    try:
        if result is None:
            result = function.main(Context(call))
        result = await result
    except BaseException as e:
        leave_fork(e)
        return call.fail(e)
    leave_fork()
    stream = answer(call, result, True)
    if stream is not None:
        await pump_async(call, stream)


def on_timeout(call):
    with call.lock:
        if call.over or call.answered:
            return
        call.timed_out = True
    call.log(2, "Execution timed out.")
    call.muted = True
    if call.task is None:
        return call.finish(500, {"t": 1, "r": 1})
    loop.call_soon_threadsafe(call.task.cancel)
    timers.add(CANCEL_GRACE, call.finish, 500, {"t": 1, "r": 1})


def answer(call, result, asynchronous):
    """Sends the response. Returns a stream that the loop has to pump."""
    with call.lock:
        call.answered = True
    if call.timed_out:
        call.finish(500, {"t": 1})
        return None
    try:
        head, body, stream = response(call, result)
    except BaseException as e:
        call.fail(e)
        return None
    if stream is None and len(body) <= PIECE:
        call.end(HEAD, struct.pack("<H", len(head)), head, body)
        return None
    if stream is None:
        head_piece, stream = body[:PIECE], iter([body[PIECE:]])
    else:
        head_piece = b""
    if not call.begin(head, head_piece):
        return None
    if hasattr(stream, "__anext__"):
        if asynchronous:
            return stream
        on_loop(call, pump_async(call, stream))
    elif asynchronous:
        workers.run(call, pump, call, stream)
    else:
        pump(call, stream)
    return None


def response(call, result):
    """Head, body and stream of what main returned; body or stream is None."""
    if result is None:
        call.log(2, "Return statement missing. return context.res.empty() if no response is expected.")
        return b'{"s":500}', b"", None
    if not isinstance(result, dict):
        raise TypeError("main must return a response, not %s" % type(result).__name__)
    status = int(result.get("statusCode", 200))
    if abs(status) > 1 << 30:
        raise ValueError("invalid status code")
    head = compact({"s": status, "h": fields(result.get("headers") or {})}).encode()
    if len(head) > 0xFFFF:
        raise ValueError("response headers are too large")
    body = result.get("body")
    if hasattr(body, "__aiter__"):
        return head, None, body.__aiter__()
    if hasattr(body, "__iter__") and not isinstance(body, (str, bytes, bytearray, memoryview, dict, list, tuple, set, frozenset)):
        return head, None, iter(body)
    return head, to_bytes(body), None


def to_bytes(body):
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if isinstance(body, (int, float)):
        return str(body).encode()
    raise TypeError("response body must be text, bytes or a generator, not %s" % type(body).__name__)


def fields(headers):
    typed, all = False, []
    for key, value in headers.items():
        name = str(key).lower()
        if name.startswith("x-open-runtimes-"):
            continue
        for v in value if isinstance(value, (list, tuple)) else [value]:
            if v is None:
                continue
            if name == "content-type":
                typed, v = True, content_type(str(v))
            all.append([name, str(v)])
    if not typed:
        all.append(["content-type", "text/plain; charset=utf-8"])
    return all


def content_type(value):
    lower = value.lower()
    if lower.startswith("multipart/") or "charset=" in lower:
        return value
    return lower + "; charset=utf-8"


def pump(call, stream):
    try:
        for piece in stream:
            if not call.send(to_bytes(piece)):
                break
        call.end(DATA)
    except BaseException as e:
        call.abort(e)
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            quietly(call, close)


def quietly(call, close):
    try:
        close()
    except BaseException as e:
        call.log(2, error_text(e))


async def pump_async(call, stream):
    call.task = asyncio.current_task()
    try:
        async for piece in stream:
            if not await call.send_async(to_bytes(piece)):
                break
        call.end(DATA)
    except BaseException as e:
        call.abort(e)
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            try:
                await close()
            except BaseException as e:
                call.log(2, error_text(e))


# ---- where calls run ----


class Workers:
    """Threads for functions that are not async; as many as are needed at once."""

    def __init__(self):
        self.jobs = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.idle = 0

    def run(self, call, f, *args):
        context = contextvars.Context()
        context.run(current.set, call)
        with self.lock:
            spawn = self.idle <= 0
            self.idle -= 1
        self.jobs.put((context, f, args))
        if spawn:
            threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        # A thread that starts is idle once; its job is counted already.
        self.done()
        while True:
            context, f, args = self.jobs.get()
            try:
                context.run(f, *args)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            context = f = args = None
            self.done()

    def done(self):
        with self.lock:
            self.idle += 1


class Timers:
    """Calls functions later, on a thread of its own."""

    def __init__(self):
        self.heap = []  # of [when, number, function, arguments]
        self.changed = threading.Condition()
        self.number = itertools.count()
        self.cancelled = 0  # of those in heap
        self.started = False

    def add(self, after, f, *args):
        entry = [time.monotonic() + after, next(self.number), f, args]
        with self.changed:
            if not self.started:
                self.started = True
                threading.Thread(target=self.run, daemon=True).start()
            heapq.heappush(self.heap, entry)
            if self.heap[0] is entry:
                self.changed.notify()
        return entry

    def cancel(self, entry):
        if entry is None:
            return
        with self.changed:
            if entry[2] is None:
                return
            entry[2] = entry[3] = None
            self.cancelled += 1
            if self.cancelled > 256 and self.cancelled > len(self.heap) // 2:
                self.heap = [e for e in self.heap if e[2] is not None]
                heapq.heapify(self.heap)
                self.cancelled = 0

    def run(self):
        while True:
            with self.changed:
                while not self.heap or self.heap[0][0] > time.monotonic():
                    self.changed.wait(self.heap[0][0] - time.monotonic() if self.heap else None)
                entry = heapq.heappop(self.heap)
                _, _, f, args = entry
                entry[2] = entry[3] = None
                if f is None:
                    self.cancelled -= 1
            if f is not None:
                f(*args)


def on_loop(call, coroutine):
    global loop
    if loop is None:
        loop = asyncio.new_event_loop()
        threading.Thread(target=run_loop, args=(loop,), daemon=True).start()
    context = contextvars.Context()
    context.run(current.set, call)

    def begin():
        tasks.add(task := context.run(loop.create_task, coroutine))
        task.add_done_callback(tasks.discard)

    loop.call_soon_threadsafe(begin)


def run_loop(loop):
    asyncio.set_event_loop(loop)
    loop.run_forever()


# ---- forks ----


def forked():
    """In a process that user code forked: it has no business on the channel."""
    global is_fork
    is_fork = True
    channel.sock.close()
    call = current.get()
    if call is not None:
        current.set(None)
        call.__init__(call.id, {}, b"")  # locks may be held by threads that are not here
        call.over = True


def leave_fork(e=None):
    """Ends a forked process where user code has returned in it."""
    if not is_fork:
        return
    if e is None:
        os._exit(0)
    if not isinstance(e, SystemExit):
        traceback.print_exception(type(e), e, e.__traceback__, file=sys.__stderr__)
        os._exit(1)
    leave(e)


def leave(e):
    """Ends the process as sys.exit asks for."""
    if e.code is not None and not isinstance(e.code, int):
        print(e.code, file=sys.__stderr__)
    for file in (sys.__stdout__, sys.__stderr__):
        file.flush()
    os._exit(e.code if isinstance(e.code, int) else 1 if e.code else 0)


# ---- logs ----


class Capture(io.TextIOBase):
    """Takes the place of sys.stdout and sys.stderr."""

    def __init__(self, real):
        self.real = real
        self.buffer = CaptureBytes(self)

    encoding = property(lambda self: self.real.encoding)
    errors = property(lambda self: self.real.errors)

    def write(self, text):
        call = current.get()
        if call is None:
            return self.real.write(text)
        call.printed(text)
        return len(text)

    def writable(self):
        return True

    def flush(self):
        self.real.flush()

    def fileno(self):
        return self.real.fileno()

    def reconfigure(self, **options):
        pass  # text is sent as UTF-8, line by line, whatever is asked for

    def close(self):
        pass


class CaptureBytes(io.RawIOBase):
    def __init__(self, text):
        self.text = text

    def write(self, data):
        self.text.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def writable(self):
        return True

    def close(self):
        pass


def show(value):
    if isinstance(value, (dict, list, tuple)):
        try:
            return readable(value)
        except (TypeError, ValueError, RecursionError):
            pass
    return str(value)


def error_text(e):
    tb = e.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(e), e, tb)).rstrip("\n")


# ---- the program ----


def enforced_headers(text):
    try:
        return {str(k).lower(): v if isinstance(v, str) else compact(v) for k, v in json.loads(text or "{}").items()}
    except (ValueError, AttributeError):
        return {}


def on_bind(b):
    global enforced
    error = ""
    try:
        function.bind(b["root"], b["entrypoint"], b["env"])
        enforced = enforced_headers(b["env"].get("OPEN_RUNTIMES_HEADERS"))
        function.load()
    except (LoadError, OSError) as e:
        error = str(e)
    gc.freeze()
    channel.send(0, BOUND, 0, compact({"error": error}).encode())


def rehearse():
    """Runs a function of its own, of which nothing is sent, so that the first call is
    not the one to wait for what is slow the first time."""
    global function
    dir = os.path.join(os.environ["TMPDIR"], "rehearsal")
    file = os.path.join(dir, "main.py")
    sent = queue.SimpleQueue()
    channel.send = lambda *frame: sent.put(frame)
    try:
        os.mkdir(dir)
        with open(file, "w") as f:
            f.write("def main(context):\n    context.log('a')\n    print('b')\n    return context.res.json({'a': context.req.body_json})\n")
        sys.dont_write_bytecode = True
        function.root, function.entrypoint = dir, "main.py"
        package = sys.modules["function"] = types.ModuleType("function")
        package.__path__ = [dir]
        function.load()
        head = b'{"m":"POST","p":"/a?b=c","h":{"host":"localhost","content-type":"application/json"},"l":1}'
        for id in range(1, 3):
            on_call(id, END, struct.pack("<H", len(head)) + head + b'{"a":1}')
            while sent.get(timeout=1)[1] != HEAD:
                pass
    finally:
        del channel.send
        function = Function()
        for name in ("function", "function.main"):
            sys.modules.pop(name, None)
        sys.path_importer_cache.pop(dir, None)
        sys.dont_write_bytecode = False
        os.unlink(file)
        os.rmdir(dir)
        gc.collect()
        gc.freeze()


def serve():
    if "FNKIT_REHEARSE" in os.environ:
        try:
            rehearse()
        except Exception:
            traceback.print_exc(file=sys.__stderr__)
    ready = {"protocol": 1, "version": platform.python_version()}
    channel.send(0, READY, 0, compact(ready).encode())
    for id, type, flags, payload in channel.frames():
        if type == CALL:
            on_call(id, flags, payload)
            continue
        if type == BIND:
            on_bind(json.loads(payload))
            continue
        call = calls.get(id)
        if call is None:
            continue  # late
        if type == DATA:
            on_data(call, flags, payload)
        elif type == RESET:
            calls.pop(id, None)
            call.drop()
        elif type == WINDOW:
            with call.lock:
                call.credit += struct.unpack("<I", payload)[0]
            call.wake()


calls = {}
tasks = set()  # the loop itself does not keep them alive
loop = None
enforced = {}
function = Function()
channel = Channel()
workers = Workers()
timers = Timers()

is_fork = False
os.register_at_fork(after_in_child=forked)
sys.stdout = Capture(sys.stdout)
sys.stderr = Capture(sys.stderr)
try:
    serve()
finally:
    os._exit(0)
