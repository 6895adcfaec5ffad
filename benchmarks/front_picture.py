"""The README's pictures: what models drew, and what a codec keeps of a photograph.

python benchmarks/front_picture.py docs/front.png docs/photograph.png
"""

import argparse
from importlib import resources
from pathlib import Path

import torch

from lit_mbldm.images import load_rgb
from lit_mbldm.pictures import check_path, grid, save, stacked, table, to_pil, to_tensor
from lit_mbldm.zoo import load_pretrained

FRUITS, LAND = 12, 18  # a row
WALKS = [("Kiwi", "Tomato 1"), ("Apple Granny Smith", "Orange")]
SIDE = 256
LEFT, TOP = 118, 0  # of the square of the photograph that is shown


def draw_samples(out: Path) -> None:
    """Draw three rows of fruit, of kinds all over, two from kind to kind, and two of land."""
    model, count = load_pretrained("fruit-96"), 3 * FRUITS
    kinds = len(model.class_names)
    label = [number * kinds // count for number in range(count)]
    fruits = [model.sample(count, label=label, seed=0, progress=True)]
    fruits += [model.interpolate(a, b, FRUITS, between="labels", seed=0) for a, b in WALKS]
    land = load_pretrained("eurosat-64").sample(2 * LAND, seed=0, progress=True)
    save(to_pil(stacked([*(grid(rows, FRUITS) for rows in fruits), grid(land, LAND)])), out)


def draw_photograph(out: Path) -> None:
    """Draw a photograph, and what codecs keep of it."""
    file = resources.files("lit_mbldm.data") / "photos" / "chelsea.jpg"
    photo = to_tensor(load_rgb(file.read_bytes()))[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    codec = load_pretrained("jpq-48+decoder")
    codes = codec.encode(photo[None])
    panels = {
        "photograph": photo,
        f"jpq-48, {codec.bits_per_pixel} bits a pixel": codec.decode(codes, plain=True)[0],
        "with learned decoder": codec.decode(codes)[0],
    }
    save(table(torch.stack(list(panels.values()))[None], columns=list(panels)), out)


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path, help="PNG to write: samples")
    parser.add_argument("photograph", type=Path, help="PNG to write: a photograph and its codes")
    options = parser.parse_args()
    for path in vars(options).values():
        check_path(path)
    draw_samples(options.samples)
    draw_photograph(options.photograph)


if __name__ == "__main__":
    main()
