import pytest
import torch
from PIL import Image

from lit_mbldm.codecs import JointCodec
from lit_mbldm.codecs.report import codec_report, order_panels
from lit_mbldm.errors import InputError
from lit_mbldm.metrics.codec_quality import psnr, ssim


def test_figures_are_those_of_the_codec(opq, unseen, tmp_path):
    report = codec_report(opq, list(unseen), tmp_path / "new" / "codec.png")
    decoded = opq.decode(opq.encode(unseen))
    assert report.psnr == pytest.approx(float(psnr(unseen, decoded).mean()))
    assert report.ssim == pytest.approx(float(ssim(unseen, decoded).mean()))
    assert (report.num_images, report.bits_per_pixel) == (2, 0.75)
    assert [*report.codebooks] == ["Y0", "Y1", "Y2", "Y3", "Cb", "Cr"]
    for book in report.codebooks.values():
        assert 0 < book["used"] <= 1 <= book["perplexity"] <= 256
    assert "0.75 bits a pixel (1:32)" in str(report)
    assert len(str(report).splitlines()) == 5 + 6
    with Image.open(tmp_path / "new" / "codec.png") as picture:
        assert picture.width > 4 * 512  # four panels of 128 pixels, enlarged
        assert picture.height > 4 * 96


def test_adding_one_to_every_index_hurts_less_when_sorted(opq, unseen):
    original, decoded, unsorted_one, sorted_one = order_panels(opq, unseen[0]).values()
    assert torch.equal(original, unseen[0])
    assert torch.equal(decoded, opq.decode(opq.encode(unseen[:1]))[0])
    assert psnr(original, sorted_one) > psnr(original, unsorted_one) + 2


def test_images_that_do_not_fit_are_cropped(opq, unseen):
    cropped = codec_report(opq, [unseen[0][:, :93, :121]])
    fitting = codec_report(opq, [unseen[0][:, 2:90, :120]])
    assert cropped.psnr == fitting.psnr
    with pytest.raises(InputError, match="No images"):
        codec_report(opq, [])
    with pytest.raises(InputError, match=r"1×1 .* too small"):
        codec_report(opq, [unseen[0][:, :1, :1]])


def test_codebooks_of_few_or_equal_codewords_have_no_figures_where_there_are_none(unseen):
    codec = JointCodec("JPQ-2", patch_size=4, codebook_size=2, sub_dim=2)
    report = codec_report(codec, [unseen[0]])  # codewords are zeros
    assert "nan" not in str(report)
    assert str(report).splitlines()[-1].split()[-1] == "–"
