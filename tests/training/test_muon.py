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


def test_matrices_follow_torch_s_muon_and_vectors_its_adam() -> None:
    torch.manual_seed(0)
    weights = torch.randn(6, 10), torch.randn(6)
    ours = [torch.nn.Parameter(w.clone()) for w in weights]
    theirs = [torch.nn.Parameter(w.clone()) for w in weights]
    optimizers = [
        Muon(ours, lr=0.01),
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
