"""The verbs around the zoo: `export`, `push`, `pull`, `zoo`, `doctor`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lit_mbldm.cli.arguments import Verbs, positive


def add_zoo(verbs: Verbs) -> None:
    """`export`, `push`, `pull`, `zoo` and `doctor`."""
    _add_export(verbs)
    push = verbs.add_parser("push", help="send a codec or model to the Hub, in one commit")
    push.add_argument("model", metavar="MODEL", help="checkpoint, folder or name")
    push.add_argument("repository", metavar="ORG/REPO", help="made where it is missing")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--message", help="message of the commit")
    push.add_argument("--revision", help="branch (default: main)")
    push.add_argument("--dry-run", action="store_true", help="only list what would be sent")
    push.set_defaults(run=_push)
    pull = verbs.add_parser("pull", help="fetch a codec or model from the Hub, and check it")
    pull.add_argument("name", metavar="ORG/REPO[@REVISION]")
    pull.add_argument(
        "out", metavar="OUT", nargs="?", type=Path, help="folder for a copy (default: the cache)"
    )
    pull.add_argument("--revision", help="branch, tag or commit (default: main)")
    pull.set_defaults(run=_pull)
    zoo = verbs.add_parser("zoo", help="list the entries that ship, or those on the Hub")
    zoo.add_argument("--search", nargs="*", metavar="WORDS", help="list those on the Hub")
    zoo.set_defaults(run=_zoo)
    doctor = verbs.add_parser("doctor", help="show versions, devices and the Hub, and faults")
    doctor.set_defaults(run=_doctor)


def _add_export(verbs: Verbs) -> None:
    parser = verbs.add_parser("export", help="write a model to a folder to push or share")
    parser.add_argument("model", metavar="MODEL", help="checkpoint, folder or name")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--name", help="name that its card loads it by (default: the one it is pushed to)"
    )
    parser.add_argument("--license", help="of the weights, such as apache-2.0 or cc0-1.0")
    parser.add_argument("--data", help="what the model has seen, best as the Hub names it")
    parser.add_argument("--terms", help="terms under which that data came")
    parser.add_argument("--command", help="command that made the model")
    parser.add_argument(
        "--figures", type=Path, help="JSON list of {metric, value, data, command}, or scores.json"
    )
    parser.add_argument("--refiner", help="refiner for the model's samples, put in the folder too")
    parser.add_argument("--steps", type=positive, help="reverse steps that suit the model")
    parser.add_argument("--sampler", help="sampler that suits it")
    parser.add_argument("--temperature", help="temperature that suits it")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from lit_mbldm.entries.about import read_figures_file
    from lit_mbldm.hub.export import export

    facts = _given(options, "license", "data", "terms", "command")
    if options.figures is not None:
        facts["figures"] = read_figures_file(options.figures)
    if sampling := _given(options, "steps", "sampler", "temperature"):
        facts["sampling"] = sampling
    export(options.model, options.out, facts, options.refiner, options.name)
    print(f"{options.out}: look at its README.md and samples.png, then `lit-mbldm push`.")


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name))}


def _push(options: argparse.Namespace) -> None:
    from lit_mbldm.hub.push import push_pretrained

    push = push_pretrained(
        options.model,
        options.repository,
        options.private,
        options.message,
        options.revision,
        options.dry_run,
    )
    for name, change in push.changes.items():
        print(f"{change:<8} {push.sizes.get(name, 0):>14,}  {name}")
    if push.unstated:
        print(
            f"The card does not state: {', '.join(push.unstated)}. `lit-mbldm export` takes them,"
            " and its folder's README.md can be edited before it is pushed.",
            file=sys.stderr,
        )
    if push.commit is None:
        print(f"Nothing was sent (--dry-run): {push.url}")
    elif set(push.changes.values()) == {"same"}:
        print(f"It is there already, nothing was sent: {push.url}")
    else:
        print(f"Commit {push.commit}: {push.url}")


def _pull(options: argparse.Namespace) -> None:
    from lit_mbldm.entries.fetch import pull
    from lit_mbldm.entries.load import parse_repository

    print(pull(*parse_repository(options.name, options.revision), options.out))


def _zoo(options: argparse.Namespace) -> None:
    from lit_mbldm.hub.listing import list_hub, list_shipped

    print(list_shipped() if options.search is None else list_hub(" ".join(options.search)))


def _doctor(options: argparse.Namespace) -> None:
    from lit_mbldm.doctor import run_doctor

    sys.exit(run_doctor())
