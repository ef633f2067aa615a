//! Every command and every option of them, as they are run under strace.

/// A command line, and what may come of it.
pub struct Case {
    /// Arguments, with single spaces between them.
    pub line: &'static str,
    /// Files that it writes, or would without an error, below the folder where it runs; of those that end with `/`,
    /// files in a folder.
    pub outputs: &'static [&'static str],
    /// Its exit code.
    pub code: i32,
    /// Variables beside the usual ones; without a value, removed.
    pub variables: &'static [(&'static str, Option<&'static str>)],
}

const fn case(line: &'static str, outputs: &'static [&'static str]) -> Case {
    Case { line, outputs, code: 0, variables: &[] }
}

/// A run that fails, and leaves nothing of its outputs.
const fn fails(line: &'static str, outputs: &'static [&'static str]) -> Case {
    Case { line, outputs, code: 1, variables: &[] }
}

/// In this order: some take what those before them wrote. `given/` holds what a user has: a digit, folders and lists
/// of digits, weights.
pub const CASES: &[Case] = &[
    // classify
    case(
        "classify given/3.png given/val --top-k 3 --batch-size 4 --threads 2 --device cpu --dtype f32 --model qlnet-digits",
        &[],
    ),
    case("classify given/3.png --weights given/weights.pth --json --header -v", &[]),
    case("classify given/3.png --weights given/weights.pth --csv --dtype int8 -v", &[]),
    case("classify given/3.png --weights given/weights.pth --dtype bf16 -q --color always", &[]),
    case("classify given/3.png --model qlnet-digits --explain out/maps --strict --max-pixels 1000000", &["out/maps/"]),
    case("classify given/val --model qlnet-digits --report out/sheet.html", &["out/sheet.html"]),
    case("classify --image-list given/list --null --no-exif --model qlnet-digits --preprocess notebook", &[]),
    case("classify - --model qlnet-digits --resize 40 --interpolation bilinear --crop 32", &[]),
    fails("classify given/3.png given/text.png --model qlnet-digits -v", &[]),
    fails("classify given/3.png --weights given/text.png -v", &[]),
    fails("classify given/3.png --model qlnet-digits --device cpu --tf32", &[]),
    fails("classify given/3.png --model qlnet-digits --report nowhere/sheet.html", &["nowhere/sheet.html"]),
    // features
    case(
        "features given/val --out out/f.npy --model qlnet-digits --batch-size 4 --threads 2 --device cpu --dtype f32",
        &["out/f.npy", "out/f.paths.jsonl"],
    ),
    case(
        "features given/val --out out/f.safetensors --weights given/weights.pth --layer layer3 --strict",
        &["out/f.safetensors"],
    ),
    case(
        "features --image-list given/list -0 --out out/f.csv --model qlnet-digits --unpooled --no-exif --max-pixels 1000000",
        &["out/f.csv"],
    ),
    case(
        "features given/3.png --out out/g.npy --model qlnet-digits --preprocess notebook --resize 40 --interpolation bilinear --crop 32",
        &["out/g.npy", "out/g.paths.jsonl"],
    ),
    fails(
        "features given/3.png --out out/h.npy --model qlnet-digits --tf32 --device cpu",
        &["out/h.npy", "out/h.paths.jsonl"],
    ),
    fails("features given/text.png --out out/i.npy --model qlnet-digits", &["out/i.npy", "out/i.paths.jsonl"]),
    // eval
    case(
        "eval given/val --model qlnet-digits --predictions out/a.csv --per-class out/c.csv --report out/r.html --threads 2 --device cpu --dtype f32 --batch-size 8 --workers 2",
        &["out/a.csv", "out/c.csv", "out/r.html"],
    ),
    case(
        "eval --imagenet-val given/val --imagenet-val given/few --restrict-to-present --model qlnet-digits --predictions out/b.csv",
        &["out/b.val.csv", "out/b.few.csv"],
    ),
    case("eval given/val --model qlnet-digits --resume out/d.csv --shard 1/2 --json", &["out/d.csv"]),
    case("eval given/val --model qlnet-digits --resume out/d.csv --shard 1/2 -v", &["out/d.csv"]),
    case("eval given/val --model qlnet-digits --predictions out/e.jsonl --shard 2/2", &["out/e.jsonl"]),
    case("eval given/val --model qlnet-digits --predictions out/f.csv --shard 2/2", &["out/f.csv"]),
    case("eval --merge out/d.csv out/f.csv --imagenet-val given/val --report out/merged.html", &["out/merged.html"]),
    case("eval --compare out/a.csv out/g.csv --json", &[]),
    case(
        "eval --compare out/a.csv out/g.csv --imagenet-val given/val --report out/compared.html",
        &["out/compared.html"],
    ),
    case(
        "eval given/flat --labels given/labels.txt --zero-based --real-labels given/real.json --limit 5 --model qlnet-digits",
        &[],
    ),
    case(
        "eval given/val --class-map given/map.txt --valid-labels given/valid.txt --sample 5 --seed 3 --model qlnet-digits",
        &[],
    ),
    case("eval given/parquet --split train --input-key image --target-key label --model qlnet-digits --limit 3", &[]),
    case("eval given/shards --weights given/weights.pth --class-map given/zeros.txt --skip-errors --limit 3", &[]),
    case(
        "eval given/val.tar --limit 3 --model qlnet-digits --strict --max-pixels 1000000 --preprocess notebook --resize 40 --interpolation bilinear --crop 32",
        &[],
    ),
    fails("eval given/val --model qlnet-digits --tf32 --device cpu --predictions out/j.csv", &["out/j.csv"]),
    fails("eval given/nowhere --model qlnet-digits --predictions out/k.csv", &["out/k.csv"]),
    // symmetry
    case("symmetry --model qlnet-digits --seed 2 --threads 2 --device cpu --dtype f32 --json", &[]),
    case(
        "symmetry --model qlnet-digits --family product-balance,product-scale --layer 2 --scale 0.5 --image given/3.png",
        &[],
    ),
    case(
        "symmetry --model qlnet-digits --path 2 --plot out/path.svg --report out/path.html --csv out/path.csv",
        &["out/path.svg", "out/path.html", "out/path.csv"],
    ),
    case("symmetry --model qlnet-digits --path 2 --plot out/path.png", &["out/path.png"]),
    case(
        "symmetry --model qlnet-digits --untrained --save out/s.safetensors --save-state-dict out/t.safetensors",
        &["out/s.safetensors", "out/t.safetensors"],
    ),
    case("symmetry --weights given/weights.pth --balance", &[]),
    case("symmetry --model qlnet-digits --quantise", &[]),
    case("symmetry --audit", &[]),
    fails("symmetry --model qlnet-digits --tf32 --device cpu --save out/u.safetensors", &["out/u.safetensors"]),
    // bench
    case(
        "bench --model qlnet-digits --batch-size 1 --input-size 16 --warmup 1 --repetitions 1 --duration 0 --threads 2 --device cpu --dtype f32 --json",
        &[],
    ),
    case("bench --weights given/weights.pth --layers --batch-size 1 --duration 0 --repetitions 1", &[]),
    case(
        "bench --data given/parquet --split train --input-key image --target-key label --model qlnet-digits --duration 0",
        &[],
    ),
    fails("bench --model qlnet-digits --tf32 --device cpu", &[]),
    // convert
    case("convert given/weights.pth out/w.safetensors --folded", &["out/w.safetensors"]),
    case("convert given/weights.pth out/x.safetensors --dtype f16", &["out/x.safetensors"]),
    fails("convert given/text.png out/y.safetensors", &["out/y.safetensors"]),
    // What is known, what computes, what is kept
    case("models", &[]),
    case("models --json -v", &[]),
    case("devices", &[]),
    case("devices --json -v", &[]),
    case("cache", &[]),
    case("cache --json -v", &[]),
    case("cache --prune --dry-run", &[]),
    case("cache --prune", &[]),
    case("completions bash", &[]),
    case("completions zsh", &[]),
    case("completions fish", &[]),
    case("completions powershell", &[]),
    case("completions elvish", &[]),
    case("man out/man", &["out/man/"]),
    // What is refused at once
    Case { line: "clasify", outputs: &[], code: 2, variables: &[] },
    Case { line: "classify --what", outputs: &[], code: 2, variables: &[] },
    case("--version", &[]),
    // Not even a name is looked up.
    offline("classify given/3.png -v", &[]),
    offline("convert qlnet-50-v0 out/z.safetensors", &["out/z.safetensors"]),
    offline("eval hf:timm/imagenet-1k-wds --predictions out/l.csv", &["out/l.csv"]),
    offline("bench", &[]),
    offline("symmetry", &[]),
    // Without its own variable the cache is where caches are.
    Case {
        line: "classify given/3.png --weights given/weights.pth",
        outputs: &["home/.cache/qlnet/"],
        code: 0,
        variables: &[("QLNET_CACHE", None)],
    },
    Case {
        line: "classify given/3.png --weights given/weights.pth",
        outputs: &["xdg/qlnet/"],
        code: 0,
        variables: &[("QLNET_CACHE", None), ("XDG_CACHE_HOME", Some("xdg"))],
    },
];

/// A run that would need a download, and may not.
const fn offline(line: &'static str, outputs: &'static [&'static str]) -> Case {
    Case { line, outputs, code: 1, variables: &[("HF_HUB_OFFLINE", Some("1")), ("HF_ENDPOINT", None)] }
}
