from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mbldm.data.loading.crops import CropDataModule, Cropper
from lit_mbldm.errors import InputError

PHOTOS = Path(__file__).parents[2] / "lit_mbldm" / "data" / "photos"


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    gradient().save(tmp_path / "a.png")
    return str(tmp_path)


def epoch_of(folder: str, epoch: int = 0, **options) -> torch.Tensor:
    module = CropDataModule(folder, crop_size=8, batch_size=4, crops_per_epoch=32, **options)
    module.setup("fit")
    loader = module.train_dataloader()
    loader.epoch = lambda: epoch
    batches = [batch["images"] for batch in loader]
    assert len(batches) == len(loader) == 8
    return torch.cat(batches)


def test_crops_are_pieces_of_the_photograph_or_its_mirror_image(folder) -> None:
    flipped = 0
    for crop in epoch_of(folder):
        assert crop.dtype == torch.uint8
        x, y = int(crop[0].min()), int(crop[1].min())
        piece = torch.from_numpy(np.array(gradient())[y : y + 8, x : x + 8]).permute(2, 0, 1)
        mirrored = torch.equal(crop, piece.flip(-1))
        assert mirrored or torch.equal(crop, piece)
        flipped += mirrored
    assert 6 <= flipped <= 26


def test_crops_are_decided_by_seed_epoch_and_index(folder) -> None:
    first = epoch_of(folder, epoch=1, seed=2)
    assert torch.equal(first, epoch_of(folder, epoch=1, seed=2))
    assert torch.equal(first, epoch_of(folder, epoch=1, seed=2, num_workers=2))
    assert not torch.equal(first, epoch_of(folder, epoch=2, seed=2))
    assert not torch.equal(first, epoch_of(folder, epoch=1, seed=3))
    module = CropDataModule(folder, crop_size=8, batch_size=16)
    module.setup("validate")
    first, again = (torch.cat([b["images"] for b in module.val_dataloader()]) for _ in range(2))
    assert len(first) == 64
    assert torch.equal(first, again)


def test_zoom_covers_more_and_crops_begin_on_the_stride() -> None:
    def spans(zoom_out: float) -> list[int]:
        cropper = Cropper([gradient()], 8, zoom_out, 1, False, 0)
        crops = [cropper(0, index)[0] for index in range(50)]
        return [int(crop.max()) - int(crop.min()) for crop in crops]

    assert set(spans(1.0)) == {7}
    assert all(24 < span < 32 for span in spans(4.0))
    cropper = Cropper([gradient()], 8, 1.0, 4, False, 0)
    corners = {tuple(cropper(0, i)[:2, 0, 0].tolist()) for i in range(40)}
    assert all(x % 4 == y % 4 == 0 for x, y in corners)
    assert len(corners) > 3


def test_the_photographs_in_the_package_are_read_and_named() -> None:
    module = CropDataModule(batch_size=8, crops_per_epoch=8)
    module.setup("fit")
    assert next(iter(module.train_dataloader()))["images"].shape == (8, 3, 96, 96)
    files = list(PHOTOS.glob("*.jpg"))
    sources = (PHOTOS / "SOURCES.md").read_text()
    assert len(files) >= 4
    assert all(path.name in sources for path in files)


def test_photographs_must_be_there_and_hold_what_a_crop_covers(folder, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for name, size, zoom_out, message in [
        (folder, 16, 3.0, "48×48"),
        (folder, 41, 1.0, r"a\.png has 60×40"),
        (str(tmp_path / "empty"), 8, 1.0, "found none"),
        (str(tmp_path / "nowhere"), 8, 1.0, "No such"),
    ]:
        with pytest.raises(InputError, match=message):
            CropDataModule(name, crop_size=size, zoom_out=zoom_out).setup("fit")
    module = CropDataModule(folder, crop_size=8, batch_size=64, crops_per_epoch=63)
    module.setup("fit")
    with pytest.raises(InputError, match="crops_per_epoch"):
        module.train_dataloader()
