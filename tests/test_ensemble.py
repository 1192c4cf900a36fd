"""A model in a crowd is the model that trains alone, whoever its neighbours are; many processes equal one."""
import math
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F

from mnist_ce import ensemble
from mnist_ce.data import mnist
from mnist_ce.ensemble import compare, comparison_table, difference_table, fit_many, sweep, sweep_table
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.results import assert_close
from mnist_ce.training import fit

SETTINGS = dict(epochs=2, progress=False)


def agree(many, s, one, valid):
    """Model s of `many` and the run `one` are the same model, up to rounding."""
    assert_close(many.weights[s], one.weights, terms=784)
    assert_close(many.bias[s], one.bias, terms=784)
    for e, epoch in enumerate(one.history):
        assert abs(many.accuracy[e, s] - epoch.accuracy) < 1.5 / len(valid)  # rounding may turn one image
        for values, value in (many.train_loss, epoch.train_loss), (many.valid_loss, epoch.valid_loss), (many.nll, epoch.nll):
            assert values[e, s].item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("protocol", [dict(), dict(shuffle=False, init_std=1.0)], ids=["default", "published"])
@pytest.mark.parametrize("seeds", [[7], [7, 8], [0, 5, 7, 1000], range(64)], ids=len)
def test_a_model_depends_on_its_own_seed_alone(sample, loss, device, seeds, protocol):
    many = fit_many(loss, *sample, seeds, device=device, **protocol, **SETTINGS)
    agree(many, list(seeds).index(7), fit(loss, *sample, seed=7, device=device, **protocol, **SETTINGS), sample[1])


def test_ten_digits(device):
    train, valid = mnist()
    train, valid = train[::20], valid[::20]
    many = fit_many(cross_entropy_loss, train, valid, [3, 7], device=device, **SETTINGS)
    assert many.weights.shape == (2, 784, 10) and many.bias.shape == (2, 10) and many.accuracy.shape == (2, 2)
    agree(many, 1, fit(cross_entropy_loss, train, valid, seed=7, device=device, **SETTINGS), valid)


def test_one_rate_and_one_scale_for_each_model(sample, device):
    rates, stds = [0.01, 1.0, 3.0], [0.0, 1.0, 0.1]
    many = fit_many(softmax_loss, *sample, [4, 4, 5], lr=rates, init_std=stds, device=device, **SETTINGS)
    for s, (seed, lr, std) in enumerate(zip([4, 4, 5], rates, stds)):
        agree(many, s, fit(softmax_loss, *sample, seed=seed, lr=lr, init_std=std, device=device, **SETTINGS), sample[1])


def log_of_softmax(preds, targets):
    return -preds.softmax(1).log().gather(1, targets.view(-1, 1)).mean()


def test_a_model_that_breaks_disturbs_nobody(sample):
    settings = dict(shuffle=False, epochs=3, progress=False, device="cpu")
    many = fit_many(log_of_softmax, *sample, range(6), lr=[1.0, 0.01] * 3, init_std=[1.0, 0.01] * 3, **settings)
    assert (many.nonfinite[::2] >= 0).all() and many.accuracy[-1, ::2].isnan().all() and many.weights[::2].isnan().any()
    assert many.nonfinite[1::2].tolist() == [-1] * 3
    for s in 1, 3, 5:
        agree(many, s, fit(log_of_softmax, *sample, seed=s, lr=0.01, **settings), sample[1])
    recorded = fit(log_of_softmax, *sample, seed=0, init_std=1.0, on_nonfinite="record", **settings)
    assert recorded.nonfinite == many.nonfinite[0] and math.isnan(recorded.history[-1].accuracy)


def book(preds, targets):
    preds = preds.sigmoid()
    return torch.where(targets == 1, 1 - preds, preds).mean()


@pytest.mark.parametrize("own, ours, rate", [
    (F.cross_entropy, cross_entropy_loss, 1), (book, mnist_loss, 1),
    (torch.nn.CrossEntropyLoss(reduction="sum"), cross_entropy_loss, 256),
], ids=["torch's", "the book's", "a sum"])  # fmt: skip
def test_a_strangers_loss_trains_as_ours(sample, own, ours, rate):
    train = sample[0][: 256 * 20]  # no short batch, over which a sum would take a shorter step
    settings = dict(shuffle=False, device="cpu", **SETTINGS)
    theirs = fit_many(own, train, sample[1], [3, 4], lr=1.0 / rate, **settings)
    known = fit_many(ours, train, sample[1], [3, 4], **settings)
    assert_close(theirs.weights, known.weights, terms=784)
    for score in "train_loss", "valid_loss", "nll":  # of a sum too: means over images
        assert_close(getattr(theirs, score), getattr(known, score).float(), terms=784)


def test_order_belongs_to_the_data_seed(sample):
    first, again, other = (fit_many(softmax_loss, *sample, [0], data_seed=s, device="cpu", **SETTINGS) for s in (0, 0, 1))
    assert torch.equal(first.weights, again.weights) and not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize(
    "setting, error, words",
    [
        (dict(seeds=[1, 2], init_std=[0.1] * 3), ValueError, "init_std has 3 values for 2 seeds"),
        (dict(seeds=[1, 2], lr=[0.1, -1.0]), ValueError, "lr=-1.0"),
        (dict(seeds=[1, 2], init_std=[0.1, -1.0]), ValueError, "std=-1.0"),
        (dict(seeds=[1.5]), ValueError, "seed=1.5"),
        (dict(seeds=[-1]), ValueError, "seed=-1"),
        (dict(seeds=[0], epochs=0), ValueError, "epochs=0"),
        (dict(seeds=[0], batch_size=0), ValueError, "batch_size=0"),
        (dict(seeds=[0], device="gpu"), ValueError, "gpu"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(sample, setting, error, words):
    with pytest.raises(error, match=words):
        fit_many(cross_entropy_loss, *sample, **setting, progress=False)


@pytest.fixture(scope="module")
def compared(sample):
    """Three orders by four seeds of two losses, one epoch each."""
    losses = [softmax_loss, cross_entropy_loss]
    return compare(losses, *sample, seeds=range(4), orders=range(3), epochs=1, device="cpu", progress=False)


def test_compare_trains_every_seed_under_every_order(sample, compared):
    assert len(compared) == 24 and len({*zip(*compared.coords.values())}) == 24
    alone = fit(softmax_loss, *sample, seed=3, data_seed=2, epochs=1, device="cpu", progress=False)
    same = compared.where(loss="softmax_loss", seed=3, data_seed=2)
    assert abs(same.last().item() - alone.history[-1].accuracy) < 1.5 / 2038
    assert compared.record["settings"]["losses"] == ["softmax_loss", "cross_entropy_loss"]


def test_the_comparison_says_what_the_runs_hold(sample, compared):
    valid = sample[1]
    rows = {row[0]: dict(zip(table.headers, row)) for table in [comparison_table(compared, valid)] for row in table}
    for name, part in compared.by("loss").items():
        row, last = rows[name], part.last()
        assert row["n"] == 12 and row["accuracy"] == f"{last.mean():.4f}" and row["sd"] == f"{last.std():.4f}"
        assert row["worst"] == f"{last.min():.4f}" != f"{last.max():.4f}"
        assert row["95% interval"] == "{:.4f} to {:.4f}".format(*part.summary()[3:])
        assert row["NLL"] == f"{part.last('nll').mean():.4f}" and row["non-finite"] == 0
        assert row["s/model"] == f"{part.seconds.sum(0).mean():.4f}" and float(row["s/model"]) < 0.2
        right = torch.stack([run.predict(valid) == valid.digits for run in map(part.__getitem__, range(12))])
        error = right.double().mean(0).std().item() / 2038**0.5
        assert row["± images"] == f"{1.96 * error:.4f}"


def test_differences_are_paired_and_have_the_right_sign(sample, compared):
    valid, parts = sample[1], compared.by("loss")
    (row,) = difference_table(compared, valid)
    difference = (parts["cross_entropy_loss"].last() - parts["softmax_loss"].last()).mean().item()
    assert row[:3] == ["cross_entropy_loss - softmax_loss", 12, f"{difference:+.4f}"] and difference > 0.001
    a, b = (part.right(valid) for part in parts.values())
    gained, lost = ((x & ~y).sum(1).double().mean().item() for x, y in ((b, a), (a, b)))
    assert row[4] == f"{gained:.1f} / {lost:.1f}" and gained > lost
    assert abs(difference * 2038 - (gained - lost)) < 1e-6
    low, high = map(float, row[3].split(" to "))
    wide_low, wide_high = map(float, row[5].split(" to "))
    assert wide_low < low < difference < high < wide_high
    assert row[6] == ("holds" if wide_low > 0 else "may vanish")


def test_a_broken_model_neither_erases_the_mean_nor_hides(sample):
    broken = dict(init_std=[1.0, 0.01, 0.01], lr=[1.0, 0.01, 0.01], shuffle=False, epochs=2, progress=False)
    runs = fit_many(log_of_softmax, *sample, range(3), device="cpu", **broken)
    (row,) = comparison_table(runs, sample[1])
    sound = runs[1:].last()
    assert row[1:4] == [2, f"{sound.mean():.4f}", f"{sound.std():.4f}"] and row[6] == "nan" and row[8] == 1


def test_a_sweep_trains_each_rate_from_each_seed(sample, monkeypatch):
    monkeypatch.setattr(ensemble, "CROWD", 3)
    runs = sweep([softmax_loss, F.cross_entropy], *sample, [0.1, 1.0], seeds=[0, 1], epochs=1, device="cpu", progress=False)
    assert [*zip(runs.coords["lr"], runs.coords["seed"])] == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)] * 2
    table = sweep_table(runs)
    assert table.headers == ["lr", "softmax_loss", "cross_entropy"]
    of_one = runs.where(loss="cross_entropy", lr=1.0).last()
    assert table[1] [0] == "1" and table[1][2] == f"{of_one.mean():.4f} ± {of_one.std():.4f}"


def test_losses_need_names_of_their_own(sample):
    with pytest.raises(ValueError, match="got none"):
        compare([], *sample)


def test_what_was_finished_survives_ctrl_c(sample, monkeypatch):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(kwargs)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return fit_many(*args, **kwargs)

    monkeypatch.setattr(ensemble, "fit_many", interrupted)
    settings = dict(seeds=range(2), orders=range(2), epochs=1, progress=False)
    runs = compare([softmax_loss, cross_entropy_loss], *sample, **settings)
    assert len(runs) == 4 and set(runs.coords["loss"]) == {"softmax_loss"} and runs.record["interrupted"]
    with pytest.raises(KeyboardInterrupt):
        compare([softmax_loss], *sample, **settings)


def test_three_thousand_models_fit_in_four_gigabytes():
    code = """
        import resource
        from mnist_ce.data import mnist
        from mnist_ce.ensemble import fit_many
        from mnist_ce.losses import cross_entropy_loss
        train, valid = mnist()
        fit_many(cross_entropy_loss, train[::100], valid[::5], range(3000), epochs=1, device="cpu", progress=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4


def test_an_order_that_was_not_finished_still_has_its_table(sample, monkeypatch):
    monkeypatch.setattr(ensemble, "CROWD", 2)
    full = compare([softmax_loss], *sample, range(3), range(3), epochs=1, device="cpu", progress=False)
    ragged = full[: len(full) - 1]
    (row,) = comparison_table(ragged, sample[1])
    means = torch.stack([part.last().mean() for part in ragged.by("data_seed").values()])
    assert row[1:3] == [8, f"{means.mean():.4f}"]
