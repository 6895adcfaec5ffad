"""The verbs around the zoo: `export`, `push`, `pull`, `zoo`, `doctor`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lit_mbldm.cli.arguments import MODEL, OUT, Verbs, add_verb, arg, positive


def add_zoo(verbs: Verbs) -> None:
    """`export`, `push`, `pull`, `zoo` and `doctor`."""
    index = (
        "shards of training images, whose codes go into the folder, 8 MiB at most, so that the page"
        " shows which is nearest to a sample"
    )
    figures = "JSON list of {metric, value, data, command}, or scores.json"
    add_verb(
        verbs,
        export,
        MODEL,
        OUT,
        arg("--name", "name that its card loads it by (default: the one it is pushed to)"),
        arg("--license", "of the weights, such as apache-2.0 or cc0-1.0"),
        arg("--data", "what the model has seen, best as the Hub names it"),
        arg("--terms", "terms under which that data came"),
        arg("--command", "command that made the model"),
        arg("--figures", figures, type=Path),
        arg("--refiner", "refiner for the model's samples, put in the folder too"),
        arg("--index", index, metavar="SHARDS"),
        arg("--onnx", "also as ONNX files, in OUT/onnx", action="store_true"),
        arg("--half", "round its networks to float16: half the size", action="store_true"),
        arg("--steps", "reverse steps that suit the model", type=positive),
        arg("--sampler", "sampler that suits it"),
        arg("--temperature", "temperature that suits it"),
        arg("--guidance", "scale of guidance that suits it", type=float),
        arg("--guidance-interval", "its t/T", type=float, nargs=2, metavar=("LOW", "HIGH")),
    )
    add_verb(
        verbs,
        push,
        MODEL,
        arg("repository", "made where it is missing", metavar="ORG/REPO"),
        arg("--private", "make a new repository private", action="store_true"),
        arg("--message", "message of the commit"),
        arg("--revision", "branch (default: main)"),
        arg("--dry-run", "only list what would be sent", action="store_true"),
    )
    add_verb(
        verbs,
        pull,
        arg("name", "of the repository", metavar="ORG/REPO[@REVISION]"),
        arg("out", "folder for a copy (default: the cache)", metavar="OUT", nargs="?", type=Path),
        arg("--revision", "branch, tag or commit (default: main)"),
    )
    search = arg("--search", "list those on the Hub", nargs="*", metavar="WORDS")
    add_verb(verbs, zoo, search)
    add_verb(verbs, doctor)


def export(options: argparse.Namespace) -> None:
    """Write a model to a folder to push or share."""
    from lit_mbldm.entries.about import read_figures_file
    from lit_mbldm.hub.export import export

    facts = _given(options, "license", "data", "terms", "command")
    if options.figures is not None:
        facts["figures"] = read_figures_file(options.figures)
    kept = ("steps", "sampler", "temperature", "guidance", "guidance_interval")
    if sampling := _given(options, *kept):
        facts["sampling"] = sampling
    more = (options.refiner, options.name, options.half, options.index, options.onnx)
    export(options.model, options.out, facts, *more)
    print(f"{options.out}: look at its README.md and samples.png, then `lit-mbldm push`.")


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def push(options: argparse.Namespace) -> None:
    """Send a codec or model to the Hub, in one commit."""
    from lit_mbldm.hub.push import push_pretrained

    names = ("model", "repository", "private", "message", "revision", "dry_run")
    push = push_pretrained(*(getattr(options, name) for name in names))
    for name, change in push.changes.items():
        print(f"{change:<8} {push.sizes.get(name, 0):>14,}  {name}")
    if push.unstated:
        facts = ", ".join(push.unstated)
        print(f"The card does not state: {facts}. `lit-mbldm export` takes them.", file=sys.stderr)
    if push.commit is None:
        print(f"Nothing was sent (--dry-run): {push.url}")
    elif set(push.changes.values()) == {"same"}:
        print(f"It is there already, nothing was sent: {push.url}")
    else:
        print(f"Commit {push.commit}: {push.url}")


def pull(options: argparse.Namespace) -> None:
    """Fetch a codec or model from the Hub, and check it."""
    from lit_mbldm.entries.fetch import pull
    from lit_mbldm.entries.load import parse_repository

    print(pull(*parse_repository(options.name, options.revision), options.out))


def zoo(options: argparse.Namespace) -> None:
    """List the entries that ship, or those on the Hub."""
    from lit_mbldm.hub.listing import list_hub, list_shipped

    print(list_shipped() if options.search is None else list_hub(" ".join(options.search)))


def doctor(options: argparse.Namespace) -> None:
    """Show versions, devices and the Hub, and faults."""
    from lit_mbldm.doctor import installation, machine
    from lit_mbldm.doctor.report import print_report

    parts = {
        "Versions": installation.examine_versions,
        "Devices": machine.examine_devices,
        "Commands": installation.examine_commands,
        "Hub": machine.examine_hub,
        "Disk": machine.examine_disk,
    }
    sys.exit(print_report(parts))
