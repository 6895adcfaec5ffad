"""The verb `edit`: an image inpainted, varied, put on a larger canvas, or on the way to another."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_mbldm.cli.arguments import MODEL, Verbs, add_verb, arg, fraction, natural, positive, size
from lit_mbldm.cli.sample import SETTINGS, output
from lit_mbldm.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from lit_mbldm.training.editing import EditingModule


def add_edit(verbs: Verbs) -> None:
    """`edit`: what is made of an image, or between two."""
    image = "picture, whose middle is resized to the model's size (none with --seeds or --labels)"
    strength = "how far from IMAGE, from 0 to 1: varies it alone, or with --mask or --to (0.5)"
    resamplings = "times that each step is taken with --mask or --canvas, for what is new to fit"
    parser = add_verb(
        verbs,
        edit,
        MODEL,
        arg("--mask", "picture of IMAGE's size, white where it is drawn again", type=Path),
        arg("--strength", strength, type=fraction),
        arg("--canvas", "HEIGHTxWIDTH of a larger canvas to fill", type=size, metavar="HxW"),
        arg("--to", "second picture, for a row from IMAGE to it", type=Path, metavar="IMAGE"),
        arg("--seeds", "a row between two seeds", type=natural, nargs=2, metavar=("A", "B")),
        arg("--labels", "a row between two classes", nargs=2, metavar=("A", "B")),
        arg("-n", "number of images (default: 4, or 8 in a row between two)", type=positive),
        arg("--keep-size", "take IMAGE as it is, in whole patches", action="store_true"),
        arg("--resamplings", resamplings, type=positive, default=1),
        arg("--label", "class of IMAGE, by name or number (default: none is told)"),
        arg("--temperature", "of codes or bits, from 0, or argmax (default: its own, or 1)"),
        *SETTINGS,
        arg("--out", "PNG of before and after, or a folder (DIR/)", default="edited.png"),
    )
    parser.add_argument("image", help=image, metavar="IMAGE", type=Path).required = False


def edit(arguments: argparse.Namespace) -> None:
    """Inpaint, vary or enlarge an image, or lead from one to another."""
    import torch

    from lit_mbldm.pictures import save, table
    from lit_mbldm.training.callbacks.samples import diffusion_model
    from lit_mbldm.training.options import SampleOptions
    from lit_mbldm.zoo import load_pretrained

    _check_kind(arguments)
    out, to_folder = output(arguments.out)
    given = {field.name: getattr(arguments, field.name, None) for field in fields(SampleOptions)}
    settings = {k: v for k, v in given.items() if v is not None and k != "canvas"}
    settings["batch_size"] = arguments.batch_size
    model = diffusion_model(load_pretrained(arguments.model, device=arguments.device))
    before, after = _run(model, arguments, settings)
    if to_folder:
        for number, image in enumerate(after):
            save(image, out / f"{number:06d}.png")
    else:
        names = [*before, "after", *[""] * (len(after) - 1)]
        save(table(torch.cat([*before.values(), after])[None], columns=names), out)
    print(arguments.out)


def _check_kind(arguments: argparse.Namespace) -> None:
    """Raise InputError unless one kind of edit is asked for, with an image where it needs one."""
    kinds = ("mask", "canvas", "to", "seeds", "labels")
    asked = [kind for kind in kinds if getattr(arguments, kind) is not None]
    alone = not asked and arguments.strength is not None
    if len(asked) + alone != 1 or (arguments.image is None) != bool({"seeds", "labels"} & {*asked}):
        raise InputError(
            "Expected MODEL IMAGE with one of --mask, --strength, --canvas and --to, or MODEL with"
            f" --seeds or --labels; got IMAGE {arguments.image} and"
            f" {', '.join(f'--{kind}' for kind in asked) or 'none of them'}."
        )


def _run(
    model: "EditingModule", arguments: argparse.Namespace, settings: dict[str, Any]
) -> tuple[dict[str, "Tensor"], "Tensor"]:
    """What to show before, (1, 3, H, W) each by name, and the results (N, 3, H, W)."""
    from lit_mbldm.training.masks import on_canvas

    count, strength = arguments.n, arguments.strength
    if arguments.seeds or arguments.labels:
        between: Literal["seeds", "labels"] = "seeds" if arguments.seeds else "labels"
        a, b = arguments.seeds or arguments.labels
        return {}, model.interpolate(a, b, count or 8, between, **settings)
    image = _read(model, arguments, arguments.image)
    if arguments.mask:
        mask = _read(model, arguments, arguments.mask).float().mean(1) > 127
        strength = 1.0 if strength is None else strength
        resamplings = arguments.resamplings
        after = model.inpaint(image, mask, count or 4, strength, resamplings, **settings)
    elif arguments.canvas:
        canvas, resamplings = arguments.canvas, arguments.resamplings
        after = model.outpaint(image, canvas, count or 4, resamplings, **settings)
        image, _ = on_canvas(image, canvas, model.codec.patch_size)
    elif arguments.to:
        other = _read(model, arguments, arguments.to)
        strength = 0.5 if strength is None else strength
        after = model.interpolate(image, other, count or 8, "images", strength, **settings)
    else:
        after = model.vary(image, strength, count or 4, **settings)
    return {"before": image}, after


def _read(model: "EditingModule", arguments: argparse.Namespace, path: Path) -> "Tensor":
    """A picture as the model takes it, (1, 3, H, W) uint8."""
    from lit_mbldm.images import ImageError, fit_square
    from lit_mbldm.pictures import to_batch, to_pil, to_tensor

    image = to_batch(path)
    if path == arguments.mask and image.shape != (own := to_batch(arguments.image)).shape:
        raise InputError(
            f"Expected a mask of the image's size, {own.shape[2]}×{own.shape[3]}, got"
            f" {image.shape[2]}×{image.shape[3]}: {path}"
        )
    if arguments.keep_size:
        return image
    side = model.codec.patch_size * model.latent_shape[1]
    try:
        return to_tensor(fit_square(to_pil(image[0]), side, max_upsampling=1))[None]
    except ImageError as error:
        raise InputError(
            f"Expected {path} to be at least {side}×{side} pixels, which the model learned, got"
            f" {image.shape[2]}×{image.shape[3]}: enlarge it, or draw around it with --keep-size"
            f" --canvas {side}x{side}."
        ) from error
