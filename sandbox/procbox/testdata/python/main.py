import asyncio
import os
import subprocess
import tempfile
import time

count = 0
closed = 0


def pieces(n):
    for i in range(n):
        yield "piece %d\n" % i


given = {}


async def endless(key):
    global closed
    piece = b"x" * (64 << 10)
    given[key] = 0
    try:
        while True:
            yield piece
            given[key] += 1
    finally:
        closed += 1


async def waits():
    yield "piece\n"
    await asyncio.Event().wait()


def alloc(context):
    held = b"x" * (int(context.req.query["mib"]) << 20)
    return context.res.text("allocated" if held else "")


def breaks():
    yield "half"
    raise RuntimeError("broken on purpose")


def request(context):
    req = context.req
    return context.res.json(
        {
            "method": req.method,
            "scheme": req.scheme,
            "host": req.host,
            "port": req.port,
            "path": req.path,
            "queryString": req.query_string,
            "query": req.query,
            "url": req.url,
            "headers": req.headers,
            "bodyText": req.body_text,
        }
    )


def throw(context):
    context.log("before throw")
    raise RuntimeError("thrown on purpose")


def counted(context):
    global count
    count += 1
    return context.res.text(str(count))


def log(context):
    context.log("one", "two")
    context.error("three")
    return context.res.text("logged")


def logs(context):
    for i in range(int(context.req.query["n"])):
        context.log("line %d" % i)
    return context.res.text("logged")


def longlog(context):
    context.log("x" * 9000)
    return context.res.text("logged")


def native(context):
    print("native out")
    return context.res.text("native")


async def sleep(context):
    context.log("sleep start")
    await asyncio.sleep(int(context.req.query["ms"]) / 1000)
    context.log("sleep end")
    return context.res.text("slept")


async def hang(context):
    context.log("hanging")
    await asyncio.Event().wait()


def spin(context):
    context.log("spinning")
    while True:
        pass


def leave(context):
    context.log("exiting")
    os._exit(3)


def tmp(context):
    file = os.path.join(tempfile.gettempdir(), "written")
    with open(file, "w") as f:
        f.write("x")
    return context.res.text(file)


def child(context):
    quiet = subprocess.DEVNULL
    return context.res.text(str(subprocess.Popen(["sleep", "1000"], stdin=quiet, stdout=quiet, stderr=quiet).pid))


def children(context):
    quiet = subprocess.DEVNULL
    all = []
    try:
        for _ in range(int(context.req.query["n"])):
            all.append(subprocess.Popen(["sleep", "1000"], stdin=quiet, stdout=quiet, stderr=quiet))
    finally:
        for p in all:
            p.kill()
        for p in all:
            p.wait()
    return context.res.text("started")


def burn(context):
    end = time.process_time() + int(context.req.query["ms"]) / 1000
    while time.process_time() < end:
        pass
    return context.res.text("burned")


def fill(context):
    file = os.path.join(tempfile.gettempdir(), "filled")
    try:
        with open(file, "wb", buffering=0) as f:
            for _ in range(int(context.req.query["mib"])):
                f.write(b"x" * (1 << 20))
    finally:
        os.remove(file)
    return context.res.text("written")


def garbage(context):
    try:
        os.write(3, b"\xff" * 64)
    except OSError:
        return context.res.text("no")
    time.sleep(1000)


paths = {
    "/hello": lambda c: c.res.json({"hello": "world"}),
    "/echo": lambda c: c.res.binary(c.req.body_binary, 200, {"content-type": c.req.headers.get("content-type")}),
    "/request": request,
    "/body": lambda c: c.res.json({"body": c.req.body}),
    "/bodyjson": lambda c: c.res.json({"body": c.req.body_json}),
    "/text": lambda c: c.res.text("téxt", 201, {"X-Custom": "Value"}),
    "/binary": lambda c: c.res.binary(bytes(range(256))),
    "/json": lambda c: c.res.json({"a": 1, "b": "é", "c": {"d": True}}),
    "/empty": lambda c: c.res.empty(),
    "/redirect": lambda c: c.res.redirect("https://example.org/a"),
    "/found": lambda c: c.res.redirect("https://example.org/b", 302, {"x-why": "moved"}),
    "/send": lambda c: c.res.send("sent", 202),
    "/noreturn": lambda c: c.res.text("dropped") and None,
    "/record": lambda c: {"body": "own"},
    "/status": lambda c: c.res.text("status", int(c.req.query["n"])),
    "/type": lambda c: c.res.text("typed", 200, {"Content-Type": c.req.body_text}),
    "/cookies": lambda c: c.res.text("cookies", 200, {"set-cookie": ["a=1", "b=2"]}),
    "/crlf": lambda c: c.res.text("crlf", 200, {"x-bad": "a\r\nx-evil: 1"}),
    "/throw": throw,
    "/env": lambda c: c.res.json({"value": os.environ.get(c.req.query["name"])}),
    "/environ": lambda c: c.res.json(dict(os.environ)),
    "/log": log,
    "/logs": logs,
    "/longlog": longlog,
    "/native": native,
    "/sleep": sleep,
    "/hang": hang,
    "/spin": spin,
    "/exit": leave,
    "/count": counted,
    "/big": lambda c: c.res.text("x" * (int(c.req.query["mib"]) << 20)),
    "/stream": lambda c: c.res.send(pieces(int(c.req.query["n"]))),
    "/endless": lambda c: c.res.send(endless(c.req.query.get("key"))),
    "/given": lambda c: c.res.text(str(given[c.req.query["key"]])),
    "/waits": lambda c: c.res.send(waits()),
    "/alloc": alloc,
    "/closed": lambda c: c.res.text(str(closed)),
    "/breaks": lambda c: c.res.send(breaks()),
    "/cwd": lambda c: c.res.text(os.getcwd()),
    "/tmp": tmp,
    "/child": child,
    "/children": children,
    "/burn": burn,
    "/fill": fill,
    "/garbage": garbage,
}


def main(context):
    answer = paths.get(context.req.path)
    if answer is None:
        return context.res.text("not found", 404)
    return answer(context)
