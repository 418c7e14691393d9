"""The same function in Python."""

import json
import os
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent


def main(context):
    req, res = context.req, context.res
    context.log("trigger " + req.headers["x-appwrite-trigger"])
    if "fail" in req.query:
        raise RuntimeError("asked to fail")
    if "complain" in req.query:
        context.error("a complaint")
    blob = HERE / "blob.bin"
    answer = {
        "method": req.method,
        "path": req.path,
        "query": req.query,
        "body": req.body_text,
        "header": req.headers.get("x-custom", ""),
        "user": req.headers.get("x-appwrite-user-id", ""),
        "secret": os.environ.get("SECRET", ""),
        "version": (HERE / "version.txt").read_text(),
        "blob": blob.stat().st_size if blob.exists() else 0,
        "self": itself(req) if "self" in req.query else "",
    }
    return res.json(answer, int(req.query.get("status", "200")), {"x-answer": "forty-two"})


def itself(req):
    """Ask the API for the name of this function, with the key of the call."""
    env = os.environ
    url = env["APPWRITE_FUNCTION_API_ENDPOINT"] + "/functions/" + env["APPWRITE_FUNCTION_ID"]
    headers = {
        "x-appwrite-project": env["APPWRITE_FUNCTION_PROJECT_ID"],
        "x-appwrite-key": req.headers["x-appwrite-key"],
    }
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return json.load(answer)["name"]
