"""Other clients of the Hub: its own of the major before, and one that is not in Python."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from entries import REFINED, loads, outcome
from loopback_hub import Hub
from torch import nn

from lit_mbldm.zoo import push_pretrained

BOTH_WAYS = """
import hashlib, sys
import huggingface_hub
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained, push_pretrained
from lit_mbldm.entries.fetch import pull

pushed = push_pretrained(sys.argv[1], "org/previous", private=True)
assert push_pretrained(sys.argv[1], "org/previous").commit == pushed.commit
pull("org/current")
model = load_pretrained("org/current")
load_pretrained("org/current", local_files_only=True)
for name in ("org/none", "org/current@none"):
    try:
        load_pretrained(name)
    except InputError as error:
        assert "has no re" in str(error), error
images = model.sample(3, steps=3, seed=11)
print(huggingface_hub.__version__, hashlib.sha256(images.numpy().tobytes()).hexdigest())
"""
LIST_AND_DOWNLOAD = """
import { createHash } from "node:crypto";
import { downloadFile, listFiles, modelInfo } from "@huggingface/hub";

const [hubUrl, accessToken, repo] = process.argv.slice(2);
const found = {};
for await (const file of listFiles({ repo, hubUrl, accessToken, recursive: true })) {
  if (file.type !== "file") continue;
  const blob = await downloadFile({ repo, path: file.path, hubUrl, accessToken });
  const bytes = Buffer.from(await blob.arrayBuffer());
  found[file.path] = createHash("sha256").update(bytes).digest("hex");
}
const options = { name: repo, hubUrl, accessToken, additionalFields: ["library_name", "tags"] };
const info = await modelInfo(options);
console.log(JSON.stringify({ found, task: info.task, library: info.library_name }));
"""


def test_the_client_of_the_major_before_goes_both_ways(
    hub: Hub,
    modules: dict[str, nn.Module],
    folders: dict[str, Path],
    previous_client: Path,
    tmp_path: Path,
) -> None:
    import huggingface_hub

    push_pretrained(folders["refined"], "org/current", private=True)
    environment = hub.environment(tmp_path / "previous") | {"PYTHONPATH": str(previous_client)}
    ran = subprocess.run(
        [sys.executable, "-c", BOTH_WAYS, str(folders["refined"])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    version, digest = ran.stdout.split()
    assert int(version.split(".")[0]) == int(huggingface_hub.__version__.split(".")[0]) - 1
    images = outcome(modules["refined"])
    assert digest == hashlib.sha256(images.numpy().tobytes()).hexdigest()
    loads("org/previous", modules["refined"])
    sent, current = hub.files("org/previous"), hub.files("org/current")
    assert sent.keys() == current.keys()
    # all but the cards, which name their repositories
    differ = {name for name in sent if sent[name] != current[name]}
    assert differ == {"README.md", "config.json"}


def test_a_client_in_javascript_reads_what_was_pushed(
    hub: Hub, folders: dict[str, Path], npm_hub_client: Path, tmp_path: Path
) -> None:
    push_pretrained(folders["refined"], "org/model", private=True)
    script = npm_hub_client / "read.mjs"
    script.write_text(LIST_AND_DOWNLOAD)
    node = shutil.which("node")
    assert node
    ran = subprocess.run(
        [node, str(script), hub.url, hub.token, "org/model"],
        cwd=npm_hub_client,
        env=hub.environment(tmp_path / "node"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    files = hub.files("org/model")
    assert told["found"] == {n: hashlib.sha256(data).hexdigest() for n, data in files.items()}
    assert set(told["found"]) > REFINED
    config = json.loads(files["config.json"])
    for name, digest in config["sha256"].items():
        assert name == "config.json" or told["found"][name] == digest
    assert (told["task"], told["library"]) == ("unconditional-image-generation", "lit_mbldm")
