import asyncio
import sys
import threading

late = threading.Event()


def stray():
    raise ValueError("stray")


def fork(context, end):
    import os

    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        return context.res.text("parent" if os.WEXITSTATUS(status) == (end != "return") else "bad status")
    context.log("child")
    print("child")
    if end == "exit":
        raise SystemExit(1)
    if end == "throw":
        raise Exception("child")
    return context.res.text("child")


def threaded(context):
    for _ in range(3):
        print(context.req.query["n"], file=sys.stderr)
    return context.res.empty()


async def main(context):
    req, res, log = context.req, context.res, context.log
    if req.path == "/enforced":
        h = req.headers
        text = f"{h['x-own']} {h['x-open-runtimes-kept']} {h.get('x-open-runtimes-secret', 'none')}"
        return res.text(text, 200, {"X-Open-Runtimes-Log-Id": "x", "X-Yes": "yes"})
    if req.path == "/values":
        log("text", 1, True, {"a": [1, "é"]}, [1, 2], None)
        return res.empty()
    if req.path == "/binary":
        log("\x1b[31mred\x00", b"\xff".decode(errors="surrogateescape"))
        print("\x1b[31mred\x00")
        return res.empty()
    if req.path == "/late":
        def later():
            log("late")
            print("late")
            late.set()
        asyncio.get_running_loop().call_later(0.02, later)
        return res.text("early")
    if req.path == "/waits":
        await asyncio.to_thread(late.wait)
        log("mine")
        return res.text("waited")
    if req.path == "/stray":
        thread = threading.Thread(target=stray)
        thread.start()
        thread.join()
        return res.text("lives")
    if req.path == "/reject":
        await asyncio.sleep(0.001)
        raise ValueError("on purpose")
    if req.path == "/print":
        return await asyncio.to_thread(threaded, context)
    if req.path == "/size":
        return res.text(str(len(req.body_binary)))
    if req.path == "/fork":
        return fork(context, req.query["end"])
    return res.text("not found", 404)
