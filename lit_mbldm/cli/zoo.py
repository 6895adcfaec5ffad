"""The verbs around the zoo: `export`, `push`, `pull`, `zoo`, `doctor`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lit_mbldm.cli.arguments import Verbs, positive


def add_export(verbs: Verbs) -> None:
    """`export`: a checkpoint to an entry's folder."""
    parser = verbs.add_parser("export", help="a model to a folder that can be pushed or shared")
    parser.add_argument("model", metavar="MODEL", help="checkpoint, folder or name")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--name", help="that its card loads it by (default: the one it is pushed to)"
    )
    parser.add_argument("--license", help="of the weights, such as apache-2.0 or cc0-1.0")
    parser.add_argument("--data", help="what the model has seen, best as the Hub names it")
    parser.add_argument("--terms", help="under which terms that data came")
    parser.add_argument("--command", help="what made the model")
    parser.add_argument(
        "--figures", type=Path, help="JSON list of {metric, value, data, command}, or scores.json"
    )
    parser.add_argument("--refiner", help="refiner for the model's samples, put in the folder too")
    parser.add_argument("--steps", type=positive, help="reverse steps that suit the model")
    parser.add_argument("--sampler", help="sampler that suits it")
    parser.add_argument("--temperature", help="temperature that suits it")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from lit_mbldm.entries.figures import read_figures_file
    from lit_mbldm.hub.export import export

    facts: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("license", "data", "terms", "command")
        if getattr(options, name)
    }
    if options.figures is not None:
        facts["figures"] = read_figures_file(options.figures)
    sampling = {
        name: getattr(options, name)
        for name in ("steps", "sampler", "temperature")
        if getattr(options, name) is not None
    }
    if sampling:
        facts["sampling"] = sampling
    export(options.model, options.out, facts, options.refiner, options.name)
    print(f"{options.out}: look at its README.md and samples.png, then `lit-mbldm push`.")


def add_push(verbs: Verbs) -> None:
    """`push`: a model to the Hub."""
    parser = verbs.add_parser("push", help="a codec or model to the Hub, in one commit")
    parser.add_argument("model", metavar="MODEL", help="checkpoint, folder or name")
    parser.add_argument("repository", metavar="ORG/REPO", help="made where it is missing")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--revision", help="branch (default: main)")
    parser.add_argument("--dry-run", action="store_true", help="list what would be sent")
    parser.set_defaults(run=_push)


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
    if push.missing:
        print(
            f"The card does not state: {', '.join(push.missing)}. `lit-mbldm export` takes them,"
            " and its folder's README.md can be edited before it is pushed.",
            file=sys.stderr,
        )
    if push.commit is None:
        print(f"Nothing was sent (--dry-run): {push.url}")
    elif set(push.changes.values()) == {"same"}:
        print(f"It is there already, nothing was sent: {push.url}")
    else:
        print(f"Commit {push.commit}: {push.url}")


def add_pull(verbs: Verbs) -> None:
    """`pull`: an entry from the Hub."""
    parser = verbs.add_parser("pull", help="a codec or model from the Hub, checked")
    parser.add_argument("name", metavar="ORG/REPO[@REVISION]")
    parser.add_argument(
        "out", metavar="OUT", nargs="?", type=Path, help="folder for a copy (default: the cache)"
    )
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.set_defaults(run=_pull)


def _pull(options: argparse.Namespace) -> None:
    from lit_mbldm.entries.fetch import pull
    from lit_mbldm.entries.load import parse_repository

    print(pull(*parse_repository(options.name, options.revision), options.out))


def add_zoo(verbs: Verbs) -> None:
    """`zoo`: what there is."""
    parser = verbs.add_parser("zoo", help="the entries that ship, and those on the Hub")
    parser.add_argument(
        "--search",
        nargs="*",
        metavar="WORDS",
        help="those on the Hub",
    )
    parser.set_defaults(run=_zoo)


def _zoo(options: argparse.Namespace) -> None:
    from lit_mbldm.hub.listing import list_hub, list_shipped

    print(list_shipped() if options.search is None else list_hub(" ".join(options.search)))


def add_doctor(verbs: Verbs) -> None:
    """`doctor`: what is wrong with this machine's installation."""
    parser = verbs.add_parser("doctor", help="versions, devices, the Hub, and what is wrong")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from lit_mbldm.doctor import run_doctor

    sys.exit(run_doctor())


ZOO_VERBS = (add_export, add_push, add_pull, add_zoo, add_doctor)
