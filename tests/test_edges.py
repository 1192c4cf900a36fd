"""At the edges of the numbers each loss and metric has one documented answer."""
import math

import pytest
import torch
from torch import nn
from conftest import benchmark

from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss, softmax_loss
from mnist_ce.metrics import (
    Pooled, Whole, accuracy, binary_accuracy, confusion_matrix, expected_calibration_error,
    true_accuracy,
)  # fmt: skip
from mnist_ce.scores import as_loss

torture_numbers = benchmark("torture_numbers")

LOSSES = [mnist_loss, softmax_loss, nll_loss, cross_entropy_loss]
ALL = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
WIDE = [mnist_loss, softmax_loss, nll_loss, cross_entropy_loss, accuracy, confusion_matrix,
        expected_calibration_error]  # fmt: skip
INF = math.inf


def scores_of(loss):
    z = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, -2.0], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    if loss is mnist_loss:
        return z[:, :1], torch.tensor([0, 1, 1, 0])
    return (z.log_softmax(1) if loss is nll_loss else z), torch.tensor([2, 0, 1, 2])


@pytest.mark.parametrize("name", torture_numbers.EXPERIMENTS)
def test_what_float64_gives_or_an_error(name):
    told = []
    found = torture_numbers.EXPERIMENTS[name](400, seed=1, told=told)
    assert found["tried"] == 400 and 50 < found["clear"] < 150
    assert found["silent"] == found["wrong"] == 0, told


@pytest.mark.parametrize("function", WIDE[1:], ids=lambda function: function.__name__)
def test_what_has_no_largest_score_is_no_answer(function):
    z = torch.tensor([[0.0, -INF], [-INF, -INF]])
    with pytest.raises(ValueError, match=f"{function.__name__}: row 1 of the .* -inf alone"):
        function(z, torch.tensor([0, 0]))
    function(z[:1], torch.tensor([0]))


def test_a_metric_of_ones_own_and_the_pooled_one_agree_on_what_is_no_answer():
    right = lambda z, t: (z.argmax(1) == t).float().mean()
    sound, t = torch.tensor([[1.0, -INF], [0.0, 1.0]]), torch.tensor([0, 0])
    for bad in math.nan, -INF, INF:
        broken = torch.full((2, 2), bad)
        for metric in true_accuracy(), Whole("own", right, (-1,)):
            metric.update(torch.stack([sound, broken]), t)
            one, other = metric.compute().tolist()
            assert one == 0.5 and math.isnan(other)
    column = Whole("own", lambda z, t: ((z > 0).view(-1) == t).float().mean(), (-1,))
    column.update(torch.tensor([[[-INF], [3.0]], [[INF], [3.0]]]), torch.tensor([0, 0]))
    one, other = column.compute().tolist()
    assert one == 0.5 and math.isnan(other)


def test_minus_infinity_beside_a_number_is_a_probability_of_0():
    z, t = torch.tensor([[0.0, -INF], [0.0, -INF]], requires_grad=True), torch.tensor([0, 1])
    assert cross_entropy_loss(z, t, "none").tolist() == [0, INF]
    assert softmax_loss(z, t, "none").tolist() == [0, 1]
    assert nll_loss(z, t, "none").tolist() == [0, INF]
    cross_entropy_loss(z, t, "sum").backward()
    assert z.grad.tolist() == [[0, 0], [1, -1]]
    column = torch.tensor([[-INF], [-INF]])
    assert mnist_loss(column, t, "none").tolist() == [0, 1]
    assert binary_accuracy(column, t) == accuracy(z.detach(), t) == 0.5
    for loss, scores in (cross_entropy_loss, z.detach()), (softmax_loss, z.detach()), (mnist_loss, column):
        assert loss.slopes(scores, t)[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gap_that_16_bits_cannot_hold(dtype):
    z = torch.tensor([[60000.0, -60000.0]]).to(dtype).requires_grad_()
    high, low = z.double()[0].tolist()
    t = torch.tensor([1])
    for reduction in "mean", "sum", "none":
        found = cross_entropy_loss(z, t, reduction)
        assert found.dtype == torch.float32 and found.item() == high - low
    found.sum().backward()
    assert z.grad.dtype == dtype and z.grad.tolist() == [[1, -1]]
    values, slopes = cross_entropy_loss.value_and_slopes(z.detach().unsqueeze(0), t)
    assert values.tolist() == [high - low] and slopes.dtype == dtype and slopes.tolist() == [[[1, -1]]]
    many = -high * torch.ones(1, 2, dtype=dtype)
    assert nll_loss(many.expand(4, 2), t.expand(4), "sum").item() == 4 * high
    seen = []
    as_loss(lambda z, t: seen.append(z.dtype) or nn.functional.cross_entropy(z, t), 2)(z, t)
    assert seen[-1] == dtype, "a stranger's loss gets what the model gives"


def test_a_gap_that_32_bits_cannot_hold_is_infinite():
    z = torch.tensor([[3e38, -3e38]])
    assert cross_entropy_loss(z, torch.tensor([1])).item() == INF
    assert cross_entropy_loss(z.double(), torch.tensor([1])).item() == pytest.approx(6e38, rel=1e-6)


@pytest.mark.parametrize("function", [binary_accuracy, *WIDE], ids=lambda function: function.__name__)
@pytest.mark.parametrize("dtype", torture_numbers.INTS, ids=str)
def test_ints_of_every_width(function, dtype):
    z, t = scores_of(mnist_loss if function is binary_accuracy else function)
    assert torch.equal(torch.as_tensor(function(z, t.to(dtype))), torch.as_tensor(function(z, t)))
    with pytest.raises(ValueError, match="target 100 is out of range"):
        function(z, torch.full((4,), 100, dtype=dtype))


def test_what_is_no_int_and_no_float_of_ours():
    z, t = scores_of(cross_entropy_loss)
    with pytest.raises(ValueError, match=f"target {2**64 - 1} is out of range"):
        accuracy(z, torch.tensor([2**64 - 1, 0, 0, 0], dtype=torch.uint64))
    with pytest.raises(TypeError, match="got torch.bool: write targets.long"):
        accuracy(z, t.bool())
    for bad in z.to(torch.float8_e4m3fn), z.to(torch.complex64), z.long(), z.bool():
        with pytest.raises(TypeError, match=f"logits must be a float tensor, got {bad.dtype}"):
            accuracy(bad, t)


@ALL
def test_no_rows(loss):
    z, t = scores_of(loss)
    assert loss.each(z[:0], t[:0]).shape == (0,)
    with pytest.raises(ValueError, match="N at least 1"):
        loss(z[:0], t[:0])
    empty = Pooled(loss.each)
    empty.update(z[:0].unsqueeze(0), t[:0])
    assert empty.compute().isnan().tolist() == [True]


def test_no_bins():
    with pytest.raises(ValueError, match="bins=0 must be at least 1"):
        expected_calibration_error(*scores_of(cross_entropy_loss), bins=0)


@ALL
def test_a_subclass_of_tensor_gives_what_its_tensor_gives(loss):
    z, t = scores_of(loss)
    expected = loss(z, t)
    assert torch.equal(loss(nn.Parameter(z), t), expected)

    class Own(torch.Tensor):
        pass

    for reduction in "mean", "none":
        found = loss(z.as_subclass(Own), t.as_subclass(Own), reduction)
        assert torch.equal(found.as_subclass(torch.Tensor), loss(z, t, reduction))
    metric = binary_accuracy if loss is mnist_loss else accuracy
    assert metric(z.as_subclass(Own), t.as_subclass(Own)) == metric(z, t)


@ALL
# fastai scripts a function when it is imported, and leaves files to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_fastais_tensors_give_what_theirs_give(loss):
    core = pytest.importorskip("fastai.torch_core", reason="fastai is a development tool")
    z, t = scores_of(loss)
    metric = binary_accuracy if loss is mnist_loss else accuracy
    ours = core.TensorBase(z).requires_grad_(), core.TensorCategory(t)
    loss(*ours).backward()
    watched = z.clone().requires_grad_()
    loss(watched, t).backward()
    assert torch.equal(ours[0].grad.as_subclass(torch.Tensor), watched.grad)
    assert metric(*ours).item() == metric(z, t).item()


@ALL
def test_vmap_over_models(loss):
    z, t = scores_of(loss)
    models = torch.stack([z, z - 1, 2 * z])
    for dtype in torch.float32, torch.float16:
        found = torch.func.vmap(loss.each, in_dims=(0, None))(models.to(dtype), t)
        assert torch.equal(found, torch.stack([loss.each(one, t) for one in models.to(dtype)]))
    slopes = torch.func.vmap(torch.func.grad(lambda z: loss.each(z, t).mean()))(models)
    expected = loss.value_and_slopes(models, t)[1]
    torch.testing.assert_close(slopes, expected)


@ALL
@pytest.mark.filterwarnings("ignore")  # torch.compile warns about itself
def test_one_graph(loss):
    torch._dynamo.reset()
    z, t = scores_of(loss)
    compiled = torch.compile(loss.each, fullgraph=True, backend="aot_eager")
    for dtype in torch.float32, torch.float16:
        watched = z.clone().to(dtype).requires_grad_()
        found = compiled(watched, t)
        torch.testing.assert_close(found, loss.each(z.to(dtype), t))
        found.sum().backward()
        assert watched.grad.isfinite().all() and watched.grad.any()
