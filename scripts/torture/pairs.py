"""Two processes at once, and files that change under a process."""

import random
import re
import time

from kills import begin
from setting import Violation, check_same, check_words


def at_once(setting, scenario, truth, pairs, seed, count):
    """Starts two processes one shortly after the other. Both succeed; or one says that the other writes the file, and
    then it is the other's."""
    for pair in range(pairs):
        rng = random.Random(f"{seed} {scenario.name} pair {pair}")
        try:
            begin(setting, scenario)
            first = setting.start(scenario.command(rng.randint(1, 40)), threads=rng.randint(1, 2))
            time.sleep(rng.random() * truth.seconds * 0.9)
            second = setting.start(scenario.command(rng.randint(1, 40), first=False), threads=rng.randint(1, 2))
            ends = [setting.finish(first), setting.finish(second)]
            count("pairs")
            for code, errors in ends:
                check_words(code, errors, (0, 1) if scenario.refusal else (0,))
                if code == 1 and scenario.refusal not in errors:
                    raise Violation(f"another reason than expected: {errors}")
                count("refused", code == 1)
            if all(code == 1 for code, _ in ends):
                raise Violation("both refuse")
            check_same(setting.contents(), truth.contents, scenario.optional)
        except Violation as violation:
            raise Violation(f"pair {pair} of seed {seed}: {violation}") from None


def cut_while_in_use(setting, command, rounds, seed, count):
    """Cuts packed weights short while a process has them mapped: one line, and the next run is whole."""
    for round in range(rounds):
        rng = random.Random(f"{seed} cut {round}")
        process = setting.start(command)
        time.sleep(rng.random() * 0.4)
        for packed in (setting.home / "qlnet").glob("*.packed"):
            packed.open("r+b").truncate(rng.randint(0, packed.stat().st_size))
        code, errors = setting.finish(process)
        count("cut")
        count("lost", code == 1)
        check_words(code, errors)
        code, errors = setting.run(command)
        if code != 0:
            raise Violation(f"after packed weights were cut: {errors}")


def full_standard_output(setting, commands, count):
    """Standard output that takes nothing is an error."""
    for command in commands:
        with open("/dev/full", "w") as full:
            code, errors = setting.run(command, stdout=full)
        count("full output")
        check_words(code, errors)
        if code != 1 or not re.search("standard output|No space", errors):
            raise Violation(f"{command}: exit code {code} where nothing can be printed: {errors}")
