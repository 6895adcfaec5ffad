import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mbldm.errors import InputError
from lit_mbldm.processes import CategoricalProcess
from lit_mbldm.processes.categorical_head import draw_categories, expectation, gumbel_scores
from lit_mbldm.processes.randomness import SampleStreams
from lit_mbldm.zoo import load_pretrained


def process_of(codec: str, **options: Any) -> CategoricalProcess:
    process = CategoricalProcess(**options)
    process.use(load_pretrained(codec))
    return process


def streams(count: int) -> SampleStreams:
    return SampleStreams([(0, i) for i in range(count)])


def test_rare_categories_are_drawn_as_often_as_they_should() -> None:
    logits = torch.zeros(256)
    logits[0] = math.log(255 * 999)  # the others share one in a thousand
    draws = draw_categories(logits.expand(1, 1, 700, 700, 256), 1.0, streams(1))
    rare = (draws != 0).sum().item()
    assert abs(rare - 490) < 4 * 490**0.5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CategoricalProcess(gumbel_temperature=0), "gumbel_temperature"),
        (lambda: CategoricalProcess(latent_weight=0, image_weight=0), "cross_entropy_weight"),
        (lambda: CategoricalProcess(image_weight=-1.0), "cross_entropy_weight"),
    ],
)
def test_weights_and_temperatures_that_teach_nothing_are_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_likelihood_gives_bayes_posterior_under_a_uniform_network() -> None:
    process = CategoricalProcess(likelihood=True, codebook_size=8)
    z_t, t = torch.randn(1, 1, 3, 3), 400
    logits = process.predict(lambda *_: torch.zeros(1, 8, 3, 3), z_t, t).logits
    assert logits is not None
    a = process.log_alpha_bar[t].double().exp()
    density = torch.distributions.Normal(a.sqrt() * process.levels.double(), (1 - a).sqrt())
    expected = density.log_prob(z_t.double()[..., None]).softmax(-1)  # (1, 1, 3, 3, K)
    assert torch.allclose(logits.softmax(-1).double(), expected, atol=1e-5)


def test_gumbel_softmax_has_the_right_gradient_and_approaches_a_draw() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    values = torch.randn(5, 3, dtype=torch.float64)

    def soften(x: Tensor) -> Tensor:
        return expectation(gumbel_scores(x, 0.7, streams(1)), values)

    assert torch.autograd.gradcheck(soften, (logits,), eps=1e-6, atol=1e-5)
    sharp = gumbel_scores(torch.randn(1600, 5), 1e-3, streams(1)).softmax(1).amax(1)
    assert sharp.mean() > 0.99


@pytest.mark.parametrize("name", ["opq-32-8-8", "jpq-48"])
@pytest.mark.parametrize("image_target", ["decoded", "original"])
def test_the_paper_s_loss_has_the_gradient_of_its_differences(image_target: str, name: str) -> None:
    """Along the gradient itself, through Gumbel-softmax, codewords and colours."""
    process = process_of(
        name, gumbel_temperature=0.5, image_target=image_target, self_conditioning=False
    )
    z0 = process.index.to_latent(torch.randint(0, 256, (2, 6, 2, 2)))
    images = torch.randint(0, 256, (2, 3, 16, 16)).byte()

    def loss(output: Tensor) -> Tensor:
        t = torch.tensor([200, 500])
        return process.loss(lambda *_: output, z0, t, streams(2), images=images).sum()

    output = torch.randn(2, 1536, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(output), output)
    step = 0.02 * gradient / gradient.norm()
    with torch.no_grad():
        difference = (loss(output + step) - loss(output - step)) / 0.04
    assert difference.item() == pytest.approx(gradient.norm().item(), rel=5e-3)


def test_expectation_is_the_softmax_s_mean_however_large_the_scores() -> None:
    scores, values = 300 * torch.randn(20, 7), torch.randn(7, 4)
    expected = scores.softmax(1) @ values
    assert torch.allclose(expectation(scores, values), expected, atol=1e-5)


@pytest.mark.parametrize("gaussian_head", [False, True])
def test_mixed_precision_reaches_the_network_alone(gaussian_head: bool) -> None:
    options = {"cross_entropy_weight": 1.0, "likelihood": True, "gaussian_head": gaussian_head}
    process = process_of("opq-32-8-8", schedule="cosine", **options)
    z0 = process.index.to_latent(torch.randint(0, 256, (2, 6, 2, 2)))
    output = torch.randn(2, process.output_channels(6), 2, 2)
    t = torch.tensor([3, 400])
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(process.loss(lambda z, *_: output[: len(z)], z0, t, streams(2)))
            prediction = process.predict(lambda *_: output, z0, t)
            assert prediction.z0.dtype == torch.float32
    assert torch.equal(*losses)
