"""Threads share out models, not operations; what they train, who calls whom, and what Ctrl-C leaves."""
import os
import subprocess
import sys
import threading

import pytest
import torch

from mnist_ce import ensemble
from mnist_ce.ensemble import compare, fit_many
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.results import assert_close
from mnist_ce.training import fit, one_thread

QUIET = dict(device="cpu", progress=False)


@pytest.fixture
def threads():
    """A function that sets the number of torch's threads, put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("before", [1, 2, 5])
def test_the_number_of_threads_stays_as_it_was(sample, threads, before):
    threads(before)
    fit(cross_entropy_loss, *sample, epochs=1, **QUIET)
    fit_many(cross_entropy_loss, *sample, range(30), epochs=1, **QUIET)
    with pytest.raises(FloatingPointError):
        fit(cross_entropy_loss, sample[0], sample[1], lr=1e38, epochs=2, **QUIET)
    assert torch.get_num_threads() == before
    seen = []
    new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    new.start(), new.join()
    assert seen == [before]


def test_any_number_of_threads_trains_the_same_models(sample, threads, loss):
    runs = []
    for count in 1, 2, 3:
        threads(count)
        runs.append(fit_many(loss, *sample, range(75), epochs=2, lr=[0.1, 1.0, 2.0] * 25, **QUIET))
    for more in runs[1:]:
        assert more.coords == runs[0].coords
        assert_close(more.weights, runs[0].weights, terms=784)
        assert_close(more.bias, runs[0].bias, terms=784)
        for score in "train_loss", "valid_loss", "nll":
            torch.testing.assert_close(more.scores[score], runs[0].scores[score], rtol=1e-4, atol=1e-6)
        assert (more.accuracy - runs[0].accuracy).abs().max() < 1.5 / len(sample[1])


def test_threads_that_train_at_the_same_time_leave_the_number_as_it_was(sample, threads):
    threads(3)
    began, go, seen = threading.Event(), threading.Event(), []

    def first(preds, targets):
        began.set()
        go.wait(60)
        return torch.nn.functional.cross_entropy(preds, targets)

    few = sample[0][::100], sample[1][::50]
    outer = threading.Thread(target=lambda: fit(first, *few, epochs=1, **QUIET))
    inner = threading.Thread(
        target=lambda: (fit(mnist_loss, *few, epochs=1, **QUIET), seen.append(torch.get_num_threads()))
    )
    with one_thread():
        inner.start()
        inner.join()
    outer.start()
    assert began.wait(60)
    go.set()
    outer.join()
    late = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert seen == [3, 3] and torch.get_num_threads() == 3


def test_a_thread_stays_with_one_thread_of_torchs_from_crowd_to_crowd(sample, threads, monkeypatch):
    threads(3)
    seen, train = [], ensemble.fit_many

    def watched(*args, **kwargs):
        runs = train(*args, **kwargs)
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return runs

    monkeypatch.setattr(ensemble, "fit_many", watched)
    compare([mnist_loss], *sample, range(2), range(9), epochs=1, **QUIET)
    assert len(seen) == 9 and {count for _, count in seen} == {1}
    assert threading.get_ident() not in dict(seen) and torch.get_num_threads() == 3


def test_crowds_side_by_side_are_the_crowds_one_by_one(sample, threads):
    losses, settings = [softmax_loss, mnist_loss], dict(seeds=range(3), orders=range(3), epochs=1)
    threads(2)
    both = compare(losses, *sample, **settings, **QUIET)
    one = [
        fit_many(loss, *sample, range(3), data_seed=order, epochs=1, **QUIET)
        for loss in losses
        for order in range(3)
    ]
    assert torch.equal(both.accuracy, torch.cat([runs.accuracy for runs in one], 1))
    assert both.coords["data_seed"] == sum((runs.coords["data_seed"] for runs in one), [])
    assert both.coords["loss"] == ["softmax_loss"] * 9 + ["mnist_loss"] * 9


def test_a_strangers_loss_is_called_by_one_thread(sample, threads):
    threads(2)
    callers = set()

    def counting(preds, targets, reduction="mean"):
        callers.add(threading.get_ident())
        return torch.nn.functional.cross_entropy(preds, targets, reduction=reduction)

    fit_many(counting, *sample, range(60), epochs=1, **QUIET)
    compare([counting, mnist_loss], *sample, range(2), range(2), epochs=1, **QUIET)
    assert callers == {threading.get_ident()}


@pytest.mark.parametrize("train", ["fit_many", "compare"])
def test_ctrl_c_ends_all_threads_at_once(sample, threads, monkeypatch, train):
    threads(2)
    run = {
        "fit_many": lambda: fit_many(cross_entropy_loss, *sample, range(60), epochs=1000, **QUIET),
        "compare": lambda: compare([mnist_loss], *sample, range(9), range(5), epochs=1000, **QUIET),
    }[train]
    steps, step = [], torch.Tensor.addmm_

    def interrupted(self, *args, **kwargs):
        steps.append(threading.get_ident())
        if len(steps) > 9 and len(set(steps)) == 2:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "addmm_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(set(steps)) == 2 and threading.get_ident() not in steps
    assert len(steps) < 1000
    assert not [one for one in threading.enumerate() if one.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("given, then", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_torchs_threads_wait_passively_unless_told_otherwise(given, then):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    code = "import mnist_ce, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [then, "False"]
