"""Kills the program, fills its disks, takes its folders away and starts it twice at once, and looks what is left.

    python3 scripts/torture target/release/qlnet
    python3 scripts/torture target/release/qlnet --rounds 20 --only csv,report

For each file that the program writes there is a scenario (`scenarios.py`). An undisturbed run shows what has to be
there. Then the same is run with random numbers of threads and sizes of batches, and

    kills       killed (SIGKILL, the whole group of processes; one run in ten by Ctrl-C or SIGTERM) at a random moment,
                some of them several times in a row
    operations  killed at each of its operations on files, by strace
    errors      each of these operations fails, by strace
    limits      files may not grow beyond a random size; its disk is too small; its folders are read-only
    pairs       two processes at once

and after each the next run has to succeed and to end with the very bytes of the undisturbed one, and nothing else may
be there. Exits with 1 if anything else happens. Needs Linux and Python 3.9; strace (`apt install strace`) and root, for
small disks and read-only mounts, or it says what it leaves out. kill -9 is not a power cut: what the system has taken
from the program it still writes.
"""

import sys

# Nothing is left here either.
sys.dont_write_bytecode = True

import argparse
import collections
import os
import shutil
import tempfile
import time
from pathlib import Path

import faults
import kills
import pairs
from hub import Hub, shards
from scenarios import DIGITS, scenarios
from setting import Setting, Violation

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WAYS = ["kills", "operations", "errors", "limits", "pairs"]

#: The columns of the table: what was counted.
COLUMNS = {
    "kills": "kills at random moments",
    "at operations": "at an operation",
    "signals": "Ctrl-C, SIGTERM",
    "failing operations": "failing operations",
    "small files": "`ulimit -f`",
    "full disks": "full disks",
    "read-only folders": "read-only",
    "pairs": "pairs",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--rounds", type=int, default=100, help="of kills; a fifth of pairs and limits (default: 100)")
    parser.add_argument("--operations", type=int, default=40, help="of each kind at most (default: 40)")
    parser.add_argument("--only", default="", help="names of scenarios, separated by commas")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {','.join(WAYS)}")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats a run")
    parser.add_argument("--weights", type=Path, help="a full-size checkpoint to fold, pack and convert")
    parser.add_argument("--published", type=Path, help="the published qlnet-50-v0.pth.tar, to download it from here")
    parser.add_argument("--go-on", action="store_true", help="after a violation, with the next way")
    return parser.parse_args()


def inside_own_mounts():
    """Starts this again where mounts are its own and go with it. Returns whether it may mount."""
    if os.environ.get("TORTURE_INSIDE"):
        return True
    if os.geteuid() == 0 and shutil.which("unshare"):
        os.environ["TORTURE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])
    print("skipped: not root, so there are neither small disks nor read-only folders", file=sys.stderr)
    return False


class Report:
    """What was done, and what was found."""

    def __init__(self):
        self.rows = {}
        self.violations = []
        self.left = collections.defaultdict(set)

    def counter(self, name):
        counts = self.rows.setdefault(name, collections.Counter())

        def count(what, number=1):
            counts[what] += number

        return count

    def print(self, whats):
        used = [key for key in COLUMNS if any(counts[key] for counts in self.rows.values())]
        print(f"| what is written | {' | '.join(COLUMNS[key] for key in used)} | left until the next run |")
        print("|---|" + "---|" * (len(used) + 1))
        for name, counts in self.rows.items():
            if name not in whats:
                continue
            left = ", ".join(f"`{name}`" for name in sorted(self.left[name])) or "nothing"
            print(f"| {whats[name]} | {' | '.join(str(counts[key]) for key in used)} | {left} |")
        totals = collections.Counter()
        for counts in self.rows.values():
            totals.update(counts)
        print()
        print(", ".join(f"{what}: {number}" for what, number in totals.items()))
        print(f"violations: {len(self.violations)}")
        for violation in self.violations:
            print(f"* {violation}")


def main():
    args = arguments()
    may_mount, has_strace = inside_own_mounts(), kills.has_strace()
    if not has_strace:
        print("skipped: strace is missing, so nothing is done at operations on files", file=sys.stderr)
    print(f"seed {args.seed}", flush=True)
    report, ways = Report(), args.ways.split(",")
    with tempfile.TemporaryDirectory(prefix="torture-") as base:
        base = Path(base)
        # A user that is not root has to get there and to start the program.
        os.chmod(base, 0o755)
        program = shutil.copy(args.program, base / "qlnet")
        published = args.published.read_bytes() if args.published else None
        hub = Hub(shards(REPOSITORY / "samples/digits-held-out.tar", 4), published, args.seed)
        setting = Setting(program, base, hub.endpoint)
        checkpoint = (args.weights or REPOSITORY / "tests/fixtures/two-filters.pth.tar").resolve()
        checkpoint = shutil.copy(checkpoint, base / checkpoint.name)
        time.sleep(3.2)
        chosen = scenarios(REPOSITORY, base, Path(checkpoint), published)
        if args.only:
            chosen = [scenario for scenario in chosen if any(part in scenario.name for part in args.only.split(","))]
        for scenario in chosen:
            torture(setting, scenario, args, ways, report, may_mount, has_strace)
        if not args.only:
            special(setting, report, Path(checkpoint))
        whats = {scenario.name: scenario.what for scenario in chosen}
    report.print(whats)
    sys.exit(1 if report.violations else 0)


def torture(setting, scenario, args, ways, report, may_mount, has_strace):
    start = time.monotonic()
    count = report.counter(scenario.name)

    def attempt(wanted, work, *numbers):
        if not wanted:
            return None
        try:
            return work(setting, scenario, truth, *numbers, args.seed, count)
        except Violation as violation:
            report.violations.append(f"{scenario.name}: {violation}")
            print(f"violation: {report.violations[-1]}", flush=True)
            if not args.go_on:
                sys.exit(1)
        return None

    try:
        truth = kills.Truth(setting, scenario)
    except Violation as violation:
        report.violations.append(f"{scenario.name}: {violation}")
        print(f"violation: {report.violations[-1]}", flush=True)
        return
    fifth = max(args.rounds // 5, 1)
    for left in [
        attempt("kills" in ways, kills.at_random, args.rounds),
        attempt("operations" in ways and has_strace, kills.at_operations, args.operations),
    ]:
        report.left[scenario.name] |= left or set()
    attempt("errors" in ways and has_strace, faults.failing_operations, args.operations // 4)
    attempt("limits" in ways, faults.small_files, fifth)
    attempt("limits" in ways and may_mount, faults.full_disks, fifth)
    attempt("limits" in ways and may_mount and shutil.which("setpriv"), faults.read_only)
    attempt("pairs" in ways, pairs.at_once, fifth)
    seconds = time.monotonic() - start
    print(f"{scenario.name}: {truth.seconds:.2f} s undisturbed; {dict(report.rows[scenario.name])}, {seconds:.0f} s", flush=True)


def special(setting, report, checkpoint):
    """What is no scenario."""
    image = REPOSITORY / "samples/digits/3-45.png"
    count = report.counter("special")
    setting.fresh()
    classify = ["classify", image, image, image, "--weights", checkpoint]
    printing = [["--help"], ["--version"], ["classify", "--help"], ["completions", "bash"], ["models"], ["devices"]]
    printing += [["cache"], ["classify", image, *DIGITS], ["classify", image, *DIGITS, "--json"]]
    printing += [["eval", REPOSITORY / "samples/digits-held-out.tar", *DIGITS], ["symmetry", *DIGITS]]
    printing += [["bench", *DIGITS], ["classify", image, *DIGITS, "--csv"]]
    for work in [
        lambda: pairs.cut_while_in_use(setting, classify, 20, 1, count),
        lambda: pairs.full_standard_output(setting, printing, count),
    ]:
        try:
            work()
        except Violation as violation:
            report.violations.append(str(violation))


main()
