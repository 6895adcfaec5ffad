import numpy as np
import pytest
import torch
from PIL import Image

from lit_mbldm.pictures import grid, table


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def test_a_table_without_captions_is_a_grid_with_its_columns() -> None:
    images = torch.randint(0, 256, (2, 3, 3, 20, 30)).byte()
    assert torch.equal(pixels(table(images)), grid(images.flatten(0, 1), 3))


def test_captions_stand_beside_the_images_and_leave_them_alone() -> None:
    images = torch.randint(0, 256, (2, 3, 3, 64, 64)).byte()
    bare = pixels(table(images))
    sheet = pixels(table(images, ["argmax", "1"], ["t = 1000", "t = 500", "t = 0"]))
    height, width = bare.shape[1:]
    assert torch.equal(sheet[:, -height:, -width:], bare)
    rows, columns = sheet[:, -height:, :-width], sheet[:, :-height, -width:]
    for row in rows.split(height // 2, dim=1)[:2]:
        assert (row < 128).any()
    for column in columns.split(width // 3, dim=2)[:3]:
        assert (column < 128).any()
    assert (sheet[:, :-height, :-width] == 255).all()


def test_captions_for_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(torch.zeros(2, 1, 3, 8, 8).byte(), ["one"])
