import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG, WEIGHTS, change, read, rehash

from lit_mbldm.entries.entry import read_files, save_entry
from lit_mbldm.entries.entry_config import DamagedError
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained

REMEDY = "Fetch or write the entry again"
REEXPORT = "Export it again, or ask its owner to"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entries")
    for name, make in tiny.MAKERS.items():
        save_entry(make(), folder / name)
    return folder


@pytest.fixture
def entry(saved: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of the entries, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(saved / name, tmp_path / name))

    return copy


def refuse(folder: Path, *words: str) -> InputError:
    """Fail unless loading ends with an error that names the folder and has these words."""
    with pytest.raises(InputError) as caught:
        load_pretrained(folder)
    text = str(caught.value)
    for word in (str(folder), *words):
        assert word in text, (word, text)
    assert len(text) < 1500
    return caught.value


Entry = Callable[[str], Path]


def test_a_flipped_bit_anywhere_is_noticed(entry: Entry) -> None:
    folder = entry("refined")
    for name in (WEIGHTS, f"refiner/{WEIGHTS}", f"refiner/{CONFIG}"):
        path = folder / name
        good = path.read_bytes()
        for place in range(0, len(good), len(good) // 10):
            for bit in (1, 128):
                bad = bytearray(good)
                bad[place] ^= bit
                path.write_bytes(bad)
                assert refuse(folder, name, "sha256", REMEDY).path == path
        path.write_bytes(good)
    load_pretrained(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, f"refiner/{WEIGHTS}", f"refiner/{CONFIG}"])
def test_a_truncated_or_missing_file_is_named(entry: Entry, name: str) -> None:
    folder = entry("refined")
    path = folder / name
    good = path.read_bytes()
    for bad in (*(good[:size] for size in (0, 1, 8, len(good) // 2, len(good) - 2)), good + b"\0"):
        path.write_bytes(bad)
        assert isinstance(refuse(folder, str(path), REMEDY), DamagedError)
    path.unlink()
    if name == CONFIG:
        refuse(folder, "is no entry", "it has no config.json", "lit-mbldm export")
    else:
        refuse(folder, str(path), "cannot be read (No such file or directory)", REMEDY)
    path.mkdir()
    refuse(folder, str(path), REMEDY)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_links_that_dangle_or_loop_are_refused(entry: Entry, name: str, target: str) -> None:
    path = entry("codec") / name
    path.unlink()
    path.symlink_to(name if target == "itself" else target)
    refuse(path.parent, str(path), "cannot be read", REMEDY)


HEAD, CODEBOOK = "denoiser.head.bias", "codec.channels.0.codewords"


@pytest.mark.parametrize(
    ("name", "instead", "reason"),
    [
        (HEAD, None, f"{HEAD}: expected (torch.float32, (4,)), got none"),
        ("more", torch.zeros(1), "more: expected none, got (torch.float32, (1,))"),
        (CODEBOOK, torch.zeros(2, 4, 2), "The fingerprint is"),
        (HEAD, torch.zeros(5), "got (torch.float32, (5,))"),
        (HEAD, torch.zeros(2, 2), "got (torch.float32, (2, 2))"),
        (HEAD, torch.zeros(0), "got (torch.float32, (0,))"),
        (HEAD, torch.zeros(4, dtype=torch.bfloat16), "got (torch.bfloat16, (4,))"),
        (HEAD, torch.zeros(4, dtype=torch.int32), "got (torch.int32, (4,))"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    entry: Entry, name: str, instead: torch.Tensor | None, reason: str
) -> None:
    folder = entry("continuous")
    weights = {**load_file(folder / WEIGHTS), name: instead}
    save_file({k: v for k, v in weights.items() if v is not None}, folder / WEIGHTS)
    refuse(folder, WEIGHTS, "sha256")
    rehash(folder)
    refuse(folder, WEIGHTS, reason, REEXPORT)


def _header(text: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        struct.pack("<Q", 2**63),
        _header(b"{}"),
        _header(b"[" * 100_000),
        _header(b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', b"\0"),
        _header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
        _header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        _header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
        _header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)),
    ],
)
def test_weights_of_other_making_are_refused(entry: Entry, data: bytes) -> None:
    folder = entry("codec")
    (folder / WEIGHTS).write_bytes(data)
    rehash(folder)
    refuse(folder, WEIGHTS, REEXPORT)


@pytest.mark.parametrize("path", ["../x", "/x", "C:\\x", "a\0b", "evil.ckpt"])
def test_a_path_that_leaves_the_folder_is_refused(entry: Entry, path: str) -> None:
    folder = entry("codec")
    change(folder, sha256={**read(folder)["sha256"], path: "0" * 64})
    refuse(folder, CONFIG, "may lie outside its folder", "Do not use this entry")
    with pytest.raises(InputError, match="outside"):
        read_files(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        '{"model_type": "bert"}',
        '{"library": "lit_mbldm", "format": 1, "model": {}, "sha256": []}',
        '{"library": "lit_mbldm", "format": 1, "model": [], "sha256": {"model.safetensors": ""}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": ' + "9" * 5000 + "}",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_config_is_named(entry: Entry, text: str | bytes) -> None:
    folder = entry("codec")
    (folder / CONFIG).write_bytes(text.encode() if isinstance(text, str) else text)
    refuse(folder, str(folder / CONFIG))


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ("format", 2, "has format 2, this lit_mbldm reads format 1: update it"),
        ("format", None, "has format None"),
        ("model", [], "class_path tree"),
        ("model", {}, "Only classes inside lit_mbldm"),
        ("model/class_path", "torch.nn.Linear", "Only classes inside lit_mbldm"),
        ("model/class_path", "lit_mbldm.codecs.Newer", "Only classes inside lit_mbldm"),
        ("model", {"class_path": "lit_mbldm.processes.GaussianProcess"}, "The weight "),
        ("model/init_args/codec", "opq-32-8-8", "must hold its codec, not the name"),
        ("model/init_args/codec", None, "NoneType"),
        ("model/init_args/surprise", 1, "surprise"),
        ("model/init_args/denoiser/init_args/base_channels", 8, "expected"),
        ("model/init_args/denoiser/init_args/channel_multipliers", [1] * 9, "The weight"),
        ("model/init_args/codec/init_args/patch_size", 10**6, "patch_size from 1"),
        ("model/init_args/codec/init_args/quantizer", "PQ-4-2-2", "rotation"),
        ("model/init_args/image_size", -8, "sides of an image"),
        ("fingerprint", "0" * 64, "The fingerprint is"),
        ("fingerprint", None, "The fingerprint is"),
        ("about", [], "facts"),
        ("about", {"licence": "mit"}, "licence"),
        ("about", {"figures": [{"metric": "FID"}]}, "figure"),
        ("sha256/model.safetensors", "sha", "expected sha"),
        ("sha256/model.safetensors", None, "expected None"),
        ("sha256/refiner~model.safetensors", "0" * 64, "refiner"),
    ],
)
def test_a_config_that_is_whole_and_wrong_is_named(
    entry: Entry, keys: str, value: Any, reason: str
) -> None:
    folder = entry("continuous")
    values = inner = read(folder)
    *outer, last = keys.split("/")
    for key in outer:
        inner = inner[key]
    inner[last.replace("~", "/")] = value
    (folder / CONFIG).write_text(json.dumps(values))
    refuse(folder, reason)


@pytest.mark.parametrize(
    ("name", "instead", "reason"),
    [
        ("continuous", "other", "another codec"),
        ("continuous", "codec", "Expected a Refiner"),
        ("codec", "refiner", "no samples to refine"),
    ],
)
def test_a_refiner_that_does_not_fit_is_refused(
    entry: Entry, tmp_path: Path, name: str, instead: str, reason: str
) -> None:
    folder = entry(name)
    if instead == "other":
        save_entry(tiny.refiner(codec_seed=9), folder / "refiner")
    else:
        save_entry(tiny.MAKERS[instead](), folder / "refiner")
    listed = {f"refiner/{part}": "" for part in (CONFIG, WEIGHTS)}
    change(folder, sha256={**read(folder)["sha256"], **listed})
    refuse(folder, "refiner", reason, REEXPORT)


def test_files_beside_the_named_ones_are_not_touched(entry: Entry) -> None:
    folder = entry("continuous")
    (folder / "refiner").mkdir()
    (folder / "refiner" / CONFIG).write_text("not an entry")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert load_pretrained(folder).refiner is None
