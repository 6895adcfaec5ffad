"""Raw images in uncompressed tars, with the labels beside them."""

import tarfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lit_mbldm.data.shards.labels import (
    Classes,
    checked_label,
    class_names,
    common_classes,
    read_label,
)
from lit_mbldm.data.shards.manifest import Manifest
from lit_mbldm.data.shards.patterns import Manifests
from lit_mbldm.data.shards.tar import Member, is_label, read_member, sample_key, tar_members
from lit_mbldm.data.sources.labels import label_by_folder
from lit_mbldm.data.sources.raw_image import ImageSource, RawImage, file_facts, is_image, listed
from lit_mbldm.images import ImageError


@dataclass
class _Tar:
    """What a tar holds; names of its images begin with its own."""

    path: Path
    manifest: Manifest | None
    images: list[RawImage] = field(default_factory=list)
    lost: list[RawImage] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # by the keys of samples
    others: list[str] = field(default_factory=list)

    @property
    def classes(self) -> Classes:
        """Names of the labels, None where there are none."""
        if self.manifest is not None and self.manifest.classes is not None:
            return tuple(self.manifest.classes)
        return class_names(str(self.path), max(self.labels.values())) if self.labels else None


def tar_images(archives: list[Path], name: str, labels: bool) -> ImageSource:
    """The images in uncompressed tars; those that one lacks by its manifest cannot be read.

    Their labels, if wanted, are those of `.cls` or `.json` members, or else by folders.
    """
    manifests = Manifests()
    tars = [_open(path, manifests, labels) for path in archives]
    others = [other for tar in tars for other in tar.others]
    images = [image for tar in tars for image in tar.images + tar.lost]
    if any(tar.labels for tar in tars):
        classes = common_classes({str(tar.path): tar.classes for tar in tars})
        images = [image for tar in tars for image in _labelled(tar, classes or ()) + tar.lost]
    else:
        paths = [image.name.partition("/")[2] for image in images]
        images, classes = label_by_folder(images, paths, others, labels)
    facts = [*(file_facts(path.name, path) for path in archives), str(len(images))]
    return listed(name, images, classes, others, facts)


def _open(path: Path, manifests: Manifests, labels: bool) -> _Tar:
    told = manifests.of_shard(str(path))
    tar = _Tar(path, told[0] if told else None)
    count = told[1].count if told and told[0].kind == "images" else 0
    lost, reason = 0, "fewer images than its manifest tells"
    try:
        with path.open("rb") as stream:
            for member in tar_members(stream):
                label = read_label(stream, member) if labels and is_label(member.name) else None
                name = f"{path.name}/{member.name}"
                if is_image(member.name):
                    tar.images.append(RawImage(name, partial(_read_member, path, member)))
                elif label is not None:
                    tar.labels[sample_key(name)] = label
                else:
                    tar.others.append(member.name)
    except (tarfile.TarError, OSError) as error:
        lost, reason = 1, str(error)
        if tar.labels and tar.images and sample_key(tar.images[-1].name) not in tar.labels:
            tar.images.pop()  # its label is behind the end
    lost = max(lost, count - len(tar.images))
    tar.lost = [RawImage(path.name, partial(_lost, reason))] * lost
    return tar


def _labelled(tar: _Tar, classes: tuple[str, ...]) -> list[RawImage]:
    return [
        image._replace(
            label=checked_label(tar.labels.get(sample_key(image.name)), classes, image.name)
        )
        for image in tar.images
    ]


def _lost(reason: str) -> bytes:
    raise ImageError(reason)


def _read_member(path: Path, member: Member) -> bytes:
    with path.open("rb") as stream:
        stream.seek(member.offset)
        try:
            return read_member(stream, member)
        except tarfile.ReadError as error:
            raise ImageError(str(error)) from error
