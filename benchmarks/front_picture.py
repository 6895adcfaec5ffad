"""The README's picture: a photograph, what the codec keeps of it, and land that a model drew.

python benchmarks/front_picture.py docs/front.png
"""

import argparse
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from lit_mbldm.images import load_rgb
from lit_mbldm.pictures import check_path, save, table, to_tensor
from lit_mbldm.zoo import load_pretrained

SIDE = 256
LEFT, TOP = 118, 0  # of the square of the photograph that is shown


def mosaic(images: Tensor, columns: int) -> Tensor:
    """Lay images (N, 3, H, W) out without gaps: (3, N/columns·H, columns·W)."""
    rows = images.unflatten(0, (-1, columns))  # (R, C, 3, H, W)
    return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG to write")
    options = parser.parse_args()
    check_path(options.out)
    file = resources.files("lit_mbldm.data") / "photos" / "chelsea.jpg"
    photo = to_tensor(load_rgb(file.read_bytes()))[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    codec = load_pretrained("jpq-48+decoder")
    codes = codec.encode(photo[None])
    land = load_pretrained("eurosat-64").sample(16, seed=0)
    panels = {
        "photograph": photo,
        f"codec, {codec.bits_per_pixel} bits a pixel": codec.decode(codes, plain=True)[0],
        "codec + learned decoder": codec.decode(codes)[0],
        "drawn by eurosat-64": mosaic(land, 4),
    }
    save(table(torch.stack(list(panels.values()))[None], columns=list(panels)), options.out)


if __name__ == "__main__":
    main()
