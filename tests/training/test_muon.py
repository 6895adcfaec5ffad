import pytest
import torch

from lit_mbldm.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(4, 4), (3, 9), (9, 3)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrix)
    values = torch.linalg.svdvals(found)
    assert found.shape == shape
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.95


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8)])
@pytest.mark.parametrize("rank", [2, 8])
def test_products_of_the_small_side_alone_give_the_iteration(
    shape: tuple[int, int], rank: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, rank, generator=generator) for n in shape)
    matrix = left @ right.mT
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):  # Jordan et al. 2024, as they write it
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close(orthogonalize(matrix), x.float(), atol=1e-3, rtol=0)


def test_matrices_follow_torch_s_muon_and_vectors_its_adam() -> None:
    torch.manual_seed(0)
    weights = torch.randn(6, 10), torch.randn(6)
    module = torch.nn.ParameterList([torch.nn.Parameter(w.clone()) for w in weights])
    ours = list(module)
    theirs = [torch.nn.Parameter(w.clone()) for w in weights]
    optimizers = [
        Muon(module, lr=0.01),
        torch.optim.Muon(theirs[:1], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam(theirs[1:], lr=0.01, betas=(0.9, 0.99)),
    ]
    target = torch.randn(6, 10)
    for _ in range(5):
        for matrix, vector in (ours, theirs):
            ((matrix - target).square().sum() + (vector - target[:, 0]).square().sum()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(ours[1], theirs[1])
    torch.testing.assert_close(ours[0], theirs[0], atol=2e-3, rtol=0)  # its product is in bfloat16


def test_embeddings_are_adam_s() -> None:
    layers = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 2))
    matrices, others = Muon(layers).param_groups
    assert [p.shape for p in matrices["params"]] == [(2, 3)]
    assert [p.shape for p in others["params"]] == [(4, 3), (2,)]
