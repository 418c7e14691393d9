#!/usr/bin/python3
"""A function as a script: HTTP on descriptor 3 with what Python has."""
from http.server import BaseHTTPRequestHandler
import socket


class Function(BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path, flush=True)
        body = b"hello from Python"
        self.send_response(200)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        pass


listener = socket.socket(fileno=3)
while True:
    call, _ = listener.accept()
    with call:
        Function(call, ("function", 0), None)
