"""Kills: at random moments, and at each operation on a file; and what the next run makes of it."""

import os
import random
import re
import shutil
import signal
import statistics
import time

from setting import Violation, check_same, check_words, elapsed, kill, may_stay

OLD = b"what was there before\n"

#: The operations at which a run is killed, or which fail.
OPERATIONS = {
    "openat": ["EACCES", "ENOSPC", "EMFILE"],
    "write": ["ENOSPC", "EIO"],
    "fsync": ["EIO"],
    "rename": ["EIO", "EACCES"],
    "renameat": ["EIO", "EACCES"],
    "renameat2": ["EIO", "EACCES"],
    "ftruncate": ["EIO"],
    "unlink": ["EACCES"],
    "unlinkat": ["EACCES"],
    "mkdir": ["EACCES", "ENOSPC"],
    "mkdirat": ["EACCES", "ENOSPC"],
    "symlink": ["EPERM"],
    "symlinkat": ["EPERM"],
    "linkat": ["EPERM"],
    "flock": ["ENOLCK"],
    "close": ["EIO"],
    "lseek": ["EIO"],
    "read": ["EIO"],
}

STRACE = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", "signal=none"]


def has_strace():
    return shutil.which("strace") is not None


class Truth:
    """What an undisturbed run leaves, and how long it takes."""

    def __init__(self, setting, scenario):
        times = []
        for _ in range(3):
            begin(setting, scenario)
            seconds, (code, errors) = elapsed(lambda: setting.run(scenario.command(8)))
            if code != 0:
                raise Violation(f"an undisturbed run fails: {errors}")
            times.append(seconds)
            found = setting.contents()
            self.contents = found if len(times) == 1 else self.contents
            check_same(found, self.contents, scenario.optional)
        self.seconds = statistics.median(times)


def begin(setting, scenario, old=False):
    """A place for a run: new, with what was there before if `old`."""
    if scenario.prepare:
        scenario.prepare(setting)
    else:
        setting.fresh()
    for name in scenario.old if old else ():
        (setting.out / name).write_bytes(OLD)


def check_whole(setting, scenario, truth, after_kill):
    """Files that have their names are whole, be they old or new; and of others there are those that may stay."""
    left = set()
    for name, content in setting.contents().items():
        if name in truth.contents:
            if content not in (truth.contents[name], OLD) and not name.endswith(".hash"):
                raise Violation(f"{name} is neither old nor new")
        elif name.removeprefix("out/") in scenario.old or name.endswith(".hash"):
            pass
        elif not may_stay(name) or (name.endswith(".tmp") and not after_kill):
            raise Violation(f"{name} is left behind")
        elif name.endswith(".partial") and not content and not after_kill:
            raise Violation(f"{name} is left behind, and empty")
        else:
            left.add(re.sub("[0-9a-f]{16,}", "HASH", re.sub("[.-]([A-Za-z0-9]{6}){1,2}(.tmp)?$", ".RANDOM.tmp", name)))
    return left


def check_next(setting, scenario, truth, rng, may_lack=()):
    """The next run succeeds, and leaves what an undisturbed one leaves."""
    code, errors = setting.run(scenario.command(rng.randint(1, 40), first=False), threads=rng.randint(1, 4))
    if code != 0:
        raise Violation(f"the next run fails: {errors}")
    check_same(setting.contents(), truth.contents, scenario.optional, may_lack)


def at_random(setting, scenario, truth, rounds, seed, count):
    """Kills runs at random moments, one in ten by a signal that it could catch. Returns what was seen left."""
    left = set()
    for round in range(rounds):
        rng = random.Random(f"{seed} {scenario.name} {round}")
        number = rng.choice([signal.SIGINT, signal.SIGTERM]) if round % 10 == 9 else signal.SIGKILL
        try:
            begin(setting, scenario, old=rng.random() < 0.5)
            for time_after_time in range(rng.randint(1, scenario.kills)):
                command = scenario.command(rng.randint(1, 40), first=time_after_time == 0)
                process = setting.start(command, threads=rng.randint(1, 4))
                time.sleep(rng.random() * truth.seconds * 1.05)
                kill(process, number)
                code, errors = setting.finish(process)
                count("kills" if number == signal.SIGKILL else "signals")
                count("in time", code != 0)
                check_words(code, errors, (0, 130, -number))
                if code == 130 and "interrupted: " not in errors:
                    raise Violation(f"interrupted without a word: {errors}")
                left |= check_whole(setting, scenario, truth, after_kill=code < 0)
            check_next(setting, scenario, truth, rng)
        except Violation as violation:
            raise Violation(f"round {round} of seed {seed}: {violation}") from None
    return left


def concerns(setting, operands):
    """Whether what strace says of an operation is of a file of this setting. Relative names come without their
    directory."""
    named = re.sub(r"AT_FDCWD<[^>]*>, ", "", operands)
    return str(setting.dir) in named or bool(re.match('"[^/]', named))


def operations(setting, scenario, most, rng):
    """The operations on files below the setting of one undisturbed run: name and number among those of its thread."""
    begin(setting, scenario)
    log = setting.base / "log"
    before = [*STRACE, "-o", log, "-e", f"trace={','.join('?' + name for name in OPERATIONS)}"]
    code, errors = setting.run(scenario.command(8), before=before)
    if code != 0:
        raise Violation(f"a run under strace fails: {errors}")
    numbers, found = {}, {}
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if not match:
            continue
        thread, name, rest = match.groups()
        number = numbers[thread, name] = numbers.get((thread, name), 0) + 1
        # Folders are closed by Rust's own library.
        path = re.match(r"\d+<(.*?)>[,)]", rest)
        folder = name == "close" and path and os.path.isdir(path[1])
        if concerns(setting, rest) and not folder:
            found.setdefault(name, set()).add(number)
    chosen = []
    for name, numbers in sorted(found.items()):
        numbers = sorted(numbers)
        few = numbers if len(numbers) <= most else sorted(rng.sample(numbers, most))
        chosen += [(name, number) for number in few]
    return chosen


def at_operations(setting, scenario, truth, most, seed, count):
    """Kills a run at each operation on a file, or at `most` of each kind, before it is done."""
    left = set()
    rng = random.Random(f"{seed} {scenario.name} operations")
    for name, number in operations(setting, scenario, most, rng):
        try:
            begin(setting, scenario, old=rng.random() < 0.5)
            inject = f"inject={name}:signal=KILL:when={number}"
            before = [*STRACE, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject]
            code, errors = setting.run(scenario.command(8), before=before)
            count("at operations")
            check_words(code, errors, (0, -9, 137))
            left |= check_whole(setting, scenario, truth, after_kill=True)
            check_next(setting, scenario, truth, rng)
        except Violation as violation:
            raise Violation(f"killed at {name} {number}: {violation}") from None
    return left
