"""Operations that fail, disks that are full, folders that are read-only."""

import dataclasses
import errno
import os
import random
import re
import subprocess

from kills import OPERATIONS, STRACE, begin, check_next, check_whole, concerns, operations
from scenarios import RECORDS
from setting import Violation, check_same, check_words

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


def check_end(setting, scenario, truth, code, errors):
    """It did all, but for what the program works without; or it failed with a line that says why, and nothing is lost
    or half there."""
    check_words(code, errors)
    if code == 0:
        allowed = scenario.may_lack + (() if scenario.caches_are_needed else ("home/*",))
        check_same(setting.contents(), truth.contents, scenario.optional, allowed)
    else:
        check_whole(setting, scenario, truth, after_kill=False)


def failing_operations(setting, scenario, truth, most, seed, count):
    """Lets each operation on a file fail, or `most` of each kind, with each of its errors in turn."""
    rng = random.Random(f"{seed} {scenario.name} errors")
    if scenario.prepare:
        # Weights that cannot be read are made again, and their hash is not remembered for three seconds.
        scenario = dataclasses.replace(scenario, optional=(*scenario.optional, RECORDS))
    for name, number in operations(setting, scenario, most, rng):
        for error in OPERATIONS[name]:
            try:
                begin(setting, scenario, old=rng.random() < 0.5)
                log = setting.base / "log"
                before = [*STRACE, "-o", log, "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}"]
                code, errors = setting.run(scenario.command(8), before=before)
                injected = [line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
                count("failing operations", len(injected))
                where = "; ".join(injected)
                # Each thread counts for itself: others may have been hit too. That a folder cannot be closed has never been
                # seen, and is a panic of Rust's own library.
                if "unexpected error during closedir" in errors:
                    continue
                # An image that cannot be read has a line, and may be an error in what is written.
                if not all(concerns(setting, line.split("(", 1)[-1]) for line in injected) or ".png: " in errors:
                    if "panicked" in errors:
                        raise Violation(errors)
                    continue
                after = scenario
                if name.startswith("unlink"):
                    # What could not be removed is there, until a run writes into that folder.
                    check_words(code, errors)
                    after = dataclasses.replace(scenario, optional=(*scenario.optional, "*/.qlnet-????????????.tmp"))
                else:
                    check_end(setting, scenario, truth, code, errors)
                check_next(setting, after, truth, rng, scenario.may_lack)
            except Violation as violation:
                raise Violation(f"{error} of {name} {number}: {violation} [{where}]") from None


def small_files(setting, scenario, truth, rounds, seed, count):
    """Limits the size of files, as `ulimit -f` does."""
    largest = max((len(content) for content in truth.contents.values()), default=0)
    for round in range(rounds):
        rng = random.Random(f"{seed} {scenario.name} limit {round}")
        limit = int(largest * rng.random() ** 2)
        try:
            begin(setting, scenario, old=rng.random() < 0.5)
            code, errors = setting.run(scenario.command(8), file_size=limit)
            count("small files")
            check_end(setting, scenario, truth, code, errors)
            check_next(setting, scenario, truth, rng, scenario.may_lack)
        except Violation as violation:
            raise Violation(f"files of at most {limit} bytes: {violation}") from None


def full_disks(setting, scenario, truth, rounds, seed, count):
    """Has `out` or `home` on a small disk of its own, with less free than the run needs."""
    for place in ("out", "home"):
        sizes = [len(content) for name, content in truth.contents.items() if name.startswith(place)]
        if not sizes or (place == "home" and scenario.prepare):
            continue
        needed = sum(size + 4096 for size in sizes)
        for round in range(rounds):
            rng = random.Random(f"{seed} {scenario.name} {place} {round}")
            free, names = rng.randint(0, needed) // 4096 * 4096, rng.choice([0, 0, rng.randint(2, 8)])
            begin(setting, scenario)
            folder = setting.dir / place
            options = f"size={needed + (4 << 20)},mode=755" + (f",nr_inodes={names + 2}" if names else "")
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "torture", folder], check=True)
            try:
                filler = folder / "filler"
                filled = b"\0" * (needed + (4 << 20) - free)
                filler.write_bytes(filled)
                old = [name for name in scenario.old if place == "out" and not names]
                for name in old:
                    write_if_it_fits(setting.out / name)
                code, errors = setting.run(scenario.command(8))
                count("full disks")
                filler.unlink()
                check_end(setting, scenario, truth, code, errors)
                if names:
                    subprocess.run(["mount", "-o", "remount,nr_inodes=1000", folder], check=True)
                check_next(setting, scenario, truth, rng, scenario.may_lack)
            except Violation as violation:
                raise Violation(f"{place} with {free} bytes free, {names or 'all'} names: {violation}") from None
            finally:
                subprocess.run(["umount", folder], check=True)


def write_if_it_fits(path):
    from kills import OLD

    try:
        path.write_bytes(OLD)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        path.unlink(missing_ok=True)


def read_only(setting, scenario, truth, seed, count):
    """Takes from `out` or `home` what lets files be written: by its mode for a user that is not root, by mounting it
    read-only for root."""
    rng = random.Random(f"{seed} {scenario.name} read-only")
    for place in ("out", "home"):
        if not any(name.startswith(place) for name in truth.contents) or (place == "home" and scenario.prepare):
            continue
        for way in ("mode", "mount"):
            try:
                begin(setting, scenario, old=True)
                folder = setting.dir / place
                if way == "mount":
                    subprocess.run(["mount", "--bind", folder, folder], check=True)
                    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
                else:
                    for path in (setting.out, setting.home):
                        os.chmod(path, 0o777)
                    os.chmod(folder, 0o555)
                code, errors = setting.run(scenario.command(8), before=NOBODY if way == "mode" else ())
                if way == "mount":
                    subprocess.run(["umount", folder], check=True)
                os.chmod(folder, 0o777)
                count("read-only folders")
                check_end(setting, scenario, truth, code, errors)
                if code == 0 and (place == "out" or scenario.caches_are_needed):
                    raise Violation("it says that it wrote where nothing can be written")
                if code == 1 and not re.search("Permission denied|Read-only file system", errors):
                    raise Violation(f"it does not say why: {errors}")
                check_next(setting, scenario, truth, rng, scenario.may_lack)
            except Violation as violation:
                raise Violation(f"{place} is read-only by {way}: {violation}") from None
