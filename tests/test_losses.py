"""The same ladder for every loss: torch as oracle, float64, extremes, shapes, reductions, bad input."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss, softmax_loss
from mnist_ce.results import assert_close

ORACLES = {
    mnist_loss: lambda z, t: F.l1_loss(z.sigmoid().squeeze(1), t.to(z.dtype), reduction="none"),
    softmax_loss: lambda z, t: (z.softmax(1) - F.one_hot(t, z.shape[1])).abs().sum(1) / 2,
    nll_loss: lambda z, t: F.nll_loss(z, t, reduction="none"),
    cross_entropy_loss: lambda z, t: F.cross_entropy(z, t, reduction="none"),
}
ALL = pytest.mark.parametrize("loss", ORACLES, ids=lambda loss: loss.__name__)


def batch(loss, n=64, columns=10, scale=3.0, dtype=torch.float32, seed=0):
    """Random scores of the kind that `loss` takes, and targets."""
    generator = torch.Generator().manual_seed(seed)
    columns = loss.columns or columns
    z = scale * torch.randn(n, columns, generator=generator, dtype=dtype)
    t = torch.randint(max(columns, 2), (n,), generator=generator)
    return (z.log_softmax(1) if loss is nll_loss else z), t


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [2, 3, 10])
def test_value_and_gradient_agree_with_torch(loss, dtype, columns, device):
    z, t = (tensor.to(device) for tensor in batch(loss, columns=columns, dtype=dtype))
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    assert_close(loss(ours, t, "none"), ORACLES[loss](theirs, t), terms=columns)
    loss(ours, t, "sum").backward()
    ORACLES[loss](theirs, t).sum().backward()
    assert_close(ours.grad, theirs.grad, terms=columns)


@pytest.mark.parametrize("loss", [mnist_loss, softmax_loss, cross_entropy_loss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [2, 10])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_value_and_gradient_by_hand_agree_with_autograd(loss, dtype, columns, scale, device):
    z, t = (tensor.to(device) for tensor in batch(loss, columns=columns, scale=scale, dtype=dtype))
    kept, watched = z.clone(), z.clone().requires_grad_()
    losses = loss(watched, t, "none")
    losses.sum().backward()
    values, slopes = loss.slopes(z, t)
    assert values.shape == (len(z),) and torch.equal(z, kept)
    assert_close(values, losses, terms=columns)
    assert_close(slopes, watched.grad, terms=columns)


@ALL
def test_gradient_agrees_with_finite_differences(loss):
    z, t = batch(loss, n=5, dtype=torch.float64)
    z = z - 1e-3  # room for the differences below the upper end of log-probabilities
    assert torch.autograd.gradcheck(lambda z: loss.each(z, t), z.requires_grad_())


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0, 1e3, 1e4])
@pytest.mark.parametrize("columns", [2, 10])
def test_cross_entropy_is_exact_to_1e6_up_to_ten_thousand(scale, columns):
    generator = torch.Generator().manual_seed(1)
    z = scale * (2 * torch.rand(1000, columns, generator=generator) - 1)
    t = torch.randint(columns, (1000,), generator=generator)
    single, double = cross_entropy_loss(z, t, "none").double(), cross_entropy_loss(z.double(), t, "none")
    assert single.isfinite().all()
    mean = cross_entropy_loss(z, t).item(), cross_entropy_loss(z.double(), t).item()
    assert abs(mean[0] - mean[1]) <= 1e-6 * mean[1]
    # One example's loss below 1 is the logarithm of a sum just above 1, and that sum is rounded in absolute terms:
    # torch's log_softmax, and so ours, is exact there to 1e-6 and not to 1e-6 of the loss.
    assert ((single - double).abs() <= 1e-6 * double.clamp(min=1)).all()
    gradients = []
    for logits in z, z.double():
        logits = logits.clone().requires_grad_()
        cross_entropy_loss(logits, t, "sum").backward()
        gradients.append(logits.grad)
    assert gradients[0].isfinite().all()
    assert_close(gradients[0], gradients[1], terms=columns * max(1, int(scale)))


@ALL
def test_extreme_scores_stay_finite(loss):
    for value in 1e4, -1e4:
        z = torch.full((2, loss.columns or 2), value)
        z[:, -1] = -value
        z = (z.log_softmax(1) if loss is nll_loss else z).requires_grad_()
        result = loss(z, torch.tensor([0, 1]))
        result.backward()
        assert result.isfinite() and z.grad.isfinite().all()


@ALL
def test_reductions_and_target_shapes(loss):
    z, t = batch(loss)
    each = loss(z, t, "none")
    assert each.shape == (len(t),)
    assert_close(loss(z, t, "sum"), each.sum(), terms=len(t))
    assert_close(loss(z, t), each.mean(), terms=len(t))
    for reduction in "none", "sum", "mean":
        assert torch.equal(loss(z, t, reduction), loss(z, t.unsqueeze(1), reduction))
        assert torch.equal(loss(z, t, reduction), loss(z, t.to(torch.uint8), reduction))
    with pytest.raises(ValueError, match="reduction='average'"):
        loss(z, t, "average")


@given(gap=st.floats(-30, 30), rise=st.floats(0.01, 5))
@settings(deadline=None)
def test_each_loss_falls_as_the_target_rises(gap, rise):
    t = torch.tensor([1])
    low, high = (torch.tensor([[0.0, g]], dtype=torch.double) for g in (gap, gap + rise))
    assert mnist_loss(high[:, 1:], t) < mnist_loss(low[:, 1:], t)
    assert softmax_loss(high, t) <= softmax_loss(low, t)
    assert cross_entropy_loss(high, t) < cross_entropy_loss(low, t)
    assert nll_loss(high.log_softmax(1), t) < nll_loss(low.log_softmax(1), t)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=8))
@settings(deadline=None)
def test_two_columns_equal_one_column_of_their_difference(rows):
    z = torch.tensor(rows, dtype=torch.double)
    t = torch.arange(len(z)) % 2
    torch.testing.assert_close(softmax_loss(z, t, "none"), mnist_loss(z[:, 1:] - z[:, :1], t, "none"))


@ALL
def test_activation_and_decodes(loss):
    z, _ = batch(loss)
    labels = loss.decodes(loss.activation(z))
    assert torch.equal(labels, (z[:, 0] > 0).long() if loss is mnist_loss else z.argmax(1))
    total = loss.activation(z).sum(1)
    if loss is not mnist_loss:
        assert_close(total, torch.ones_like(total), terms=10)


@ALL
@pytest.mark.parametrize(
    "kind, spoil, words",
    [
        (ValueError, lambda z, t: (z, t + 10), "target 1[0-9] is out of range"),
        (ValueError, lambda z, t: (z, t - 10), "target -[0-9]+ is out of range"),
        (TypeError, lambda z, t: (z, t.float()), "targets must be an int tensor, got torch.float32"),
        (TypeError, lambda z, t: (z, t.bool()), "targets must be an int tensor, got torch.bool"),
        (TypeError, lambda z, t: (z, t.tolist()), "targets must be an int tensor, got <class 'list'>"),
        (TypeError, lambda z, t: (z.long(), t), "must be a float tensor, got torch.int64"),
        (ValueError, lambda z, t: (z, t[:-1]), r"targets must be \[64\] or \[64, 1\]"),
        (ValueError, lambda z, t: (z, t.repeat(2)), r"got \[128\]"),
        (ValueError, lambda z, t: (z, t.unsqueeze(0)), r"got \[1, 64\]"),
        (ValueError, lambda z, t: (z[:, 0], t), r"must be \[N, C\]"),
        (ValueError, lambda z, t: (z[:0], t[:0]), "N at least 1"),
        (ValueError, lambda z, t: (z * float("nan"), t), "contain nan"),
        (ValueError, lambda z, t: (z.abs() + float("inf"), t), "contain inf"),
    ],
)
def test_bad_input(loss, kind, spoil, words):
    with pytest.raises(kind, match=words):
        loss(*spoil(*batch(loss)))
