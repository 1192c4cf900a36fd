"""A model in a crowd is the model that trains alone, whoever its neighbors are; many processes equal one."""
import math
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import named

from mnist_ce import ensemble
from mnist_ce.data import Digits, mnist
from mnist_ce.ensemble import compare, comparison_table, difference_table, fit_many, sweep, sweep_table
from mnist_ce.losses import cross_entropy_loss, mnist_loss, softmax_loss
from mnist_ce.results import Runs, assert_close, crossed, join_runs, of_shares
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


@pytest.mark.filterwarnings("ignore:log_of_softmax stayed finite here")
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
    ids=named,
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
    monkeypatch.setattr(ensemble, "workers_for", lambda *_: 1)  # one after the other
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


def test_what_was_asked_for_is_recorded(sample):
    few = sample[0][::500], sample[1][::100]
    runs = fit_many(
        softmax_loss, *few, np.array([3, 1]), epochs=2, lr=[0.5, 1], batch_size=7, shuffle=False,
        init_std=(0, 1), data_seed=4, progress=False,
    )  # fmt: skip
    name = "softmax_loss"
    assert runs.coords == dict(
        loss=[name] * 2, seed=[3, 1], data_seed=[4, 4], lr=[0.5, 1.0], init_std=[0.0, 1.0]
    )
    assert runs.settings == dict(
        loss=name, model="linear", epochs=2, seeds=[3, 1], lr=[0.5, 1], batch_size=7, shuffle=False,
        init_std=[0, 1], data_seed=4,
    )  # fmt: skip
    assert runs.classes == (7, 3) and runs.accuracy.shape == (2, 2)


def test_the_defaults_are_the_papers_protocol(sample):
    few = sample[0][::500], sample[1][::100]
    runs = fit_many(softmax_loss, *few, progress=False)
    assert runs.settings == dict(
        loss="softmax_loss", model="linear", epochs=10, seeds=list(range(300)), lr=1.0,
        batch_size=256, shuffle=True, init_std=0.01, data_seed=0,
    )  # fmt: skip
    assert runs.accuracy.shape == (10, 300) and runs.seeds == list(range(300))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(seeds=[]), ValueError, "^seeds is empty"),
        (dict(seeds=3), TypeError, r"seeds=3 must be a sequence: write seeds=range\(3\)"),
        (dict(seeds="12"), TypeError, r"seeds='12' must be a sequence"),
        (dict(seeds=[4, 4]), ValueError, "two models are alike: seed 4, lr 1.0, init_std 0.01"),
        (dict(seeds=[1, 2, 2], lr=[1, 3, 3], init_std=[0, 1, 1]), ValueError,
         "two models are alike: seed 2, lr 3.0, init_std 1.0"),
        (dict(seeds=[1], lr=[]), ValueError, "lr has 0 values for 1 seeds"),
        (dict(seeds=[1], lr=0), ValueError, "lr=0 must be a number above 0"),
    ],
    ids=named,
)  # fmt: skip
def test_models_that_cannot_be_told_apart_or_made(sample, arguments, error, words):
    with pytest.raises(error, match=words):
        fit_many(cross_entropy_loss, *sample, **arguments, progress=False)


def test_compare_and_sweep_split_their_seeds_into_crowds(sample, monkeypatch, capsys):
    few, asked = (sample[0][::500], sample[1][::100]), []

    def watched(loss, *data, **given):
        asked.append((loss.name, given["seeds"], given.get("data_seed"), given.get("lr")))
        return fit_many(loss, *data, **given)

    monkeypatch.setattr(ensemble, "fit_many", watched)
    monkeypatch.setattr(ensemble, "workers_for", lambda *_: 1)  # one crowd after the other
    monkeypatch.setattr(ensemble, "CROWD", 2)
    losses = {"a": F.cross_entropy, "b": mnist_loss}
    runs = compare(losses, *few, range(3), (5, 2), epochs=1)
    crowds = [([0, 1], 5, None), ([2], 5, None), ([0, 1], 2, None), ([2], 2, None)]
    assert asked == [(name, *crowd) for name in "ab" for crowd in crowds]
    assert runs.coords["loss"] == ["a"] * 6 + ["b"] * 6 and runs.coords["data_seed"] == [5, 5, 5, 2, 2, 2] * 2
    assert runs.settings == dict(epochs=1, losses=["a", "b"]) and "interrupted" not in runs.record
    said = capsys.readouterr().err
    assert "12/12" in said and "a:" in said and "b:" in said and "model" in said
    asked.clear()
    runs = sweep(mnist_loss, *few, [0.1, 1.0], [7, 8, 9], epochs=1, data_seed=6, progress=False)
    name, rates = "mnist_loss", [([7, 8], [0.1, 0.1]), ([9, 7], [0.1, 1.0]), ([8, 9], [1.0, 1.0])]
    assert asked == [(name, seeds, 6, lr) for seeds, lr in rates]
    assert capsys.readouterr().err == "" and runs.settings == dict(epochs=1, data_seed=6, losses=[name])


def test_the_defaults_of_compare_and_sweep(sample, monkeypatch):
    few, jobs = (sample[0][::500], sample[1][::100]), []
    monkeypatch.setattr(ensemble, "_train_crowds", lambda *given: jobs.append(given))
    compare(mnist_loss, *few)
    sweep(mnist_loss, *few, [0.1])
    (first, train, valid, settings, progress, keep, _), (second, *_, shown, _, _) = jobs
    seeds = list(range(30))
    assert [job for _, job in first] == [dict(seeds=seeds, data_seed=order) for order in range(10)]
    assert [job for _, job in second] == [dict(seeds=seeds, lr=[0.1] * 30)]
    assert (train, valid) == few and settings == {} and progress is shown is True and keep is None


class Processes:
    """torch.distributed as two processes see it that run one after the other, rank 1 first."""

    def __init__(self):
        self.rank, self.sent = 1, None

    is_available = is_initialized = lambda self: True
    get_rank = lambda self: self.rank
    get_world_size = lambda self: 2

    def gather_object(self, own, everyone):
        assert (everyone is None) == (self.rank == 1)
        if everyone is None:
            self.sent, self.rank = own, 0
        else:
            everyone[:] = own, self.sent


def test_two_processes_share_the_crowds_and_the_first_has_all(sample, monkeypatch, capsys):
    few = sample[0][::500], sample[1][::100]
    plan = [softmax_loss, mnist_loss], *few, range(3), range(3)
    settings = dict(epochs=1, device="cpu")
    expected = compare(*plan, **settings, progress=False)
    trained, processes = [], Processes()

    def watched(loss, *data, **given):
        trained.append((processes.rank, loss.name, given["data_seed"]))
        return fit_many(loss, *data, **given)

    monkeypatch.setattr(ensemble, "fit_many", watched)
    monkeypatch.setattr(ensemble, "dist", processes)
    monkeypatch.setattr(ensemble, "workers_for", lambda *_: 1)  # one crowd after the other
    assert compare(*plan, **settings) is None and capsys.readouterr().err == "", "the first one tells"
    runs = compare(*plan, **settings)
    assert "18/18" in capsys.readouterr().err
    jobs = [(loss.name, order) for loss in plan[0] for order in range(3)]
    assert trained == [(1, *job) for job in jobs[1::2]] + [(0, *job) for job in jobs[::2]]
    assert runs.coords == expected.coords and torch.equal(runs.accuracy, expected.accuracy)
    assert "interrupted" not in runs.record


def test_ctrl_c_in_another_process_is_told(sample, monkeypatch):
    few, processes, calls = (sample[0][::500], sample[1][::100]), Processes(), []

    def interrupted(*args, **given):
        calls.append(given)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return fit_many(*args, **given)

    monkeypatch.setattr(ensemble, "fit_many", interrupted)
    monkeypatch.setattr(ensemble, "dist", processes)
    monkeypatch.setattr(ensemble, "workers_for", lambda *_: 1)  # one crowd after the other
    plan = softmax_loss, *few, [0], range(2), False
    assert compare(*plan, epochs=1) is None
    runs = compare(*plan, epochs=1)
    assert len(runs) == 1 and runs.record["interrupted"] is True and runs.coords["data_seed"] == [0]


def test_losses_are_named(sample, monkeypatch):
    few = sample[0][::500], sample[1][::100]
    monkeypatch.setattr(ensemble, "_train_crowds", lambda jobs, *_: [loss.name for loss, _ in jobs])
    settings = *few, [0], [0]
    assert compare(F.cross_entropy, *settings) == ["cross_entropy"]
    assert compare({"mine": F.cross_entropy, "own": mnist_loss}, *settings) == ["mine", "own"]
    twice = r"need a name each, got cross_entropy_loss, cross_entropy_loss: write \{'a': loss, 'b': …\}"
    with pytest.raises(ValueError, match=twice):
        compare([cross_entropy_loss, cross_entropy_loss], *settings)


class Answering:
    """Models that answer the images rightly as a bool tensor [S, N] says."""

    def __init__(self, right, labels):
        self.right, self.labels = right, labels

    def __len__(self):
        return len(self.right)

    def __getitem__(self, rows):
        return Answering(self.right[rows], self.labels)

    def answers(self, x):
        return F.one_hot((self.labels != self.right).long(), 2).flip(2).float()


VALID = Digits(torch.zeros(8, 4), torch.tensor([0, 1] * 4).view(8, 1), (7, 3))
MODELS = [(order, seed) for order in range(3) for seed in range(2)]


def made_up(name, seed, models=MODELS, **scores):
    """Runs of a loss that answer 8 images at random, seeds under orders as given; as a table needs."""
    s, generator = len(models), torch.Generator().manual_seed(seed)
    right = torch.rand(s, 8, generator=generator) < 0.7
    last = right.double().mean(1)
    told = dict(accuracy=torch.stack([last / 2, last]), nll=torch.rand(2, s, generator=generator, dtype=torch.double))
    coords = dict(loss=[name] * s, data_seed=[order for order, _ in models], seed=[k for _, k in models])
    seconds = torch.arange(2.0 * s).view(2, s) / 8
    labels = VALID.y.view(-1).bool()
    return Runs(told | scores, coords, torch.full((s,), -1), seconds, [Answering(right, labels)], (7, 3))


def test_the_comparison_by_hand():
    runs = join_runs([made_up("a", 0), made_up("b", 1, MODELS[:1])])
    runs.nonfinite[1] = 0
    table = comparison_table(runs, VALID)
    assert table.headers == [
        "loss", "n", "accuracy", "sd", "95% interval", "± images", "worst", "NLL", "non-finite", "s/model",
    ]  # fmt: skip
    last, nll = (runs.scores[name][1, :6].numpy() for name in ("accuracy", "nll"))
    (block, other), interval = runs.models, of_shares(crossed(last.reshape(3, 2)))
    images = [np.asarray(part.right).mean(0).std(ddof=1) / 8**0.5 for part in (block, other)]
    assert table[0] == [
        "a", 6, f"{last.mean():.4f}", f"{last.std(ddof=1):.4f}", f"{interval.low:.4f} to {interval.high:.4f}",
        f"{1.96 * images[0]:.4f}", f"{last.min():.4f}", f"{nll.mean():.4f}", 1,
        f"{(np.arange(6) + np.arange(6, 12)).mean() / 8:.4f}",
    ]  # fmt: skip
    alone = f"{runs.last()[6]:.4f}"
    assert table[1] == [
        "b", 1, alone, "", "", f"{1.96 * images[1]:.4f}", alone, f"{runs.last('nll')[6]:.4f}", 0,
        f"{1 / 8:.4f}",
    ]  # fmt: skip


def test_the_differences_by_hand():
    runs = join_runs([made_up(name, k) for k, name in enumerate("abc")])
    table = difference_table(runs, VALID)
    assert table.headers == [
        "paired difference", "n", "accuracy", "95% interval", "gained / lost", "with other images", "there",
    ]  # fmt: skip
    assert [line[0] for line in table] == ["b - a", "c - a", "c - b"]
    right = {name: np.asarray(part.right(VALID)) for name, part in runs.by("loss").items()}
    for line, (a, b) in zip(table, ("ab", "ac", "bc")):
        one, other = right[a].astype(float), right[b].astype(float)
        difference = (other - one).mean(1)
        interval = crossed(difference.reshape(3, 2))
        error = (other.mean(0) - one.mean(0)).std(ddof=1) / 8**0.5
        margin = math.hypot(interval.high - interval.mean, 1.96 * error)
        low, high = interval.mean - margin, interval.mean + margin
        gained, lost = ((x > y).sum(1).mean() for x, y in ((other, one), (one, other)))
        assert line == [
            f"{b} - {a}", 6, f"{difference.mean():+.4f}", f"{interval.low:+.4f} to {interval.high:+.4f}",
            f"{gained:.1f} / {lost:.1f}", f"{low:+.4f} to {high:+.4f}",
            "holds" if low > 0 or high < 0 else "may vanish",
        ]  # fmt: skip


def alike(right, models=1):
    """Answers [8] of so many models, all the same, as runs of a loss: its name is what is given."""
    runs = made_up("", 0, MODELS[:models])
    runs.models[0].right = torch.tensor(right).bool().expand(models, 8)
    runs.scores["accuracy"] = runs.models[0].right.double().mean(1).expand(2, -1)
    return runs


def test_a_difference_of_one_model_each_varies_over_images_alone():
    one, other = alike([0, 0, 0, 0, 0, 0, 1, 1]), alike([1, 1, 1, 1, 1, 1, 0, 1])
    one.coords["loss"], other.coords["loss"] = ["one"], ["other"]
    margin = 1.96 * np.std([1] * 6 + [-1, 0], ddof=1) / 8**0.5
    for parts, sign in ((one, other), 1), ((other, one), -1):
        (line,) = difference_table(join_runs(list(parts)), VALID)
        ends = sorted((sign * 5 / 8 - margin, sign * 5 / 8 + margin))
        told = "{:+.4f} to {:+.4f}".format(*ends)
        counts = "6.0 / 1.0" if sign == 1 else "1.0 / 6.0"
        assert line[1:] == [1, f"{sign * 5 / 8:+.4f}", "", counts, told, "holds"]
    same = join_runs([one, alike([0, 0, 0, 0, 0, 0, 1, 1])])
    (line,) = difference_table(same, VALID)
    assert line[2:] == ["+0.0000", "", "0.0 / 0.0", "+0.0000 to +0.0000", "none"]


@pytest.mark.parametrize("broken", [0, 1])
def test_losses_without_a_pair_for_each_model_are_not_compared(broken):
    parts = [made_up("a", 0), made_up("b", 1), made_up("c", 2, MODELS[:5])]
    parts[broken].scores["accuracy"][1, 3] = torch.nan
    table = difference_table(join_runs(parts), VALID)
    for line in table:
        assert line[1:] == ["", "", "not paired: a model is missing or went non-finite", "", "", ""]
    parts[broken] = made_up("ab"[broken], broken)
    told = [line[2] != "" for line in difference_table(join_runs(parts), VALID)]
    assert told == [True, False, False], "the sound ones are"


def test_a_sweep_that_is_not_complete_has_holes():
    parts = [made_up("a", 0, MODELS[:3]), made_up("b", 1, MODELS[:2])]
    for part, rates in zip(parts, ([10.0, 0.125, 10.0], [0.125, 1 / 3])):
        part.coords["lr"], part.coords["data_seed"] = rates, [0] * len(rates)
    a, b = (part.last().tolist() for part in parts)
    table = sweep_table(join_runs(parts))
    assert table.headers == ["lr", "a", "b"] and table == [
        ["0.125", f"{a[1]:.4f}", f"{b[0]:.4f}"],
        ["0.3333", "", f"{b[1]:.4f}"],
        ["10", f"{(a[0] + a[2]) / 2:.4f} ± {np.std([a[0], a[2]], ddof=1):.4f}", ""],
    ]


def test_the_seconds_of_threads_add_up_to_the_clocks(sample, monkeypatch):
    clock = threading.local()

    def tick():  # each thread's own clock: an epoch takes a second
        clock.now = getattr(clock, "now", 0.0) + 1
        return clock.now

    monkeypatch.setattr("mnist_ce.training.time.perf_counter", tick)
    monkeypatch.setattr(ensemble, "workers_for", lambda *_: 2)
    few, settings = (sample[0][::500], sample[1][::100]), dict(epochs=2, device="cpu", progress=False)
    runs = fit_many(mnist_loss, *few, range(60), **settings)
    assert_close(runs.seconds, torch.full((2, 60), 1 / 60, dtype=torch.double), terms=4)
    runs = compare(mnist_loss, *few, range(2), range(2), **settings)
    # compare looked at its clock twice, a second apart: the four models share that, in two epochs
    assert_close(runs.seconds, torch.full((2, 4), 1 / 8, dtype=torch.double), terms=4)


@pytest.mark.parametrize(
    "train, error, words",
    [
        (lambda d: compare([mnist_loss], *d, seeds=[]), ValueError, "^seeds is empty$"),
        (lambda d: compare([mnist_loss], *d, orders=[]), ValueError, "^orders is empty$"),
        (lambda d: compare([mnist_loss], *d, orders=[0, 1, 0]), ValueError, "^orders holds 0 twice"),
        (lambda d: compare([mnist_loss], *d, seeds=[*range(150), 7]), ValueError, "^seeds holds 7 twice"),
        (lambda d: compare([mnist_loss], *d, data_seed=3), TypeError, r"^data_seed: write orders=\[3\]$"),
        (lambda d: compare("mnist_loss", *d), TypeError, "^losses='mnist_loss' must be functions"),
        (lambda d: sweep([mnist_loss], *d, []), ValueError, "^rates is empty$"),
        (lambda d: sweep([mnist_loss], *d, 0.1), TypeError, r"^rates=0.1 must be a sequence: write rates=\[0.1\]$"),
        (lambda d: sweep([mnist_loss], *d, [1, 0.5, 1.0]), ValueError, "^rates holds 1.0 twice"),
        (lambda d: sweep([mnist_loss], *d, [1], lr=3), TypeError, r"^lr: write rates=\[3\]$"),
        (lambda d: fit_many(mnist_loss, *d, [0], lr="1"), ValueError, "^lr='1' must be a number"),
        (lambda d: fit_many(mnist_loss, *d, [0], data_seed="a"), ValueError, "^data_seed='a' must be an int"),
    ],
)  # fmt: skip
def test_runs_that_make_no_sense(sample, train, error, words):
    with pytest.raises(error, match=words):
        train((sample[0][::500], sample[1][::100]))


def test_a_rate_may_be_a_tensor_of_one_number(sample):
    few, quiet = (sample[0][::500], sample[1][::100]), dict(epochs=1, progress=False)
    runs = fit_many(mnist_loss, *few, [0, 1], lr=torch.tensor(0.5), init_std=iter([0.1, 0.2]), **quiet)
    assert runs.coords["lr"] == [0.5, 0.5] and runs.settings["lr"] == 0.5
    assert runs.settings["init_std"] == [0.1, 0.2]


def test_a_sweep_trains_on_the_training_images(sample):
    few = sample[0][::100], sample[1][::50]
    found = sweep([mnist_loss], *few, [0.5, 1.0], range(3), epochs=2, progress=False)
    for lr in 0.5, 1.0:
        plain = fit_many(mnist_loss, *few, range(3), lr=lr, epochs=2, progress=False)
        assert_close(found.where(lr=lr).weights, plain.weights, terms=784)


def test_the_interval_over_other_images_is_no_narrower_with_two_models(sample):
    few = sample[0][::100], sample[1][::20]
    runs = compare([mnist_loss, cross_entropy_loss], *few, range(2), [0], epochs=2, progress=False)
    (row,) = difference_table(runs, few[1])
    of_runs, with_images = ([float(end) for end in row[k].split(" to ")] for k in (3, 5))
    assert with_images[0] <= of_runs[0] < of_runs[1] <= with_images[1]


@pytest.mark.parametrize("settings, words", [
    (dict(model=3), r"^compare has no model: it trains linear models alone; write fit\(…, model=…\) for each loss$"),
    (dict(epoch=1), "^compare has no epoch: did you mean epochs.$"),
    (dict(verbose=1), "^compare has no verbose: it has epochs, lr, batch_size, shuffle, init_std, device, progress, data_seed$"),
])  # fmt: skip
def test_settings_that_compare_does_not_have(sample, settings, words):
    with pytest.raises(TypeError, match=words):
        compare([mnist_loss], *sample, **settings)
    with pytest.raises(TypeError, match=words.replace("compare", "sweep")):
        sweep([mnist_loss], *sample, rates=[1], **settings)
    with pytest.raises(TypeError, match=r"^rates='0.1:10:5' must be a sequence: write rates=\[0.1, 1\]$"):
        sweep([mnist_loss], *sample, rates="0.1:10:5")
