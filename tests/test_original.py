"""The published experiment, seed by seed, its faults together and apart; its bands are in the notebook."""
import pytest
import torch

from mnist_ce.original import (
    EXPERIMENTS, FAULTS, column_zero_accuracy, effect, factorial, log_of_softmax, log_probability,
    mean_of_batch_means, outcome, reproduce, target_probability,
)  # fmt: skip


@pytest.fixture(scope="module", params=list(EXPERIMENTS))
def experiment(request):
    """Each experiment's name and its reproduction from 20 seeds."""
    return request.param, reproduce(request.param, range(20), progress=False)


def test_each_experiment_reports_by_epoch_and_seed(experiment):
    _, run = experiment
    assert run.reported.shape == run.true_accuracy.shape == run.train_loss.shape == (10, 20)
    assert run.reported.dtype == torch.float64 and run.seeds == list(range(20))


def test_every_seed_freezes_at_0_5112_as_soon_as_it_breaks(experiment):
    name, run = experiment
    if name != "cross_entropy":
        assert (run.nonfinite == -1).all() and run.true_accuracy.isfinite().all()
        return
    broken = run.nonfinite // 49
    assert ((run.nonfinite >= 0) & (broken <= 1)).all() and (broken == 0).sum() >= 19
    for epoch in range(10):
        reported = [f"{value:.4f}" for value in run.reported[epoch][broken <= epoch]]
        assert set(reported) == {"0.5112"} and run.true_accuracy[epoch][broken <= epoch].isnan().all()


def test_what_the_softmax_runs_hid(experiment):
    name, run = experiment
    if name.startswith("softmax"):
        assert run.true_accuracy[-1].mean() < 0.2 < 0.8 < run.reported[-1].mean()
        assert (run.true_accuracy[-1] + run.reported[-1] - 1).abs().max() < 0.01, "one minus the accuracy"


def test_a_seed_means_the_same_whatever_its_neighbors():
    many, one = (reproduce("mnist_loss", seeds, progress=False) for seeds in (range(5), [3]))
    assert (many.reported[:, 3] - one.reported[:, 0]).abs().max() < 0.002
    assert (many.train_loss[:, 3] - one.train_loss[:, 0]).abs().max() < 1e-4


@pytest.mark.parametrize("loss", [log_of_softmax, target_probability, log_probability])
def test_the_faulty_losses_at_known_probabilities(loss):
    probabilities = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.double)
    picked = torch.tensor([0.9, 0.7], dtype=torch.double)
    expected = {log_of_softmax: -picked.log(), target_probability: picked, log_probability: picked.log()}[loss]
    for targets in torch.tensor([0, 1]), torch.tensor([[0], [1]]):
        torch.testing.assert_close(loss(probabilities.log(), targets, "none"), expected)
        torch.testing.assert_close(loss(probabilities.log(), targets), expected.mean())


def test_the_faulty_accuracy():
    right, labels = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 4.0]]), torch.tensor([0, 1, 1])
    assert column_zero_accuracy(right, labels) == 0 and column_zero_accuracy(-right, labels.view(-1, 1)) == 1
    mixed = torch.cat([-right[:2], right[2:]])
    assert mean_of_batch_means(mixed, labels, batch_size=2) == 0.5


def test_the_factorial_of_all_faults():
    runs = factorial(range(4), progress=False)
    parts = runs.by("combination")
    assert len(parts) == 2 ** len(FAULTS) and all(len(part) == 4 for part in parts.values())
    assert parts["1011010"].coords["batches"] == ["shuffled"] * 4
    kind = {name: outcome(part) for name, part in parts.items()}
    assert kind["1011111"] == "freezes" == kind["1011101"], "the metric was not the fault"
    assert kind["0011111"] == "trains, unseen" and kind["0011101"] == "trains"
    assert kind["1011000"] == "trains", "shuffled batches spare log(softmax)"
    assert effect(runs, "true_accuracy", "sign").high < -0.3
    assert effect(runs, "reported", "metric", "sign").low > 0.3


def test_input_that_makes_no_sense():
    with pytest.raises(ValueError, match="'sigmoid' is none of the experiments mnist_loss, cross_entropy"):
        reproduce("sigmoid")
    with pytest.raises(ValueError, match="seeds is empty"):
        reproduce("softmax", [])
    with pytest.raises(ValueError, match="seeds is empty"):
        factorial([], progress=False)
