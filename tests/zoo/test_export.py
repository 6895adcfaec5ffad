"""From a checkpoint to a folder that can be pushed, and what people change there."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from entries import FILES, KINDS, REFINED, REPO, assert_same, train
from loopback_hub import Hub
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from lit_mbldm.cli import main
from lit_mbldm.entries.about import About, Figure
from lit_mbldm.entries.entry import indexed_codes, save_entry, use_index
from lit_mbldm.entries.tree import network_tensors
from lit_mbldm.errors import InputError
from lit_mbldm.hub.export import export, whole_entry
from lit_mbldm.training import SampleOptions
from lit_mbldm.zoo import load_pretrained, push_pretrained

FACTS: dict[str, Any] = {
    "license": "cc0-1.0",
    "data": "org/shirts",
    "terms": "CC0",
    "figures": (Figure("FID", 12.5, "500 samples", "lightning test"),),
    "sampling": {"steps": 3, "temperature": 0.5},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    model = tiny.categorical()
    model.training_config = {"data": {"class_path": "Shirts"}}
    train(model, path)
    return path


def test_a_checkpoint_becomes_a_folder_with_all_facts(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "entry"
    export(checkpoint, folder, FACTS)
    assert set(tiny.names(folder)) == FILES
    module = load_pretrained(folder)
    expected = load_pretrained(checkpoint)
    expected.sampling = SampleOptions(**FACTS["sampling"])
    assert_same(module, expected)
    config = {"data": {"class_path": "Shirts"}}
    assert module.about == About(**FACTS, config=config, steps=2)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for fact in ("cc0-1.0", "org/shirts", "| FID | 12.5 | 500 samples", "class_path: Shirts"):
        assert fact in card
    assert "model.sample(16, seed=0, steps=3, temperature=0.5)" in card
    sheet = Image.open(folder / "samples.png").convert("RGB")
    left = sheet.width - 6 * 10  # of six samples at the right; the codec's photographs follow
    assert sheet.height > 6 * 10 + 2
    first = module.sample(16, seed=0, steps=3, temperature=0.5)[0]
    assert sheet.crop((left, 2, left + 8, 10)).tobytes() == first.permute(1, 2, 0).numpy().tobytes()


def test_a_refiner_goes_into_the_folder(
    checkpoint: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "entry"
    export(checkpoint, folder, FACTS, refiner=folders["refiner"])
    assert set(tiny.names(folder)) == REFINED
    assert_same(load_pretrained(folder).refiner, load_pretrained(folders["refiner"]))
    with pytest.raises(InputError, match="no samples to refine"):
        export(folders["codec"], tmp_path / "codec", {}, refiner=folders["refiner"])
    save_entry(tiny.refiner(codec_seed=9), tmp_path / "other")
    with pytest.raises(InputError, match="another codec"):
        export(checkpoint, tmp_path / "unfit", FACTS, refiner=tmp_path / "other")
    assert not (tmp_path / "codec").exists()
    assert not (tmp_path / "unfit").exists()


def test_codes_of_training_images_go_with_the_entry(
    hub: Hub, checkpoint: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    main(["shards", f"{tmp_path}/images", f"{tmp_path}/shards", "--size", "8"])
    folder = tmp_path / "entry"
    export(checkpoint, folder, {}, index=str(tmp_path / "shards"))
    assert set(tiny.names(folder)) == FILES | {"training.safetensors"}
    assert "the codes of 5 are in" in (folder / "README.md").read_text(encoding="utf-8")
    model = load_pretrained(folder)
    expected = model.codec.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    found = indexed_codes(model)
    assert found is not None
    same = (found[:, None] == expected).flatten(2).float().mean(2)  # but for what JPEG changed
    assert len(found) == 5
    assert (same.max(1).values > 0.8).all()
    push_pretrained(folder, REPO)
    again = indexed_codes(load_pretrained(REPO))
    assert again is not None
    assert torch.equal(again, found)
    (folder / "training.safetensors").write_bytes(b"others")
    with pytest.raises(InputError, match=r"training\.safetensors is damaged"):
        load_pretrained(folder)
    with pytest.raises(InputError, match="Samples need a diffusion model"):
        export(folders["codec"], tmp_path / "codec", {}, index=str(tmp_path / "shards"))
    with pytest.raises(InputError, match=r"of two training images or more.*got \(5, 1, 1, 1\)"):
        use_index(model, expected[:, :1, :1, :1])


@pytest.mark.parametrize("name", ["implicit", "decoder", "binary", "scalar", "upscaler"])
def test_half_keeps_networks_in_float16_and_codes_as_they_are(name: str, tmp_path: Path) -> None:
    module = tiny.MAKERS[name]()
    for _, weights in network_tensors(module):
        weights.data += 1e-3  # which float16 rounds
    save_entry(module, tmp_path / "whole")
    export(tmp_path / "whole", tmp_path / "half", {}, half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    networks = {name for name, _ in network_tensors(module)}
    assert {n for n, v in stored.items() if v.dtype == torch.float16} == networks
    loaded = load_pretrained(tmp_path / "half")
    for key, value in module.state_dict().items():
        expected = value.half().float() if key in networks else value
        assert torch.equal(loaded.state_dict()[key], expected)


def test_nothing_is_overwritten_or_left_half_done(
    checkpoint: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    before = tiny.contents(folders["codec"])
    with pytest.raises(InputError, match="already holds"):
        export(checkpoint, folders["codec"], FACTS)
    assert tiny.contents(folders["codec"]) == before
    for sampling in ({"steps": 1000}, {"steps": 3, "temperature": -1.0}, {"stairs": 3}):
        with pytest.raises(InputError):
            export(checkpoint, tmp_path / "entry", {"sampling": sampling})
        assert not (tmp_path / "entry").exists()
    with pytest.raises(InputError, match="steps: options of sampling suit a diffusion model"):
        export("jpq-48", tmp_path / "entry", {"sampling": {"steps": 3}})


def test_a_card_and_a_picture_made_by_hand_are_pushed_as_they_are(
    hub: Hub, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "entry"
    export(checkpoint, folder, FACTS)
    card = "---\nlicense: mit\nlibrary_name: lit_mbldm\n---\n\n# Shirts\r\n\nBy me, Ω.\n".encode()
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(stream, "PNG")
    (folder / "README.md").write_bytes(card)
    (folder / "samples.png").write_bytes(stream.getvalue())
    push_pretrained(folder, REPO)
    files = hub.files(REPO)
    assert files["README.md"] == card
    assert files["samples.png"] == stream.getvalue()
    loaded = load_pretrained(REPO)
    assert loaded.about.license == "cc0-1.0"  # what was stated, whatever the card says
    (folder / "README.md").write_bytes("# Chemises de l'été".encode("latin-1"))
    with pytest.raises(InputError, match=r"README\.md must be a text in UTF-8"):
        push_pretrained(folder, REPO)


def test_half_rounds_the_weights_and_halves_their_file(tmp_path: Path) -> None:
    made = tiny.continuous()
    for parameter in made.parameters():
        parameter.data = torch.rand(parameter.shape)
    save_entry(made, tmp_path / "whole")
    export(tmp_path / "whole", tmp_path / "half", {}, half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.75 * sizes[0]
    whole, half = (load_pretrained(tmp_path / name) for name in ("whole", "half"))
    rounded = {name: p.half().float() for name, p in whole.named_parameters()}
    found = dict(half.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in rounded.items())
    assert half.codec.fingerprint == whole.codec.fingerprint
    assert whole_entry(half, tmp_path / "half").keys() == whole_entry(half).keys()
    assert (
        whole_entry(half)["model.safetensors"]
        == (tmp_path / "half" / "model.safetensors").read_bytes()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_module_makes_the_same_files(modules: dict[str, nn.Module], kind: str) -> None:
    """So that pushing it again is no commit."""
    torch.manual_seed(0)
    first = whole_entry(modules[kind])
    torch.manual_seed(1)
    assert whole_entry(modules[kind]) == first
    picture = Image.open(io.BytesIO(first["samples.png"]))
    assert picture.mode == "RGB"
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10
