import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG, WEIGHTS, change, read, rehash, sealed, sha256

from lit_mbldm.entries.entry import read_files, save_entry
from lit_mbldm.entries.integrity import DamagedError
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


def test_a_flipped_bit_in_the_config_is_noticed_or_changes_nothing(entry: Entry) -> None:
    folder = entry("codec")
    path = folder / CONFIG
    good = path.read_bytes()
    meant = json.loads(good)
    for place in range(0, len(good), 3):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        try:
            changed = json.loads(bad) != meant
        except ValueError:
            changed = True
        if changed:
            refuse(folder, str(path))
        else:  # a blank became another
            load_pretrained(folder)


def test_the_layout_of_the_config_does_not_matter(entry: Entry) -> None:
    folder = entry("codec")
    values = read(folder)
    (folder / CONFIG).write_text(json.dumps(dict(reversed(values.items()))))
    load_pretrained(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, f"refiner/{WEIGHTS}", f"refiner/{CONFIG}"])
def test_a_truncated_or_missing_file_is_named(entry: Entry, name: str) -> None:
    folder = entry("refined")
    path = folder / name
    good = path.read_bytes()
    for size in (0, 1, 7, 8, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:size])
        assert isinstance(refuse(folder, str(path), REMEDY), DamagedError)
    path.write_bytes(good + b"\0")
    refuse(folder, str(path), REMEDY)
    path.unlink()
    if name == CONFIG:
        refuse(folder, "is no entry", "it has no config.json", "lit-mbldm export")
    else:
        refuse(folder, str(path), "cannot be read (No such file or directory)", REMEDY)
    path.mkdir()
    refuse(folder, str(path), REMEDY)


LOAD_EACH = """
import json, sys
import fuzz_child
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained

load_pretrained("opq-32-8-8")
fuzz_child.limit_memory()
for folder in sys.argv[1:]:
    try:
        load_pretrained(folder)
    except InputError as error:
        print(json.dumps(str(error)))
"""
LINKS = {
    "nowhere": ("cannot be read", REMEDY),
    "itself": ("cannot be read", REMEDY),
    "/dev/zero": ("no regular file", REMEDY),
    "a pipe": ("no regular file", REMEDY),
    "/proc/self/environ": (),
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc tells")
@pytest.mark.parametrize("name", [pytest.param(WEIGHTS, marks=pytest.mark.slow), CONFIG])
def test_links_that_dangle_loop_or_never_end_are_refused(
    saved: Path, tmp_path: Path, name: str
) -> None:
    """In a process of little memory: what reads without end must not take this one along."""
    paths = []
    for number, target in enumerate(LINKS):
        path = Path(shutil.copytree(saved / "codec", tmp_path / str(number))) / name
        path.unlink()
        if target == "a pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(name if target == "itself" else target)
        paths.append(path)
    ran = subprocess.run(
        [sys.executable, "-c", LOAD_EACH, *(str(path.parent) for path in paths)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    for path, words, text in zip(paths, LINKS.values(), told, strict=True):
        assert len(text) < 1500
        for word in (str(path), *words):
            assert word in text, (word, text)


Change = Callable[[dict[str, torch.Tensor]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "a missing tensor": (lambda w: w.pop("denoiser.head.bias"), "lacks denoiser.head.bias"),
    "an unknown tensor": (
        lambda w: w.update({"more": torch.zeros(1)}),
        "holds more, which the model has not",
    ),
    "a renamed tensor": (
        lambda w: w.update({"denoiser.head.bia": w.pop("denoiser.head.bias")}),
        "lacks denoiser.head.bias",
    ),
    "another shape": (
        lambda w: w.update({"denoiser.head.bias": torch.zeros(5)}),
        "denoiser.head.bias: expected (torch.float32, (4,)), got (torch.float32, (5,))",
    ),
    "another layout": (
        lambda w: w.update({"denoiser.head.bias": torch.zeros(2, 2)}),
        "expected (torch.float32, (4,)), got (torch.float32, (2, 2))",
    ),
    "another dtype": (
        lambda w: w.update({"denoiser.head.bias": torch.zeros(4, dtype=torch.float16)}),
        "got (torch.float16, (4,))",
    ),
    "numbers that are as wide": (
        lambda w: w.update({"denoiser.head.bias": torch.zeros(4, dtype=torch.int32)}),
        "got (torch.int32, (4,))",
    ),
    "an empty tensor": (
        lambda w: w.update({"denoiser.head.bias": torch.zeros(0)}),
        "got (torch.float32, (0,))",
    ),
    "no tensor at all": (lambda w: w.clear(), "It lacks"),
    "another codec": (
        lambda w: w["codec.channels.0.codewords"].add_(1),
        "Its codec has the fingerprint",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_do_not_fit_are_named(entry: Entry, name: str) -> None:
    folder, (alter, reason) = entry("continuous"), CHANGES[name]
    weights = load_file(folder / WEIGHTS)
    alter(weights)
    save_file(weights, folder / WEIGHTS)
    refuse(folder, WEIGHTS, "sha256")
    rehash(folder)
    refuse(folder, str(folder / WEIGHTS), reason, REEXPORT)


def _header(text: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04.",
        b"PK\x03\x04",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 100_000_000) + b"{",
        _header(b"{}"),
        _header(b"[" * 100_000),
        _header(b'{"a":' * 100_000),
        _header(b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', b"\0"),
        _header(b'{"a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}', b"\0"),
        _header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
        _header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        _header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
        _header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(8)),
        _header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)),
        _header(b'{"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}', b"\x07" * 4),
        _header(b'{"\xff":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', bytes(4)),
    ],
)
def test_weights_of_other_making_are_refused(entry: Entry, data: bytes) -> None:
    folder = entry("codec")
    (folder / WEIGHTS).write_bytes(data)
    rehash(folder)
    refuse(folder, str(folder / WEIGHTS), REEXPORT)


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "..",
        ".",
        "/x",
        "//x",
        "a/../../x",
        "a/./x",
        "a//x",
        "a/",
        "C:\\x",
        "C:x",
        "a\\..\\x",
        "\\\\host\\x",
        ".git/config",
        "a/.hidden",
        "~/x",
        "a\0b",
        "a\nb",
        "model.safetensors\n",
        "",
        "ä",
        "hf://x",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(entry: Entry, path: str) -> None:
    folder = entry("codec")
    values = read(folder)
    values["sha256"][path] = "0" * 64
    (folder / CONFIG).write_text(sealed(values))
    refuse(folder, CONFIG, "may lie outside its folder", "Do not use this entry")
    with pytest.raises(InputError, match="outside"):
        read_files(folder)


def test_a_newer_format_is_told_from_damage(entry: Entry) -> None:
    folder = entry("codec")
    change(folder, format=2)
    refuse(folder, CONFIG, "format 2", "pip install --upgrade lit-mbldm")
    for other in (0, -1, "1", None, 1.5, [1]):
        change(folder, format=other)
        assert isinstance(refuse(folder, CONFIG, "its format is", REMEDY), DamagedError)
    (folder / CONFIG).write_text('{"format": 3, "parts": {}}')
    refuse(folder, CONFIG, "format 3", "pip install --upgrade lit-mbldm")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "7",
        '"config"',
        "{}",
        '{"model_type": "bert"}',
        '{"format": 1, "model": {}, "sha256": []}',
        '{"format": 1, "model": {}, "sha256": {}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 900 + "1" + "}" * 900,
        " " * (10 << 20),
        '{"format": ' + "9" * 5000 + "}",
        "\ud800".encode("utf-16", "surrogatepass"),
        b"\xff\xfe\x00",
        b"\x00" * 64,
    ],
)
def test_what_is_no_config_is_named(entry: Entry, text: str | bytes) -> None:
    folder = entry("codec")
    (folder / CONFIG).write_bytes(text.encode() if isinstance(text, str) else text)
    refuse(folder, str(folder / CONFIG))


def test_a_file_larger_than_its_model_is_refused_unread(entry: Entry) -> None:
    folder = entry("continuous")
    os.truncate(folder / WEIGHTS, 1 << 36)  # sparse
    start = time.perf_counter()
    refuse(folder, str(folder / WEIGHTS), "has more than", REMEDY)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '"\\ud800"'])
def test_what_no_other_reader_takes_for_json_is_refused(entry: Entry, value: str) -> None:
    folder = entry("continuous")
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(
        text.replace('"fingerprint": "', f'"x": {value}, "fingerprint": "')
    )
    refuse(folder, str(folder / CONFIG), "no JSON", REMEDY)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("model",), [], "class_path tree"),
        (("model",), {}, "Only classes inside lit_mbldm"),
        (("model", "class_path"), "torch.nn.Linear", "Only classes inside lit_mbldm"),
        (("model", "class_path"), "lit_mbldm.training.module.LambdaLR", "no module class"),
        (("model", "class_path"), "lit_mbldm.codecs.Newer", "This version of lit_mbldm has no"),
        (("model", "init_args", "codec"), "opq-32-8-8", "must hold its codec, not the name"),
        (("model", "init_args", "codec"), None, "NoneType"),
        (("model", "init_args", "surprise"), 1, "surprise"),
        (("model", "init_args", "denoiser", "init_args", "base_channels"), 8, "expected"),
        (("model", "init_args", "denoiser", "init_args", "blocks_per_level"), 10**9, "tensors"),
        (("model", "init_args", "denoiser", "init_args", "channel_multipliers"), [1] * 9, "tensor"),
        (("model", "init_args", "process", "init_args", "num_timesteps"), 10**12, "too large"),
        (
            ("model", "init_args", "codec", "init_args", "patch_size"),
            10**6,
            "patch_size must be from 1",
        ),
        (("model", "init_args", "codec", "init_args", "quantizer"), "PQ-4-2-2", "rotation"),
        (
            ("model", "init_args", "codec", "init_args", "quantizer"),
            "OPQ-2000000000-2-2",
            "saves none",
        ),
        (("model", "init_args", "image_size"), 2**63, "sides of an image"),
        (("model", "init_args", "image_size"), -8, "sides of an image"),
        (("fingerprint",), "0" * 64, "Its codec has the fingerprint"),
        (("fingerprint",), None, "Its codec has the fingerprint"),
        (("about",), [], "facts"),
        (("about",), {"licence": "mit"}, "licence"),
        (("about",), {"figures": [{"metric": "FID"}]}, "each figure"),
        (("sha256", WEIGHTS), "sha", "the sha256 of model.safetensors is 'sha'"),
    ],
)
def test_a_config_that_is_whole_and_wrong_is_named(
    entry: Entry, keys: tuple[str, ...], value: Any, reason: str
) -> None:
    folder = entry("continuous")
    values = read(folder)
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / CONFIG).write_text(sealed(values))
    refuse(folder, CONFIG, reason)


def test_what_is_no_codec_and_has_none_is_refused(entry: Entry) -> None:
    folder = entry("codec")
    save_file({}, folder / WEIGHTS)
    for tree in (
        {"class_path": "lit_mbldm.processes.GaussianProcess"},
        {"class_path": "lit_mbldm.training.module.CodecModule", "init_args": {"codec": None}},
        {"class_path": "lit_mbldm.training.Refiner", "init_args": {"codec": 1, "network": "x"}},
    ):
        change(folder, model=tree)
        refuse(folder, "is neither a codec nor a model with a codec")


def test_a_refiner_is_the_one_that_came_with_the_model(entry: Entry, saved: Path) -> None:
    folder = entry("refined")
    inner = folder / "refiner"
    other = tiny.refiner()
    with torch.no_grad():
        other.network.head.bias.add_(1)
    save_entry(other, folder.parent / "other")
    shutil.rmtree(inner)
    shutil.copytree(folder.parent / "other", inner)
    refuse(folder, str(inner / CONFIG), "sha256", REMEDY)
    # an outer config that was made to fit one of the two files
    for name in (CONFIG, WEIGHTS):
        shutil.rmtree(inner)
        shutil.copytree(saved / "refined" / "refiner", inner)
        shutil.copy(folder.parent / "other" / name, inner / name)
        values = read(saved / "refined")
        for part in (CONFIG, WEIGHTS):
            values["sha256"][f"refiner/{part}"] = sha256(inner / part)
        (folder / CONFIG).write_text(sealed(values))
        refuse(folder, str(inner), "sha256", REMEDY)


def test_a_refiner_that_is_half_named_is_refused(entry: Entry) -> None:
    for name in (CONFIG, WEIGHTS):
        folder = entry("refined")
        values = read(folder)
        del values["sha256"][f"refiner/{name}"]
        (folder / CONFIG).write_text(sealed(values))
        refuse(folder, str(folder / "refiner"), "sha256")
        shutil.rmtree(folder)


def _put_refiner(folder: Path, refiner: Path) -> None:
    shutil.rmtree(folder / "refiner", ignore_errors=True)
    shutil.copytree(refiner, folder / "refiner")
    names = (CONFIG, WEIGHTS)
    values = read(folder)
    values["sha256"] |= {f"refiner/{name}": "0" * 64 for name in names}
    (folder / CONFIG).write_text(sealed(values))
    rehash(folder)


def test_a_refiner_of_another_codec_is_refused(entry: Entry, tmp_path: Path) -> None:
    save_entry(tiny.refiner(codec_seed=9), tmp_path / "other")
    folder = entry("continuous")
    _put_refiner(folder, tmp_path / "other")
    refuse(folder, str(folder / "refiner"), "another codec", "Train one")


@pytest.mark.parametrize("name", ["codec", "refiner"])
def test_a_refiner_in_what_takes_none_is_refused(entry: Entry, saved: Path, name: str) -> None:
    folder = entry(name)
    _put_refiner(folder, saved / "refiner")
    refuse(folder, str(folder / CONFIG), "cannot use")


def test_a_model_in_place_of_the_refiner_is_refused(entry: Entry, saved: Path) -> None:
    folder = entry("continuous")
    for other in ("codec", "continuous"):
        _put_refiner(folder, saved / other)
        refuse(folder, str(folder / "refiner"), "Expected a Refiner")


def test_files_beside_the_named_ones_are_not_touched(entry: Entry) -> None:
    folder = entry("continuous")
    (folder / "refiner").mkdir()
    (folder / "refiner" / CONFIG).write_text("not an entry")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert load_pretrained(folder).refiner is None
