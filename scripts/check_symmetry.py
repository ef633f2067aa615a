"""Shows with PyTorch that moved weights are the same network.

    pip install torch numpy safetensors
    cargo build --release
    python scripts/check_symmetry.py                      qlnet-digits, which is built in
    python scripts/check_symmetry.py --weights FILE       a checkpoint of your own

`qlnet symmetry --save-state-dict` moves the weights by a random element of every family at once and saves
them in the layout of the original checkpoint. Here they are loaded into the PyTorch class
(reference/qlnet.py, which has the names and shapes of the published checkpoints), strictly, and the
logits are compared with those of the original on random images. The exit code is 1 if they differ.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "reference"))

from qlnet import QLNet, from_file  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--qlnet", type=Path, default=ROOT / "target" / "release" / "qlnet")
    args = parser.parse_args()
    original = from_file(args.weights or ROOT / "models" / "qlnet-digits.safetensors")
    model = ["--weights", args.weights] if args.weights else ["--model", "qlnet-digits"]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "moved.safetensors"
        command = [args.qlnet, "symmetry", "--seed", args.seed, *model, "--save-state-dict", file]
        subprocess.run([str(part) for part in command], check=True)
        state = load_file(file)

    moved = QLNet(original.config).eval()
    print(f"\n{moved.load_state_dict(state, strict=True)}, {len(state)} tensors")
    for name, value in original.state_dict().items():
        assert state[name].shape == value.shape and state[name].dtype == value.dtype, name

    torch.manual_seed(args.seed)
    size = 224 if original.config.classes > 10 else 64
    images = torch.randn(4, 3, size, size)
    passed = True
    # The moved weights were rounded to float32: that is what is left in float64.
    for dtype, most in [(torch.float32, 2e-5), (torch.float64, 2e-5)]:
        with torch.no_grad():
            a, b = original.to(dtype)(images.to(dtype)), moved.to(dtype)(images.to(dtype))
        change, largest = (a - b).abs().max().item(), a.abs().max().item()
        passed &= change <= most * largest
        print(f"{str(dtype):14}  largest logit {largest:.4f}, largest change {change:.1e} ({change / largest:.1e} of it)")

    print("the same network" if passed else "ANOTHER NETWORK")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
