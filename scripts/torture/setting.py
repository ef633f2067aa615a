"""A place to run the program in, and what is looked at afterwards."""

import contextlib
import fnmatch
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

#: What pages say of how they were made: the command, the time and the speed. All else on them has to be the same.
MASKS = [
    rb"<code>qlnet [^<]*</code>",
    rb"[0-9.,]+ images per second, [^<]*",
    rb"\d+ compute, [^<]*images at a time",
    rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?",
]

#: What a run that was killed may leave until the next run, by the docs.
MAY_STAY = [
    "out/**/.qlnet-????????????.tmp",
    "home/**/.qlnet-????????????.tmp",
    "home/qlnet/.*.tmp",
    "home/hf/hub/*/blobs/*.incomplete",
    "home/hf/hub/**/.qlnet-????????????????-??????",
    "out/*.partial",
]

#: Nobody has promised a run that takes longer.
PATIENCE = 120


class Violation(Exception):
    """Something that must not happen."""


class Setting:
    """Two folders, always of the same names: `home`, with the caches, and `out`, where the program runs."""

    def __init__(self, program, base, endpoint):
        self.program = str(program)
        self.base = Path(base)
        self.dir = self.base / "trial"
        self.out = self.dir / "out"
        self.home = self.dir / "home"
        self.endpoint = endpoint

    def fresh(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.home.mkdir()

    def environment(self, threads):
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR")}
        return kept | {
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "QLNET_CACHE": str(self.home / "qlnet"),
            "HF_ENDPOINT": self.endpoint,
            "NO_PROXY": "127.0.0.1,localhost",
            "RAYON_NUM_THREADS": str(threads),
            "LC_ALL": "C.UTF-8",
        }

    def start(self, args, threads=2, before=(), file_size=None, stdout=subprocess.PIPE):
        """Starts the program as a group of processes of its own."""

        def limit():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

        return subprocess.Popen(
            [*map(str, before), self.program, *map(str, args)],
            cwd=self.out,
            env=self.environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=limit,
        )

    def finish(self, process):
        """Waits for it, and returns exit code and standard error."""
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            kill(process, signal.SIGKILL)
            raise Violation(f"it hangs: {process.args}") from None
        return process.returncode, errors.decode(errors="replace")

    def run(self, args, **how):
        return self.finish(self.start(args, **how))

    def contents(self):
        """Everything in both folders, by name: bytes of files without what differs from run to run. A link is what it
        leads to: where the hub's cache cannot have symbolic links, it has others."""
        found = {}
        for path in sorted(self.dir.rglob("*")):
            name = str(path.relative_to(self.dir))
            if path.is_file():
                found[name] = masked(path)
            elif path.is_symlink():
                found[name] = f"leads nowhere: {os.readlink(path)}"
        return found


def masked(path):
    content = path.read_bytes()
    if path.suffix in (".html", ".svg"):
        for mask in MASKS:
            content = re.sub(mask, b"*", content)
    return content


def may_stay(name):
    return any(fnmatch.fnmatch(name, pattern.replace("**/", "*")) for pattern in MAY_STAY)


def kill(process, number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def check_words(code, errors, allowed=(0, 1), one=True):
    """Any end has an exit code that is documented, and no panic; exit code 1 has a line that says why, and but one if
    `one`."""
    if "panicked" in errors or "RUST_BACKTRACE" in errors:
        raise Violation(f"panic: {errors}")
    if code not in allowed:
        raise Violation(f"exit code {code}, of {allowed}: {errors}")
    lines = len(re.findall("^error: ", errors, re.MULTILINE))
    if code == 1 and (lines == 0 or (one and lines > 1)):
        raise Violation(f"exit code 1 with {lines} lines of error: {errors!r}")


def check_same(found, truth, optional=(), may_lack=()):
    """What is there is what an undisturbed run leaves: no byte differs, no file is missing, none is left. Nothing is
    asked of what is `optional`."""
    fits = lambda name, patterns: any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    for name in sorted(found.keys() | truth.keys()):
        wanted = not fits(name, optional if name in found else (*optional, *may_lack))
        if found.get(name) != truth.get(name) and wanted:
            what = "is left behind" if name not in truth else "is missing" if name not in found else "has other bytes"
            raise Violation(f"{name} {what}")


def elapsed(work):
    start = time.monotonic()
    result = work()
    return time.monotonic() - start, result
