"""The doctor convicts each faulty function of exactly its faults, and acquits the sound ones."""

import functools
import random
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce import losses, metrics, original
from mnist_ce.cli import main
from mnist_ce.doctor import Check, Report, examine, find_object, watch


def faults(*arguments, **options):
    """The causes that fail, and those that are warned of."""
    report = examine(*arguments, **options)
    return [check.cause for check in report.failed], [check.cause for check in report.warned]


def hinge(z, y):
    return (1 - z * y).clamp(min=0).mean()


@pytest.mark.parametrize("columns", [None, 3, 10])
@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        nn.NLLLoss(),
        nn.KLDivLoss(reduction="batchmean"),
        nn.BCELoss(),
        nn.BCEWithLogitsLoss(),
        lambda z, y: F.cross_entropy(z, y.squeeze()),
        lambda z, y: F.mse_loss(z, F.one_hot(y.view(-1), z.shape[1]).float()),
    ],
    ids=["CE", "CE none", "NLL", "KL", "BCE", "BCE logits", "squeezed", "squares"],
)
def test_sound_losses_that_the_notebook_does_not_try(loss, columns):
    assert faults(loss, columns=columns) == ([], [])


@pytest.mark.parametrize("columns", [2, 3, 10])
def test_class_weights_are_no_fault(columns):
    weight = torch.linspace(1, 3, columns)
    assert faults(nn.CrossEntropyLoss(weight=weight), metrics.accuracy) == ([], [])
    assert faults(nn.CrossEntropyLoss(weight=weight), columns=columns) == ([], [])


@pytest.mark.parametrize(
    "loss, failed, warned",
    [
        (lambda z, y: losses.mnist_loss(-z, y), ["sign"], []),
        (lambda z, y: F.binary_cross_entropy(z.sigmoid(), y), [], []),
        (lambda z, y: losses.mnist_loss(z.detach(), y), ["no-gradient"], []),
        (lambda z, y: losses.mnist_loss(z.nan_to_num(), y), ["hides-nan"], []),
        (lambda z, y: -(z * (2 * y - 1)).sigmoid().log().mean(), ["not-finite"], ["broadcast"]),
        (lambda z, y: F.mse_loss(z, y.view(-1).float()), ["broadcast"], []),
        (lambda z, y: (z > 0).float().mean(), ["no-gradient"], []),
        (lambda z: z, ["target-form"], []),
        (lambda z, y: (losses.mnist_loss(z, y), z), ["target-form"], []),
        (F.cross_entropy, ["columns"], []),
        (hinge, [], ["broadcast"]),
    ],
    ids=(
        "reversed,clamped,detached,hides NaN,log sigmoid,table,comparison,signature,tuple,"
        "two columns,hinge"
    ).split(","),
)
def test_faults_of_one_column(loss, failed, warned):
    assert faults(loss, columns=1) == (failed, warned)


def test_what_cannot_be_called_has_one_fault_and_the_rest_is_skipped():
    report = examine(lambda z: z)
    assert report.causes == ["target-form"] and "TypeError" in report[0].why
    skipped = [check.cause for check in report.skipped]
    assert {"sign", "not-finite", "dead-class", "hides-nan"} < set(skipped)
    assert [check.cause for check in report if check.status == "pass"] == ["columns", "wrong-gradient"]


def test_a_loss_that_a_decorator_negates_rises_whatever_it_is_called():
    for loss in F.cross_entropy, losses.cross_entropy_loss:
        negated = functools.wraps(loss)(lambda *pair, loss=loss: -loss(*pair))
        report = examine(negated)
        assert report.causes == ["sign"]
        assert "0.6931 for logits [0, 0], -0.3133 for the better [1, 0]" in report.failed[0].why


@pytest.mark.parametrize("label", [0, 4, 9])
def test_every_class_must_have_a_gradient(label):
    def loss(z, y):
        each = F.cross_entropy(z, y, reduction="none")
        return torch.where(y == label, each.detach(), each).mean()

    report = examine(loss, columns=10)
    assert report.causes == ["dead-class"] and report.failed[0].why.startswith(f"label {label}:")
    assert faults(nn.CrossEntropyLoss(ignore_index=label), columns=10) == ([], ["dead-class"])


def test_a_loss_of_log_probabilities_is_judged_by_what_the_model_gives(sample):
    train, _ = sample
    raw = nn.Linear(784, 2)
    normal = nn.Sequential(raw, nn.LogSoftmax(1))
    twice = nn.Sequential(raw, nn.Softmax(1))
    assert faults(F.nll_loss, model=normal, train=train) == ([], [])
    for model in raw, twice:
        assert faults(F.nll_loss, model=model, train=train) == (["nll-input"], [])
        assert faults(losses.nll_loss, model=model, train=train) == (["nll-input"], [])
    assert faults(F.cross_entropy, model=normal, train=train) == ([], [])
    assert faults(F.cross_entropy, model=twice, train=train) == (["softmax-twice"], [])
    assert faults(nn.NLLLoss(reduction="sum")) == ([], ["sum-for-mean"])


def not_too_long(z, y):
    if len(y) > 900:
        raise RuntimeError("too long")
    return (z.argmax(1) == y).float().mean()


def half(z, y):
    return ((z > 0.5) == y.view(-1, 1)).float().mean()


@pytest.mark.parametrize(
    "metric, columns, failed",
    [
        (half, 1, ["metric-wrong"]),
        (lambda z, y: (z.argmax(0) == y).float().mean(), 3, ["metric-wrong"]),
        (lambda z, y: (z.argmax(0) == y.view(-1, 1)).float().mean(), 3, ["metric-wrong"]),
        (lambda z, y: (z.argmax(1) == y.view(-1, 1)).float().mean(), 10, ["metric-wrong"]),
        (lambda z, y: z.softmax(1)[range(len(y)), y].mean(), 10, []),
        (lambda z, y: 1 / 0, 2, ["metric-wrong"]),
        (not_too_long, 2, ["metric-wrong"]),
        (original.column_zero_accuracy, 2, ["metric-wrong"]),
        (original.mean_of_batch_means, 2, ["metric-wrong", "metric-batches"]),
    ],
    ids=(
        "half,argmax(0),argmax(0) table,table,probability,raises,raises late,column 0,original"
    ).split(","),
)
def test_metrics(metric, columns, failed):
    loss = F.binary_cross_entropy_with_logits if columns == 1 else F.cross_entropy
    assert faults(loss, metric, columns=columns)[0] == failed


def test_argmax_over_the_examples_is_named():
    (check,) = examine(metric=lambda z, y: (z.argmax(0) == y).float().mean()).failed
    assert "argmax(1), over the classes" in check.fix


def test_a_threshold_of_a_half_is_right_for_a_loss_of_probabilities():
    assert faults(nn.BCELoss(), half, columns=1) == ([], [])
    assert faults(metric=half, columns=1) == ([], ["metric-wrong"])


def test_a_metric_of_batch_means_with_the_right_column_is_convicted_of_that_alone():
    def means(z, y):
        return torch.stack([metrics.accuracy(*p) for p in zip(z.split(64), y.split(64))]).mean()

    assert faults(F.cross_entropy, means) == (["metric-batches"], [])


def test_the_attributes_of_a_report():
    report = examine(original.log_of_softmax, original.mean_of_batch_means)
    assert report.causes == ["not-finite", "metric-wrong", "metric-batches"]
    for check in report:
        assert isinstance(check, Check) and check.status in ("pass", "fail", "warn", "skip")
        assert check.passed == (check.status != "fail")
    by_status = report.failed + report.warned + report.skipped
    assert len(by_status) + sum(check.status == "pass" for check in report) == len(report)
    assert all(check.why and check.fix for check in report.failed)
    assert "[0, 100], target 0: loss 99.98, gradient [nan, " in report.failed[0].why
    text = str(report)
    assert text.count("FAIL") == 3 and max(map(len, text.split("\n"))) <= 80
    assert "<table>" in report._repr_html_() and "loss 99.98" in report._repr_html_()
    assert examine(original.log_probability).causes == ["sign", "not-finite"]


def light(color):
    """The relative luminance of a color, as WCAG 2 has it."""
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_a_report_reads_on_a_page_of_any_color_and_holds_no_tags_of_strangers():
    seen = [Check("a", "first", "fail", "it <b>broke</b>", "mend & \"quote\"", "2 to 1"), Check("w<i>", "", "warn", "3"),
            Check("s", "", "skip", "", "give more"), Check("g", "", "pass")]  # fmt: skip
    shown = Report(seen)._repr_html_()
    marks = re.findall(r'<b style="background:(#\w{6});color:#fff;[^"]*">(.*?)</b>', shown)
    assert [mark for _, mark in marks] == ["✗ FAIL", "! WARN", "- SKIP", "✓ PASS"], "a word, not color alone"
    for color, _ in marks:  # of 4.5 to 1, WCAG's AA: white on its own color, whatever the page has
        assert 1.05 / (light(color) + 0.05) >= 4.5
    assert shown.count("color:") == len(marks), "all else has the color of the page"
    assert "it &lt;b&gt;broke&lt;/b&gt;<br>-&gt; mend &amp; &quot;quote&quot;<br>   2 to 1" in shown, "in one row"
    assert "w&lt;i&gt;" in shown and "<i>" not in shown and "<script" not in shown
    assert shown.count("<tr>") == 1 + 4 and "<table>" in Report()._repr_html_()
    assert str(Report(seen)[:1]) == str(Report(seen[:1])) != str(Report(seen)), "a part is a report"
    assert repr(Report(seen)) == str(Report(seen))
    assert repr(Report([3])).startswith("<mnist_ce.case.Report object") and Report([3])._repr_html_() is None


def test_each_column_of_a_report_holds_what_its_header_says():
    seen = [Check("c", "third", "skip", "", "give more"), Check("d", "fourth", "skip", "", "give more"),
            Check("e", "fifth", "skip", "too low", follows="a"), Check("f", "sixth", "skip", "see a"),
            Check("b", "second", "pass", "well", "no need"), Check("g", "seventh", "pass"),
            Check("w", "eighth", "warn", "3 (limit 2)"),
            Check("a", "first", "fail", "it broke", "mend it", "2 to 1")]  # fmt: skip
    header, line, *rows = str(Report(seen)).splitlines()
    starts = [found.start() for found in re.finditer("-+", line)]
    cut = lambda row: [row[a:b].strip() for a, b in zip(starts, [*starts[1:], None])]
    assert cut(header) == ["", "cause", "what was seen"]
    assert [cut(row) for row in rows] == [
        ["✗ FAIL", "a", "it broke"], ["", "", "-> mend it"], ["", "", "2 to 1"],
        ["", "so e", "too low"], ["! WARN", "w", "3 (limit 2)"],
        ["- SKIP", "", "f"], ["", "", "see a"], ["- SKIP", "", "c, d"], ["", "", "-> give more"],
        ["✓ PASS", "b", "well"], ["✓ PASS", "", "g"],
    ]  # fmt: skip


def test_what_was_not_passed_is_skipped_and_named():
    lacking = lambda *given, **named: {
        check.fix for check in examine(*given, **named).skipped if check.fix
    }
    parts = "metric", "model", "train", "step"
    assert lacking(F.cross_entropy) == {f"pass {part}=" for part in parts}
    assert "pass loss=" in lacking(metric=metrics.accuracy)
    report = examine(F.cross_entropy, step=lambda xb, yb: None)
    assert ("weights-do-not-move", "pass train=") in {(c.cause, c.fix) for c in report.skipped}


@pytest.mark.parametrize("shift", [0, 1])
def test_everything_is_put_back_and_nothing_printed(shift, capfd, sample):
    def rude(scores, targets):
        print("printed")
        torch.rand(3), np.random.rand(3), random.random()
        scores += 1
        targets -= shift
        return F.cross_entropy(scores, targets + shift)

    train, valid = sample
    model = nn.Sequential(nn.BatchNorm1d(784), nn.Linear(784, 2), nn.Dropout())
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = torch.Generator().manual_seed(3)
    pairs = TensorDataset(train.x[::41], train.y[::41, 0])  # of both classes
    loader = DataLoader(pairs, 32, shuffle=True, generator=own)
    order = own.get_state()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with torch.no_grad():
        report = examine(rude, model=model, train=loader, valid=valid)
        assert not torch.is_grad_enabled()
    assert report.causes == []
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
    assert torch.equal(own.get_state(), order)
    assert [part.training for part in model.modules()] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")


class Holding(nn.Linear):
    """As of Hugging Face: the loss is computed inside of the model, which returns both."""

    form = staticmethod(lambda loss, z: loss)

    def forward(self, x, y):
        z = super().forward(x)
        return self.form(F.cross_entropy(z, y), z)


@pytest.mark.parametrize(
    "form",
    [lambda loss, z: loss, lambda loss, z: SimpleNamespace(loss=loss, logits=z)],
    ids=["the loss", "an object"],
)
def test_a_watched_model_that_returns_its_loss_is_as_it_was_after_the_training(form):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 4, generator=generator), torch.arange(32) % 3
    model = Holding(4, 3)
    model.form = form
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    with watch() as seen:
        for _ in range(3):
            optimizer.zero_grad()
            out = model(x, y)
            getattr(out, "loss", out).backward()
            optimizer.step()
        model.eval()
    before = [p.detach().clone() for p in model.parameters()], model.weight.grad.clone()
    assert examine(seen).causes == [] and not model.training
    assert all(map(torch.equal, model.parameters(), before[0]))
    assert torch.equal(model.weight.grad, before[1])
    assert [state["step"].item() for state in optimizer.state.values()] == [3, 3]


@pytest.mark.parametrize(
    "rate, schedule, why, fix",
    [
        (0.003, lambda k: k / 100, "lr is 0: its schedule makes it so of lr=0.003",
         "call scheduler.step() after each optimizer.step(), or start its factor above 0"),
        (0.0, None, "lr is 0", "lr=0.1 for SGD, lr=0.001 for Adam, to begin with"),
    ],
    ids=["warm-up never stepped", "none"],
)  # fmt: skip
def test_a_rate_of_0_is_cured_where_it_was_made(rate, schedule, why, fix):
    x, y = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    if schedule:
        torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    with watch() as seen:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    (check,) = examine(seen).failed
    assert (check.cause, check.why, check.fix) == ("lr-small", why, fix)


def test_a_model_that_counts_its_calls_counts_none_of_these(sample):
    class Counting(nn.Linear):
        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    model = Counting(784, 2)
    model.register_buffer("calls", torch.zeros(()))
    assert faults(F.cross_entropy, model=model, train=sample[0]) == ([], [])
    assert model.calls == 0


def test_a_loss_that_draws_random_numbers_is_not_called_a_mixer():
    noisy = lambda z, y: F.cross_entropy(z + 0.01 * torch.rand_like(z), y)
    report = examine(noisy)
    assert report.failed == [] and "random numbers" in report.warned[0].why


def test_models_that_do_not_fit(sample):
    train, _ = sample
    assert faults(model=nn.Linear(784, 3), train=train) == (["columns"], [])
    assert faults(model=nn.Linear(100, 2), train=train) == (["columns"], [])
    assert faults(losses.mnist_loss, model=nn.Linear(784, 2), train=train) == (["columns"], [])
    assert faults(F.cross_entropy, model=nn.Linear(784, 1), train=train) == (["columns"], [])
    pair = train.x[:50], torch.arange(50) % 10
    assert faults(model=nn.Linear(784, 3), train=pair) == (["columns"], [])
    squashed = nn.Sequential(nn.Linear(784, 1), nn.Sigmoid())
    bce, pair = F.binary_cross_entropy_with_logits, (train.x, train.y.float())
    assert faults(bce, model=squashed, train=pair) == (["softmax-twice"], [])
    assert faults(F.binary_cross_entropy, model=squashed, train=train) == ([], [])


def test_a_sigmoid_before_a_loss_with_a_sigmoid_is_found_with_digits_too(sample):
    squashed = nn.Sequential(nn.Linear(784, 1), nn.Sigmoid())
    bce = F.binary_cross_entropy_with_logits
    assert faults(bce, model=squashed, train=sample[0]) == (["softmax-twice"], [])


def test_validation_rows_among_the_training_rows(sample):
    train, valid = sample
    assert faults(train=train, valid=valid) == ([], [])
    assert faults(train=train, valid=train) == (["leak"], [])
    pairs = (train.x, train.y), (torch.cat([valid.x, train.x[:200]]), torch.zeros(2238, 1))
    (check,) = examine(train=pairs[0], valid=pairs[1]).failed
    assert check.cause == "leak" and "of 1119 validation rows" in check.why
    loaders = [DataLoader(TensorDataset(*pair), 256) for pair in pairs]
    assert faults(train=loaders[0], valid=loaders[1]) == (["leak", "sorted"], [])
    report = examine(train=iter(loaders[0]), valid=valid)
    assert report.failed == [] and any("train is a" in check.why for check in report.skipped)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_learner_brings_everything(sample):
    pytest.importorskip("fastai", reason="fastai is a development tool")
    from mnist_ce.learner import learner

    train, valid = (data[::40] for data in sample)
    learn = learner(losses.cross_entropy_loss, train, valid)
    report = examine(learn)
    assert report.causes == []
    assert {check.fix for check in report.skipped if check.fix} == {"pass optimizer=", "pass step="}
    twin = learner(losses.cross_entropy_loss, train, valid)
    batches = [next(iter(one.dls.train))[0] for one in (learn, twin)]
    assert torch.equal(*batches)  # the order of the batches is still to be drawn
    learn.model = nn.Sequential(learn.model, nn.Softmax(1))
    learn.metrics = [original.column_zero_accuracy]
    report = examine(learn)
    assert report.causes == ["softmax-twice", "metric-wrong"]


def test_fastai_is_not_imported():
    code = (
        "import sys, torch; from mnist_ce.doctor import examine\n"
        "examine(torch.nn.CrossEntropyLoss()); assert not {'fastai', 'matplotlib'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_input_that_makes_no_sense():
    with pytest.raises(TypeError, match="the loss must be a function, got 'mse'"):
        examine("mse")
    with pytest.raises(TypeError, match=r"got 'train.py': for a script write examine_script\('train.py'\)$"):
        examine("train.py")
    with pytest.raises(ValueError, match="'F.cross_entropy' is not module:function: write torch.nn.functional:cross_entropy$"):
        find_object("F.cross_entropy")
    with pytest.raises(TypeError, match="the metric must be a function, got 3"):
        examine(F.cross_entropy, 3)
    with pytest.raises(TypeError, match=r"is a class: write CrossEntropyLoss\(\)"):
        examine(nn.CrossEntropyLoss)
    for columns in 0, True, 2.0:
        with pytest.raises(ValueError, match=f"columns={columns!r} must be"):
            examine(F.cross_entropy, columns=columns)
    with pytest.raises(ValueError, match="examine: pass a loss, a metric"):
        examine()
    with pytest.raises(TypeError, match=r"the first argument is the loss: write examine\(loss, mod"):
        examine(nn.Linear(3, 2))
    with pytest.raises(TypeError, match=r"write: with watch\(\) as seen"):
        examine(watch())
    with pytest.raises(ValueError, match="the model lies on the device meta"):
        examine(model=nn.Linear(3, 2, device="meta"))


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_the_command_line_names_the_faults():
    ours = "mnist_ce.original:log_of_softmax", "mnist_ce.original:mean_of_batch_means"
    told = run(ours[0], "--metric", ours[1])
    assert told.exit_code == 1 and told.output.count("FAIL") == 3
    told = run("torch.nn.functional:cross_entropy", "--metric", "mnist_ce.metrics:accuracy")
    assert told.exit_code == 0 and "FAIL" not in told.output and "hides-nan" in told.output


def test_the_command_line_finds_functions_in_the_current_folder(tmp_path, monkeypatch):
    body = "def negative(z, y):\n    return ((z.sigmoid() - y) ** 2).mean().neg()\n"
    (tmp_path / "my_losses.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    told = run("my_losses:negative", "--columns", "1")
    assert told.exit_code == 1 and "FAIL" in told.output
    for name in "cross_entropy", "no_such_module:f", "torch:nothing", "torch:float32":
        assert run(name).exit_code == 2
