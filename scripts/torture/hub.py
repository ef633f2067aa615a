"""A stand-in for the Hugging Face hub on this machine, which sends slowly and in random pieces."""

import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
import time

COMMIT = "5f2c0d1e9a8b7c6d5e4f30211203f4e5d6c7b8a9"


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients are killed here, and hang up."""


class Hub:
    """Serves the files of one data set, and a checkpoint under every other name, from one address."""

    def __init__(self, files, checkpoint, seed):
        self.files = files
        self.by_hash = {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        self.checkpoint = checkpoint
        if checkpoint:
            self.by_hash[hashlib.sha256(checkpoint).hexdigest()] = checkpoint
        self.random = random.Random(seed)
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.respond(self)

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def listing(self):
        def entry(name, content):
            sha256 = hashlib.sha256(content).hexdigest()
            lfs = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            return {"rfilename": name, "size": len(content), "blobId": sha256[:40], "lfs": lfs}

        siblings = [entry(name, content) for name, content in self.files.items()]
        return {"id": "torture/digits", "sha": COMMIT, "siblings": siblings}

    def respond(self, request):
        path = request.path
        if path.startswith("/api/datasets/"):
            self.send(request, json.dumps(self.listing()).encode(), "application/json")
        elif "/resolve/" in path:
            file = path.split("/resolve/", 1)[1].split("/", 1)[1]
            content = self.files.get(file) if path.startswith("/datasets/") else self.checkpoint
            if content is None:
                request.send_error(404)
                return
            sha256 = hashlib.sha256(content).hexdigest()
            request.send_response(302)
            # Another name, as the hub sends elsewhere.
            request.send_header("Location", f"http://localhost:{self.server.server_port}/blob/{sha256}")
            request.send_header("X-Repo-Commit", COMMIT)
            request.send_header("X-Linked-Etag", f'"{sha256}"')
            request.send_header("X-Linked-Size", str(len(content)))
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif path.startswith("/blob/"):
            self.send(request, self.by_hash[path.removeprefix("/blob/")], "application/octet-stream")
        else:
            request.send_error(404)

    def send(self, request, content, kind):
        start = 0
        if asked := request.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        # Some forty pieces of a file, however large it is.
        most = max(len(content) // 20, 1)
        while start < len(content):
            piece = content[start : start + self.random.randint(1, most)]
            request.wfile.write(piece)
            start += len(piece)
            time.sleep(self.random.random() * 0.004)


def shards(archive, count):
    """The images of a tar with a folder for each class, as shards of a WebDataset with labels: name -> content."""
    with tarfile.open(archive) as source:
        members = [member for member in source.getmembers() if member.isfile()]
        images = [(int(member.name.split("/")[-2]), source.extractfile(member).read()) for member in members]
    files = {}
    for index in range(count):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as shard:
            for number, (label, image) in list(enumerate(images))[index::count]:
                for name, content in [(f"{number:05}.png", image), (f"{number:05}.cls", str(label).encode())]:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
        files[f"data/validation-{index:05}-of-{count:05}.tar"] = out.getvalue()
    return files
