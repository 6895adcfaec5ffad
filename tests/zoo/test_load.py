import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from lit_mbldm.codecs import PatchCodec
from lit_mbldm.entries.entry import save_entry
from lit_mbldm.entries.load import load_codec
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import list_pretrained, load_pretrained

HEAVY = {
    "faiss",
    "huggingface_hub",
    "lightning",
    "PIL",
    "sympy",
    "torch._dynamo",
    "torchmetrics",
    "torchvision",
    "webdataset",
}


def test_the_shipped_codec_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    codec = load_pretrained("opq-32-8-8")
    assert isinstance(codec, PatchCodec)
    assert codec.quantizer == "OPQ-32-8-8"
    assert not codec.training
    assert "opq-32-8-8" in list_pretrained()


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import lit_mbldm", HEAVY | {"torch", "numpy"}),
        ("from lit_mbldm.zoo import load_pretrained; load_pretrained('opq-32-8-8')", HEAVY),
        (
            "from contextlib import suppress; import lit_mbldm.cli as c\n"
            "with suppress(SystemExit): c.main(['--help'])",
            {"torch"},
        ),
    ],
)
def test_no_slow_package_is_imported_for_a_codec_or_help(code: str, heavy: set[str]) -> None:
    tell = f"{code}\nimport sys, json\nprint(json.dumps(list(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
    assert heavy.intersection(json.loads(child.stdout.splitlines()[-1])) == set()


def test_unknown_names_and_foreign_files_are_refused(tmp_path: Path) -> None:
    for name in ("no-such-model", "a/b/c", "https://a.org/org/repo", "org/last.ckpt"):
        with pytest.raises(
            InputError, match=f"no such file or folder, nor a model '{name}'.*opq-32-8-8"
        ):
            load_pretrained(name)
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(InputError, match=r"notes\.txt is no checkpoint"):
        load_pretrained(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"config\.json"):
        load_pretrained(tmp_path)


def test_a_revision_of_what_lies_here_is_refused(tmp_path: Path) -> None:
    save_entry(tiny.codec(), tmp_path / "codec")
    for name in ("opq-32-8-8", tmp_path / "codec", tmp_path / "codec" / "config.json"):
        with pytest.raises(InputError, match="not on the Hub: leave the revision 'v1' out"):
            load_pretrained(name, revision="v1")


@pytest.mark.parametrize("device", ["cuda:4711", "nonsense", "cpu:x", 4711])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=f"The device {device} cannot be used"):
        load_pretrained("opq-32-8-8", device=device)


def test_all_of_a_model_goes_to_the_device(tmp_path: Path) -> None:
    save_entry(tiny.continuous(), tmp_path / "model")
    model = load_pretrained(tmp_path / "model", device="meta")
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert model.device.type == "meta"


def test_a_model_in_place_of_a_codec_is_refused(tmp_path: Path) -> None:
    save_entry(tiny.continuous(), tmp_path / "model")
    with pytest.raises(InputError, match="is a ContinuousDiffusion, expected a codec"):
        load_codec(tmp_path / "model")
