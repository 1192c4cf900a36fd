"""What a visitor does first: each works at the first try, or is told in one line what to write."""
import functools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mnist_ce
from mnist_ce.all import *  # noqa: F403
from mnist_ce.all import (
    Digits, convnet, cross_entropy_loss, fit, fit_many, join_runs, load_runs, mnist_loss, plot_curves, write_json
)  # fmt: skip
from mnist_ce.training import NonFiniteLoss


def book(preds, tgts):  # the book's own, chapter 4
    preds = preds.sigmoid()
    return torch.where(tgts == 1, 1 - preds, preds).mean()


def focal(preds, targets, gamma=2.0):
    log_p = F.log_softmax(preds, dim=1)[range(len(preds)), targets]
    return (-((1 - log_p.exp()) ** gamma) * log_p).mean()


LOSSES = [book, F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1), focal]


@pytest.mark.parametrize("loss", LOSSES, ids=["book", "F.cross_entropy", "smoothed", "focal"])
def test_anybodys_loss_trains(sample, loss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = fit(loss, *sample, epochs=3, progress=False)
    assert run.history[-1].accuracy > 0.97
    assert run.history[-1].train_loss < run.history[0].train_loss


def test_the_books_loss_is_ours(sample):
    theirs, ours = (fit(loss, *sample, epochs=2, progress=False) for loss in (book, mnist_loss))
    assert theirs.weights.shape == (784, 1)
    for a, b in zip(theirs.history, ours.history):
        assert a.accuracy == pytest.approx(b.accuracy, abs=1 / 2038)
        assert a.valid_loss == pytest.approx(b.valid_loss, rel=1e-4)


def test_a_decorated_loss_is_itself(sample):
    calls = []

    def logged(loss):
        @functools.wraps(loss)
        def wrapper(*args, **kwargs):
            calls.append(1)
            return -loss(*args, **kwargs)

        return wrapper

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = fit(logged(cross_entropy_loss), *sample, epochs=1, lr=0.01, progress=False)
    assert [str(w.message).split(":")[0] for w in said] == ["cross_entropy_loss rises as the right answer's score rises"]
    assert run.history[-1].accuracy <= 1028 / 2038 + 1e-12 and len(calls) > 49


def test_a_sum_is_reported_as_a_mean(sample):
    run = fit(nn.CrossEntropyLoss(reduction="sum"), *sample, epochs=1, lr=1 / 256, progress=False)
    epoch = run.history[-1]
    assert epoch.valid_loss == pytest.approx(epoch.nll, rel=1e-5) and epoch.train_loss < 0.2


def test_class_weights_serve_fit_and_fit_many_says_why_not(sample):
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    assert fit(loss, *sample, epochs=1, progress=False).history[-1].accuracy > 0.97
    with pytest.raises(ValueError, match="class weights.*train them one by one with fit"):
        fit_many(loss, *sample, [0])


def test_a_cnn_with_adam_trains_on_pictures_of_its_own_arrays(sample):
    digits = sample[0].x.mul(255).round().byte().view(-1, 28, 28).numpy()[::4]
    names = np.array(["seven", "three"])[sample[0].y.view(-1).numpy()][::4]
    train = Digits.of(digits, names)
    test = (sample[1].x * 255).round().byte().view(-1, 28, 28).numpy()
    valid = Digits.of(test, np.where(sample[1].digits.numpy() == 3, "three", "seven"), classes=train.classes)
    assert train.classes == ("seven", "three") and train.x.max() == 1

    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 36, 2))
    with pytest.raises(ValueError, match="write lr=0.001 for Adam"):
        fit(F.cross_entropy, train, valid, model=model, optimizer=torch.optim.Adam)
    run = fit(F.cross_entropy, train, valid, epochs=3, lr=1e-3, model=model, optimizer=torch.optim.Adam, progress=False)
    pixel_baseline = 0.9514  # of the data notebook
    assert run.history[-1].accuracy > pixel_baseline
    assert (run.predict(valid.x) == valid.digits).mean() == pytest.approx(run.history[-1].accuracy)


def test_the_natural_comparison(sample):
    run = fit(cross_entropy_loss, *sample, epochs=1, progress=False)
    valid = sample[1]
    right = run.predict(valid.x) == valid.digits
    assert right.double().mean().item() == pytest.approx(run.history[-1].accuracy)
    share = run.predict_proba(valid.x)
    assert share.shape == (2038, 2) and torch.equal(torch.tensor(valid.classes)[share.argmax(1)], run.predict(valid.x))
    for classes in (7, 3), ("seven", "three"), ("seven", 3):
        run.runs.classes = classes
        named = Digits(valid.x, valid.y, classes)
        share = (run.predict(named.x) == named.digits).sum() / len(named)
        assert f"{share:.4f}" == f"{run.history[-1].accuracy:.4f}" and share == pytest.approx(0.98, abs=0.01)


def test_loaders_and_data_sets_are_a_way_in(sample):
    images, labels = sample[0].x[::100].view(-1, 1, 28, 28), sample[0].digits[::100]
    pairs = TensorDataset(images, labels)
    for given in pairs, DataLoader(pairs, batch_size=16):
        digits = Digits.of(given)
        assert torch.equal(digits.x, images.flatten(1)) and torch.equal(digits.digits, labels)
    with pytest.raises(TypeError, match=r"Digits.of\("):
        fit(cross_entropy_loss, DataLoader(pairs), sample[1])


def test_images_of_0_to_255_do_not_pass_in_silence(sample):
    with pytest.warns(UserWarning, match="255"):
        Digits.of(sample[0].x * 255, sample[0].digits)


def test_epochs_are_drawn_as_epochs_and_a_broken_seed_is_left_out(sample):
    runs = fit_many(cross_entropy_loss, *sample, range(3), epochs=2, progress=False)
    runs.scores["accuracy"][1, 0] = torch.nan
    (line,) = plot_curves({"mine": runs.accuracy}).axes[0].lines
    assert list(line.get_xdata()) == [1, 2]
    assert line.get_ydata()[1] == pytest.approx(runs.accuracy[1, 1:].mean().item())


def test_a_broken_training_says_where_and_gives_back_weights(sample):
    def naive(preds, targets):
        return F.nll_loss(torch.log(torch.softmax(preds, dim=1)), torch.squeeze(targets))

    with pytest.raises(NonFiniteLoss, match="the gradient of the scores is nan in epoch 1, batch 2") as caught:
        fit(naive, *sample, init_std=1.0, shuffle=False, seed=1, progress=False)
    assert caught.value.run.weights.isfinite().all()


def test_the_package_gives_its_names_lazily():
    assert mnist_ce.fit is fit and mnist_ce.Digits is Digits and mnist_ce.convnet is convnet
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        mnist_ce.fitt


def test_the_api_that_others_rely_on(sample):
    """The design's block, line by line."""
    from mnist_ce import data, doctor, ensemble, losses, metrics, original, training

    train, valid = sample
    assert train.x.dtype == torch.float32 and train.x.shape == (12396, 784) and valid.x.shape == (2038, 784)
    assert train.y.dtype == torch.int64 and train.y.shape == (12396, 1) and train.classes == (7, 3)
    assert train.index.dtype == torch.int64 and train.index[0] == 10 and len(train[10:20]) == 10
    assert len(train[train.y == 1]) == 6131 and len(train.to("cpu")) == 12396
    toy = data.Digits(x=train.x[:2], y=train.y[:2], classes=(7, 3), index=train.index[:2])
    assert toy.index.tolist() == [10, 10000]
    z, y = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    for loss in losses.softmax_loss, losses.cross_entropy_loss:
        assert torch.equal(loss(z, y, reduction="none"), loss(z, y.view(-1, 1), reduction="none"))
        assert loss.__name__.endswith("_loss") and loss.decodes(loss.activation(z)).tolist() == z.argmax(1).tolist()
    assert losses.nll_loss(z.log_softmax(1), y) == losses.cross_entropy_loss(z, y)
    assert losses.mnist_loss(z[:, :1], y, reduction="sum").shape == ()
    assert metrics.accuracy(z, y) == metrics.accuracy(z, y.view(-1, 1)) and metrics.binary_accuracy(z[:, :1], y) >= 0

    run = training.fit(
        losses.cross_entropy_loss, train, valid, epochs=1, lr=1.0, batch_size=256, shuffle=True, init_std=0.01,
        seed=0, model=None, device="auto", on_nonfinite="raise", progress=False, data_seed=0, optimizer=None,
        augment=None, metrics=None,
    )  # fmt: skip
    last = run.history[-1]
    assert all(value >= 0 for value in (last.train_loss, last.valid_loss, last.accuracy, last.nll, last.seconds))
    assert run.weights.shape == (784, 2) and run.bias.shape == (2,) and run.nonfinite == -1
    assert set(run.predict(valid.x).tolist()) == {3, 7}

    runs = ensemble.fit_many(
        losses.mnist_loss, train, valid, seeds=range(3), epochs=2, lr=1.0, batch_size=256, shuffle=True,
        init_std=0.01, device="auto", progress=False,
    )  # fmt: skip
    for scores in runs.accuracy, runs.train_loss, runs.valid_loss:
        assert scores.shape == (2, 3) and scores.dtype == torch.float64
    assert runs.nonfinite.tolist() == [-1] * 3 and runs.nonfinite.dtype == torch.int64
    assert runs.weights.shape == (3, 784, 1) and runs.bias.shape == (3, 1)

    assert list(original.EXPERIMENTS) == ["mnist_loss", "cross_entropy", "softmax", "softmax_lr_0.1"]
    again = original.reproduce("softmax", seeds=range(2), progress=False)
    assert again.reported.shape == again.true_accuracy.shape == (10, 2) and again.nonfinite.tolist() == [-1, -1]

    report = doctor.examine(losses.cross_entropy_loss, metrics.accuracy, model=torch.nn.Linear(784, 2), train=train)
    for check in report:
        assert check.status in ("pass", "fail", "warn", "skip") and check.passed == (check.status != "fail")
        assert isinstance(check.cause, str) and isinstance(check.name, str) and check.why is not None
        assert check.fix is not None
    assert report.causes == [] and report.failed == [] and report.warned == [] and report.skipped


def test_one_class_is_nothing_to_tell_apart(sample):
    threes = Digits(x=sample[0].x[:9], y=0 * sample[0].y[:9], classes=(3,), index=sample[0].index[:9])
    with pytest.raises(ValueError, match="train has one class, 3: nothing to tell apart"):
        fit(cross_entropy_loss, threes, threes, progress=False)


def test_the_column_of_the_labels_is_named_or_numbered(sample, tmp_path):
    pandas = pytest.importorskip("pandas")
    few = sample[0][::1000]
    frame = pandas.DataFrame((few.x * 255).round().byte().numpy())
    frame["class"] = few.digits.numpy()
    frame.to_csv(tmp_path / "named.csv", index=False)
    frame.to_csv(tmp_path / "plain.csv", index=False, header=False)
    for found in (
        Digits.of(frame, "class"), Digits.of(tmp_path / "named.csv", "class"), Digits.of(tmp_path / "plain.csv", 784)
    ):  # fmt: skip
        assert torch.equal(found.x, few.x) and torch.equal(found.digits, few.digits)
    with pytest.raises(ValueError, match="no column 'label' among .*: name the column of the labels"):
        Digits.of(frame)
    with pytest.raises(ValueError, match="no column 'kind' among '0', "):
        Digits.of(tmp_path / "named.csv", "kind")
    with pytest.raises(ValueError, match="there are labels and a column 'label'"):
        Digits.of(frame.assign(label=3), "class")
    with pytest.raises(TypeError, match=r"write \[Image.open\(path\) for path in paths\]"):
        Digits.of(["3.png", "7.png"], [3, 7])


def f1(y_true, y_pred):  # in the order of scikit-learn
    return 2 * ((y_true == 1) & (y_pred == 1)).sum() / ((y_true == 1).sum() + (y_pred == 1).sum())


def only_labels(y_true, y_pred):
    if y_true.ndim > 1:
        raise ValueError("labels alone")


def test_a_metric_of_labels_is_told_how_to_become_one_of_scores(sample):
    told = r"write lambda scores, targets: f\(targets, scores.argmax\(1\)\)"
    settings = dict(epochs=1, progress=False)
    with pytest.warns(UserWarning, match=told):
        fit(F.cross_entropy, *sample, metrics=dict(f1=f1), **settings)
    with pytest.raises(ValueError, match=f"'f1' failed on .*: labels alone; .*{told}"):
        fit(F.cross_entropy, *sample, metrics=dict(f1=only_labels), **settings)
    with pytest.warns(UserWarning, match=r"f\(targets, scores\[:, 0\] > 0\)"):
        fit(mnist_loss, *sample, metrics=dict(f1=lambda y, z: 0.0), **settings)
    run = fit(F.cross_entropy, *sample, metrics=dict(f1=lambda z, y: f1(y, z.argmax(1))), **settings)
    assert run.history[-1].f1 > 0.97


def test_a_loss_with_its_targets_first_is_told_to_turn_round(sample):
    def keras(y_true, y_pred):
        return F.cross_entropy(y_pred, y_true)

    with pytest.raises(ValueError, match=r"write lambda scores, targets: keras\(targets, scores\)"):
        fit(keras, *sample)


def test_what_makes_a_model_or_an_optimizer_is_told_apart_from_one(sample):
    model = nn.Linear(784, 2)
    adam = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(adam, 1)
    with pytest.raises(TypeError, match=r"got function: write model=make\(\)"):
        fit(F.cross_entropy, *sample, model=lambda: model, lr=0.1)
    with pytest.raises(TypeError, match=r"returns \(optimizer, schedule\), got a tuple$"):
        fit(F.cross_entropy, *sample, model=model, optimizer=(adam, schedule))


def test_own_models_from_several_seeds_become_one_result(sample, tmp_path):
    few = [data[::10] for data in sample]
    settings = dict(lr=0.1, epochs=1, progress=False)
    runs = [fit(F.cross_entropy, *few, model=nn.Linear(784, 2), seed=seed, **settings) for seed in range(2)]
    joined = join_runs(runs)
    assert joined.seeds == [0, 1] and joined.summary().n == 2
    assert torch.equal(joined.accuracy[:, 1], runs[1].accuracy)
    joined.save(tmp_path / "both.safetensors")
    again = load_runs(tmp_path / "both.safetensors", model=nn.Linear(784, 2)).answers(few[1])
    assert torch.equal(again, joined.answers(few[1])) and not torch.equal(again[0], again[1])
    write_json(tmp_path / "run.json", runs[0].raw())
    assert '"seed": [\n' in (tmp_path / "run.json").read_text()
    with pytest.raises(ValueError, match=r"write image\[None\]$"):
        runs[0].predict(sample[1].x[0])


def test_a_warning_points_at_the_visitors_own_line(sample):
    train, _ = sample
    with pytest.warns(UserWarning, match="are training images") as heard:
        fit(F.cross_entropy, train, train[::60], epochs=1, progress=False)
    with pytest.warns(UserWarning, match="Is a minus missing") as about_loss:
        fit(lambda z, y: -F.cross_entropy(z, y), train, sample[1], epochs=1, lr=0.001, progress=False)
    assert {warning.filename for warning in [*heard, *about_loss]} == {__file__}
