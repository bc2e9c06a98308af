"""Train the classifier whose features stand in for Inception's, and write it to a folder.

    python experiments/train_extractor.py --dataset digits --out gan/extractors

The project ships what this wrote for the digits and for its JPEG CIFAR-10, also at 16 pixels
(--key cifar10_16px). Any other data set gets its extractor in its first run; there is no need to
call this for it.
"""

import sys
import time
from pathlib import Path

from experiments.run import output
from forgetting import data
from forgetting.errors import UserError
from forgetting.files import write_atomically
from gan.extractor import read_extractor, train_extractor


def main() -> None:
    example = ("--dataset", "digits", "--out", "my_extractors")
    parser = output.parser("Train what stands in for Inception.", *example)
    parser.add_argument("--dataset", required=True, choices=["digits", "cifar10", "image_folder"])
    parser.add_argument("--root", default="data", help="where the data is")
    parser.add_argument("--size", type=int, choices=data.SIZES, help="side in pixels")
    parser.add_argument("--label", help="what the data is called")
    parser.add_argument("--key", help="<key>_cnn names extractor and file (default: the data set)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    options = parser.parse_args()
    try:
        dataset = data.load(options.dataset, options.root, options.size, options.label)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    key = options.key or options.dataset
    started = time.monotonic()
    content = train_extractor(f"{key}_cnn", dataset, flip=options.dataset != "digits")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{key}.pt"
    write_atomically(path, content)
    extractor = read_extractor(path)
    print(
        f"{path}: {dataset.label}, test accuracy {extractor.test_accuracy:.3f}, "
        f"sha256 {extractor.sha256}..., {len(content):,} bytes, "
        f"{time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    output.command(main)
