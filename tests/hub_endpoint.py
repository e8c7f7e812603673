"""A small Hub: the part of the Hugging Face Hub's HTTP interface that `huggingface_hub` needs to
make, fill and read repositories.

Files lie on disk under their SHA-256; a commit is a JSON of {path: sha256}. Writing needs the
token, and so does reading what is private.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_local"


class Hub:
    """The repositories; `log` holds "METHOD path" of what was asked, and the first request of each
    line in `broken` gets no answer.
    """

    def __init__(self, root: Path):
        self.root, self.log, self.broken, self.url = root, [], [], ""
        (root / "blobs").mkdir(parents=True)

    def blob(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / name).write_bytes(content)
        return name

    def read(self, sha: str) -> bytes:
        return (self.root / "blobs" / sha).read_bytes()

    def repo(self, name: str) -> dict | None:
        path = self.root / (name.replace("/", "--") + ".json")
        return json.loads(path.read_text()) if path.is_file() else None

    def write(self, name: str, repo: dict) -> None:
        (self.root / (name.replace("/", "--") + ".json")).write_text(json.dumps(repo))

    def commit(self, repo: dict, branch: str, files: dict[str, str]) -> str:
        sha = hashlib.sha1(json.dumps([len(repo["commits"]), files]).encode()).hexdigest()
        repo["commits"][sha] = files
        repo["branches"][branch] = sha
        return sha

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Content of every file of a revision."""
        repo = self.repo(name)
        return {
            path: self.read(sha)
            for path, sha in repo["commits"][repo["branches"][revision]].items()
        }


class Handler(BaseHTTPRequestHandler):
    """One request; `self.server.hub` is the Hub."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code=200, content=b"", **headers):
        if not isinstance(content, bytes):
            content, headers = (
                json.dumps(content).encode(),
                {"Content-Type": "application/json", **headers},
            )
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, code, kind):
        self.answer(code, {"error": kind}, X_Error_Code=kind, X_Error_Message=kind)

    def handle_request(self):
        self.hub: Hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(f"{self.command} {path}")
        for line in [line for line in self.hub.broken if self.hub.log[-1].startswith(line)]:
            self.hub.broken.remove(line)
            self.close_connection = True
            return
        self.known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if (
            self.command == "POST" and not self.known
        ):  # a PUT goes to a place that only the asker was told
            return self.refuse(401, "Unauthorized")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self.create(json.loads(self.body))
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if parts[0] == "lfs":
            self.hub.blob(self.body)
            return self.answer()
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self.batch(json.loads(self.body))
        api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        repo = self.hub.repo(name)
        if repo is None or (repo["private"] and not self.known):
            return self.refuse(401, "RepoNotFound")
        verb, rest = (rest[0], rest[1:]) if rest else ("revision", ["main"])
        return getattr(self, verb)(name, repo, rest)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if self.hub.repo(name):
            return self.answer(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        repo = {
            "private": asked.get("visibility") == "private" or asked.get("private", False),
            "branches": {},
            "commits": {},
        }
        self.hub.commit(repo, "main", {})
        self.hub.write(name, repo)
        self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def batch(self, asked):
        def action(item):
            return {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}

        self.answer(
            200,
            {
                "transfer": "basic",
                "objects": [{**item, "actions": action(item)} for item in asked["objects"]],
            },
        )

    def branch(self, name, repo, rest):
        if rest[0] in repo["branches"]:
            return self.answer(409, {"error": "exists"})
        repo["branches"][rest[0]] = repo["branches"]["main"]
        self.hub.write(name, repo)
        self.answer()

    def preupload(self, name, repo, rest):
        def mode(path):
            return "lfs" if path.endswith((".safetensors", ".png")) else "regular"

        files = [
            {"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False}
            for file in json.loads(self.body)["files"]
        ]
        self.answer(200, {"files": files})

    def commit(self, name, repo, rest):
        files = dict(repo["commits"][repo["branches"][rest[0]]])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.hub.blob(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                files[value["path"]] = hashlib.sha256(self.hub.read(value["oid"])).hexdigest()
                assert files[value["path"]] == value["oid"]
        sha = self.hub.commit(repo, rest[0], files)
        self.hub.write(name, repo)
        self.answer(
            200,
            {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"},
        )

    def sha(self, repo, revision):
        return revision if revision in repo["commits"] else repo["branches"].get(revision)

    def revision(self, name, repo, rest):
        if (sha := self.sha(repo, rest[0])) is None:
            return self.refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in repo["commits"][sha]]
        self.answer(
            200,
            {
                "id": name,
                "sha": sha,
                "private": repo["private"],
                "tags": [],
                "downloads": 0,
                "siblings": siblings,
            },
        )

    def tree(self, name, repo, rest):
        files = repo["commits"][self.sha(repo, rest[0])]
        sizes = {path: len(self.hub.read(blob)) for path, blob in files.items()}
        self.answer(
            200,
            [
                {"type": "file", "path": path, "size": sizes[path], "oid": files[path][:40]}
                for path in files
            ],
        )

    def resolve(self, name, repo, rest):
        sha = self.sha(repo, rest[0])
        blob = repo["commits"][sha].get("/".join(rest[1:]))
        if blob is None:
            return self.refuse(404, "EntryNotFound")
        self.answer(200, self.hub.read(blob), X_Repo_Commit=sha, ETag=f'"{blob}"')


@contextmanager
def served(root: Path):
    """A Hub over HTTP on this machine, in a thread of its own."""
    hub = Hub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, server.daemon_threads = hub, True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
