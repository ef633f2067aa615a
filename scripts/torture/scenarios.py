"""What is run: each file that the program writes is in one of these."""

import dataclasses
import shutil
import tarfile
import time
from typing import Callable

DIGITS = ["--model", "qlnet-digits"]

#: Records of hashes are written where a file has been as it is for three seconds: that depends on how fast all is.
RECORDS = "home/qlnet/*.hash"

#: Folded weights, which nobody reads once they are packed; what the hub said, which is for those who are offline.
FOLDED = ("home/qlnet/*.v1.safetensors",)
LISTED = ("home/hf/hub/*/refs/*", "home/hf/hub/*/trees/*")


@dataclasses.dataclass
class Scenario:
    name: str
    #: What is written.
    what: str
    #: The command, for a size of batches; and that which goes on after a kill, if it is another.
    first: Callable
    again: Callable | None = None
    #: Files of `out` that may be there before. They have to stay whole until they are replaced whole.
    old: tuple = ()
    #: How many kills in a row there may be.
    kills: int = 1
    #: Files that need not be there, or be the same.
    optional: tuple = (RECORDS,)
    #: Files that are not needed any more once others are there: they may be missing after an error.
    may_lack: tuple = ()
    #: Makes the folders ready before each run, where they need to be more than empty.
    prepare: Callable | None = None
    #: What the caches are to the program: without them it works as well.
    caches_are_needed: bool = False
    #: What one of two processes at once may say and end with exit code 1.
    refusal: str | None = None

    def command(self, batch, first=True):
        return (self.first if first or self.again is None else self.again)(batch)


def scenarios(repository, base, checkpoint, published):
    """All of them. `checkpoint` is a file of weights, full-size or not; `published` whether the hub has the weights of
    qlnet-50-v0."""
    held_out = repository / "samples/digits-held-out.tar"
    images, many = base / "images", base / "many"
    with tarfile.open(held_out) as archive:
        archive.extractall(images, filter="data")
    # Four times as many, which take longer.
    for copy in range(4):
        for image in images.rglob("*.png"):
            folder = many / image.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / f"{copy}-{image.name}")
    first, few = sorted(images.rglob("*.png"))[0], repository / "samples/digits"
    small = repository / "tests/fixtures/two-filters.pth.tar"

    def features(form, *beside):
        def command(batch):
            return ["features", images, *DIGITS, "--batch-size", batch, "--out", f"f.{form}"]

        return Scenario(f"features-{form}", f"`features --out f.{form}`", command, old=(f"f.{form}", *beside))

    def evaluate(form):
        def command(option):
            return lambda batch: ["eval", many, *DIGITS, "--batch-size", batch, option, f"p.{form}"]

        return Scenario(
            f"resume-{form}",
            f"`eval --predictions p.{form}`, then `--resume`",
            command("--predictions"),
            command("--resume"),
            kills=4,
            refusal="is being written by another process",
        )

    def symmetry(name, what, *args, old):
        return Scenario(name, what, lambda _: ["symmetry", "--seed", "3", *DIGITS, *args], old=old)

    def classify(weights, *args):
        return lambda _: ["classify", first, "--weights", weights, *args]

    with_files = [
        Scenario(
            "dataset",
            "download of a data set (`hf:OWNER/NAME`)",
            lambda batch: ["eval", "hf:torture/digits", *DIGITS, "--batch-size", batch],
            kills=4,
            may_lack=LISTED,
            caches_are_needed=True,
        ),
        Scenario("fold", "folded and packed weights in the cache", classify(checkpoint), optional=(), may_lack=FOLDED),
        Scenario(
            "int8",
            "weights packed for int8",
            classify(checkpoint, "--dtype", "int8"),
            optional=(),
            may_lack=FOLDED,
        ),
        Scenario(
            "records",
            "records of hashes",
            classify(small),
            optional=(),
            prepare=settled(base / "settled", classify(small)),
        ),
        evaluate("csv"),
        evaluate("jsonl"),
        Scenario(
            "report",
            "`eval --report --per-class`",
            lambda batch: ["eval", images, *DIGITS, "--batch-size", batch, "--report", "r.html", "--per-class", "c.csv"],
            old=("r.html", "c.csv"),
        ),
        Scenario(
            "classify",
            "`classify --report --explain`",
            lambda batch: ["classify", few, *DIGITS, "--batch-size", batch, "--report", "k.html", "--explain", "m"],
            old=("k.html",),
        ),
        features("npy", "f.paths.jsonl"),
        features("safetensors"),
        features("csv"),
        Scenario("convert", "`convert`", lambda _: ["convert", checkpoint, "w.safetensors"], old=("w.safetensors",)),
        symmetry(
            "save",
            "`symmetry --save --save-state-dict`",
            *["--save", "s.safetensors", "--save-state-dict", "d.safetensors"],
            old=("s.safetensors", "d.safetensors"),
        ),
        symmetry(
            "path",
            "`symmetry --path --report --plot --csv`",
            *["--path", "6", "--report", "y.html", "--plot", "y.svg", "--csv", "y.csv"],
            old=("y.html", "y.svg", "y.csv"),
        ),
        symmetry("quantise", "`symmetry --quantise --save`", "--quantise", "--save", "q.safetensors", old=("q.safetensors",)),
        symmetry("balance", "`symmetry --balance --save`", "--balance", "--save", "b.safetensors", old=("b.safetensors",)),
        Scenario("man", "`man DIR`", lambda _: ["man", "pages"]),
    ]
    if published:
        download = Scenario(
            "weights",
            "download of `qlnet-50-v0`",
            lambda _: ["convert", "qlnet-50-v0", "w.safetensors"],
            kills=4,
            caches_are_needed=True,
        )
        with_files.insert(0, download)
    return with_files


def settled(folder, command):
    """A cache whose files have been as they are for so long that their hashes are remembered, and are not yet."""

    def prepare(setting):
        if prepare.made:
            setting.home.rename(folder)
        else:
            setting.fresh()
            code, errors = setting.run(command(1))
            assert code == 0, errors
            setting.home.rename(folder)
            time.sleep(3.2)
            prepare.made = True
        # Moved there: a copy would be a new file.
        setting.fresh()
        setting.home.rmdir()
        folder.rename(setting.home)
        for kept in (setting.home / "qlnet").iterdir():
            if kept.suffix in (".hash", ".tmp"):
                kept.unlink()

    prepare.made = False
    return prepare
