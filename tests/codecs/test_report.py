import dataclasses
import json

import pytest
import torch
from PIL import Image

from lit_mbldm.codecs import JointCodec
from lit_mbldm.codecs.latents import place_codewords
from lit_mbldm.codecs.report import codec_report, order_panels
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import noise_error, psnr, rank_correlation, ssim


def test_figures_are_those_of_the_codec(opq, unseen, tmp_path):
    report = codec_report(opq, list(unseen), tmp_path / "new" / "codec.png")
    decoded = opq.decode(opq.encode(unseen))
    assert report.psnr == pytest.approx(float(psnr(unseen, decoded).mean()))
    assert report.ssim == pytest.approx(float(ssim(unseen, decoded).mean()))
    assert (report.num_images, report.bits_per_pixel, report.compression_ratio) == (2, 0.75, 32)
    assert [book.name for book in report.codebooks] == ["Y0", "Y1", "Y2", "Y3", "Cb", "Cr"]
    assert all(0 < book.used <= 1 <= book.perplexity <= 256 for book in report.codebooks)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["quantizer"] == "OPQ-32-8-8"
    assert "0.75 bits a pixel (1:32)" in str(report)
    assert len(str(report).splitlines()) == 5 + 6


def test_picture_shows_four_panels(opq, unseen, tmp_path):
    codec_report(opq, [unseen[0]], tmp_path / "codec.png")
    with Image.open(tmp_path / "codec.png") as picture:
        assert picture.width > 4 * 512  # 128 pixels, enlarged
        assert picture.height > 4 * 96
    assert list(tmp_path.iterdir()) == [tmp_path / "codec.png"]


def test_adding_one_to_every_index_hurts_less_when_sorted(opq, unseen):
    original, decoded, unsorted_one, sorted_one = order_panels(opq, unseen[0]).values()
    assert torch.equal(original, unseen[0])
    assert torch.equal(decoded, opq.decode(opq.encode(unseen[:1]))[0])
    assert psnr(original, sorted_one) > psnr(original, unsorted_one) + 2


def test_images_that_do_not_fit_are_cropped(opq, unseen, tmp_path):
    cropped = codec_report(opq, [unseen[0][:, :93, :121]], tmp_path / "a.png")
    fitting = codec_report(opq, [unseen[0][:, 2:90, :120]], tmp_path / "b.png")
    assert cropped.psnr == fitting.psnr


def test_bad_images(opq, unseen, tmp_path):
    with pytest.raises(InputError, match="No images"):
        codec_report(opq, [], tmp_path / "codec.png")
    with pytest.raises(InputError, match=r"1×1 .* too small"):
        codec_report(opq, [unseen[0][:, :1, :1]], tmp_path / "codec.png")


def test_codebooks_of_few_or_equal_codewords_have_no_figures_where_there_are_none(unseen, tmp_path):
    codec = JointCodec("JPQ-2", patch_size=4, codebook_size=2, sub_dim=2)
    report = codec_report(codec, [unseen[0]], tmp_path / "codec.png")  # codewords are zeros
    assert "nan" not in str(report)
    assert str(report).splitlines()[-1].split()[-5:] == ["–"] * 5


def test_noise_costs_less_the_more_coordinates_tell(opq, unseen, tmp_path):
    report = codec_report(opq, [unseen[0]], tmp_path / "codec.png")
    for book, shown in zip(opq.codebooks(), report.codebooks, strict=True):
        index = torch.arange(256.0)[:, None]
        latents = [index, *(place_codewords(book, d) for d in (1, 2, 3))]
        assert shown.noise_errors == pytest.approx(
            [noise_error(latent, book) for latent in latents], rel=0.05
        )
        assert shown.noise_errors[3] < shown.noise_errors[2] < shown.noise_errors[1]
        assert shown.rank_correlation == rank_correlation(book)
