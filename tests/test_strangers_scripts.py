"""Trainings as people bring them: answers counted in the loop, tables, files of weights, several optimizers."""

import re
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import seeded
from test_strangers_loops import of_digits, seen_in, some_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mnist_ce.data import mnist
from mnist_ce.doctor import examine, examine_script, watch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def finding(report, cause):
    """The one line of a cause that failed or was warned of."""
    (check,) = [check for check in report.failed + report.warned if check.cause == cause]
    return check.why, check.fix


# ---- Answers that are counted in the loop


def counted(count, columns=10, loss=F.cross_entropy, batch=10):
    """What is seen of a loop that counts right answers by `count(scores, targets)` after each epoch."""
    train, valid = mnist()
    x, y, v, w = train.x[::200], train.y[::200, 0], valid.x[::50], valid.y[::50, 0]
    if columns < 10:
        y, w = y % 2, w % 2
    model = seeded(lambda: nn.Linear(784, columns))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    right = 0
    with watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=rng()):
            optimizer.zero_grad()
            loss(model(xb), yb).backward()
            optimizer.step()
        with torch.no_grad():
            for xb, yb in DataLoader(TensorDataset(v, w), batch):
                right += count(model(xb), yb)
    return examine(seen)


def of_one_column(z, y):
    return F.binary_cross_entropy_with_logits(z, y.view(-1, 1).float())


@pytest.mark.parametrize("count, loss, why, fix", [
    (lambda z, y: (z.argmax(0) == y).sum(), F.cross_entropy,
     "argmax of scores [10, 10] over dim 0: over the examples", "argmax(1), over the classes"),
    (lambda z, y: (z.data.softmax(1).max(0)[1] == y).sum(), F.cross_entropy,
     "max of scores [10, 10] over dim 0: over the examples", "argmax(1), over the classes"),
    (lambda z, y: (z.argmax() == y).sum(), F.cross_entropy,
     "argmax of scores [10, 10] over dim None: over everything", "argmax(1), over the classes"),
    (lambda z, y: (z.argmax(1, keepdim=True) == y).sum(), F.cross_entropy,
     "answers and targets [10, 1] and [10] are compared: a table [10, 10]", "targets.view_as(answers)"),
    (lambda z, y: (z.argmax(1) == y).sum(), of_one_column,
     "argmax of scores [10, 1]: of one column it is always 0", "compare scores > 0 with targets of the same shape"),
    (lambda z, y: ((z > 0.5).float() == y.view(-1, 1)).sum(), of_one_column,
     "the loop cuts raw scores at 0.5 to count answers: a score of 0.5 is a probability of 0.6225",
     "scores > 0, or scores.sigmoid() > 0.5"),
    (lambda z, y: (z[:, 0].round() == y).sum(), of_one_column,
     "the loop rounds raw scores to count answers: a score of 0.5 is a probability of 0.6225",
     "scores > 0, or scores.sigmoid() > 0.5"),
    (lambda z, y: ((z.sigmoid() > 0).float() == y.view(-1, 1)).sum(), of_one_column,
     "the loop compares probabilities with 0", "compare them with 0.5"),
], ids=range(8))  # fmt: skip
def test_answers_that_are_counted_wrongly_in_the_loop(count, loss, why, fix):
    assert finding(counted(count, 10 if loss is F.cross_entropy else 1, loss), "metric-wrong") == (why, fix)


@pytest.mark.parametrize("count, columns, loss", [
    (lambda z, y: (z.argmax(1) == y).sum(), 10, F.cross_entropy),
    (lambda z, y: (torch.max(z.data, 1)[1] == y).sum().item(), 10, F.cross_entropy),
    (lambda z, y: z.softmax(-1).topk(1)[1].flatten().eq(y).sum(), 10, F.cross_entropy),
    (lambda z, y: ((z[:, 0].sigmoid() > 0.5) == y.bool()).sum(), 1, of_one_column),
    (lambda z, y: ((z > 0).long().flatten() == y).sum(), 1, of_one_column),
], ids=range(5))  # fmt: skip
def test_answers_that_are_counted_rightly_in_the_loop(count, columns, loss):
    report = counted(count, columns, loss, batch=12)
    assert report.causes == []
    (check,) = [check for check in report if check.cause == "metric-wrong"]
    assert check.status == "pass" and check.why.startswith("note: seen in the loop: "), check


def test_where_no_answer_was_seen_a_metric_is_asked_for():
    (check,) = [c for c in examine(seen_in(of_digits(), F.cross_entropy, data=some_digits())) if c.cause == "metric-wrong"]
    assert (check.status, check.fix) == ("skip", "pass metric=")


# ---- Tables


def table(share=0.1):
    """Weak features, [600, 8], and labels that lean on all of them; `share` of them are 1."""
    x = torch.randn(600, 8, generator=rng())
    score = x.sum(1) + 8 * torch.randn(600, generator=rng(1))
    return x, (score > score.quantile(1 - share)).long()


def of_table(data, loss=F.cross_entropy):
    columns = data[0].shape[1]
    make = lambda: nn.Sequential(nn.Linear(columns, 16), nn.ReLU(), nn.Linear(16, 2))
    return examine(seen_in(make, loss, 0.01, data), train=data)


def test_labels_that_only_a_line_can_tell_are_not_apart():
    x, y = table(0.5)
    (check,) = [check for check in examine(train=(x, y)) if check.cause == "labels-apart"]
    assert check.status == "pass" and "a line fitted to half of" in check.why, check
    report = examine(train=(x, y[torch.randperm(len(y), generator=rng(2))]))
    (check,) = [check for check in report if check.cause == "labels-apart"]
    assert check.status == "warn" and "pick both by the same rows" in check.fix, check


def test_classes_that_are_weighed():
    x, y = table()
    assert "imbalance" in of_table((x, y)).causes
    weight = len(y) / (2 * y.bincount().float())
    report = of_table((x, y), nn.CrossEntropyLoss(weight=weight))
    assert "imbalance" not in report.causes
    (check,) = [check for check in report if check.cause == "imbalance"]
    assert check.why == "note: 90% of 600 examples are of class 0; the loss weighs the others 9 times"
    why, fix = finding(of_table((x, y), nn.CrossEntropyLoss(weight=weight.flip(0))), "imbalance")
    assert why == "class 0 has 90% of 600 examples, class 1 has 10%, and one of class 0 pulls 9 times as hard"
    assert fix == "weights in the order of the labels, len(y) / (C * y.bincount())"


def test_a_focal_loss_may_weigh_the_rare_class_less():
    x, y = table()

    def focal(z, y):  # as in the paper: alpha 0.25 for the rare class
        p = z.softmax(1).gather(1, y.view(-1, 1)).view(-1)
        return (torch.where(y == 1, 0.25, 0.75) * (1 - p) ** 2 * F.cross_entropy(z, y, reduction="none")).mean()

    (check,) = [check for check in of_table((x, y), focal) if check.cause == "imbalance"]
    assert check.why.startswith("90% of 600 examples are of class 0 (limit 80%)")


@pytest.mark.parametrize("labels, made, how", [
    (2, lambda y: 3.0 * y - 1, "gives the class away: one value for each"),
    (0, lambda y: 0.5 * y - 1, "follows the targets to the last digit"),
], ids=["classes", "numbers"])
def test_the_label_among_the_inputs(labels, made, how):
    x, y = table()
    y = y if labels else x.sum(1) + torch.randn(len(x), generator=rng(3))
    own = torch.cat([x[:, :4], made(y).float().view(-1, 1), x[:, 4:]], 1)
    for inputs, causes in (x, []), (own, ["leak"]):
        data = (inputs, y) if labels else (inputs, y.view(-1, 1))
        report = examine(train=data)
        assert [cause for cause in report.causes if cause == "leak"] == causes
    why, fix = finding(report, "leak")
    assert why == f"column 4 of the inputs {how}, in all 600 examples"
    assert fix == "drop the label from the inputs: x[:, 4]"
    assert "leak" not in examine(train=(x[:, :1], 2 * x[:, :1] + 1)).causes, "a lesson's first regression"


# ---- Data sets


class Noisy(Dataset):
    """Pictures with noise; `copies` decides whether it is added to what is stored."""

    def __init__(self, copies):
        self.x, self.y = (part.clone() for part in some_digits())
        self.copies = copies

    def __len__(self):
        return len(self.x)

    def __getitem__(self, k):
        x = self.x[k].clone() if self.copies else self.x[k]
        x += 0.5 * torch.randn(x.shape)
        return x, self.y[k]


def test_inputs_that_change_where_they_are_stored():
    data = Noisy(copies=False)
    stored = data.x.clone()
    with torch.random.fork_rng(devices=[]):
        report = examine(train=DataLoader(data, 16, shuffle=True, generator=rng()), valid=some_digits())
    why, fix = finding(report, "augmentation")
    assert why == "an example changes where it is stored, in the data set's 'x', each time it is read"
    assert fix.startswith("change a copy: x = self.x[k].clone()")
    assert "split-differs" not in [check.cause for check in report.failed]
    assert not torch.equal(data.x, stored), "what the loader reads, it changes, with us or without"


def test_noise_in_training_alone_is_no_other_preparation():
    _, valid = mnist()
    _, y = some_digits()
    data = Noisy(copies=True)
    few = torch.isin(valid.y[:, 0], torch.tensor([3, 7]))
    v = valid.x[few][:200], (valid.y[few, 0][:200] == 3).long()
    assert "split-differs" not in examine(train=data, valid=v).causes
    assert "split-differs" in examine(train=(data.x + 1, y), valid=v).causes


def test_words_that_are_numbered_by_two_tables():
    words = torch.randint(0, 20, (900, 12), generator=rng())
    y = (words < 6).sum(1).gt(3).long()
    other = torch.randperm(20, generator=rng(1))
    model = lambda: nn.Sequential(nn.EmbeddingBag(20, 8), nn.Linear(8, 2))
    for coded, causes in (words, []), (other[words], ["split-differs"]):
        net = seeded(model)
        report = examine(F.cross_entropy, model=net, train=(words[:600], y[:600]), valid=(coded[600:], y[600:]))
        assert [c for c in report.causes if c == "split-differs"] == causes
    why, fix = finding(report, "split-differs")
    assert why.startswith("a line fitted to one half of the training inputs tells the other half's labels ")
    assert fix == "one function prepares both; number words and labels by one table, the training set's"


def test_batches_in_dicts_of_two():
    x, y = some_digits()
    loader = DataLoader([dict(label=label, image=image) for image, label in zip(x[:90], y[:90])], 40)
    assert finding(examine(train=(x, y), valid=loader), "leak")[0] == "90 of 90 validation rows looked up are among 207 training rows"


# ---- Weights


def test_weights_of_a_file_that_found_no_place():
    state = {f"module.{name}": part for name, part in seeded(of_digits()).state_dict().items()}
    x, y = some_digits()
    for strict, given in (False, state), (True, seeded(of_digits()).state_dict()):
        model = seeded(of_digits())
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        with watch() as seen:
            model.load_state_dict(given, strict=strict)
            for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=rng()):
                optimizer.zero_grad()
                F.cross_entropy(model(xb), yb).backward()
                optimizer.step()
        report = examine(seen)
        if strict:
            assert report.causes == []
        else:
            why, fix = finding(report, "not-loaded")
            assert why == (
                "load_state_dict(strict=False) left out 4 of the file's tensors for their names, such as "
                "'module.0.weight' for '0.weight'"
            )
            assert fix == 'strict=True, and {k.removeprefix("module."): v for k, v in state.items()}'


def test_a_new_head_under_an_old_body_is_left_out_on_purpose():
    body = nn.ModuleDict(dict(body=nn.Linear(784, 9), old=nn.Linear(9, 10)))
    model = nn.ModuleDict(dict(body=nn.Linear(784, 9), head=nn.Linear(9, 2)))
    with watch() as seen:
        model.load_state_dict(body.state_dict(), strict=False)
    assert seen.misnamed == {}
    assert nn.Module.load_state_dict.__name__ == "load_state_dict" and not hasattr(nn.Module.load_state_dict, "__wrapped__")


def test_a_batch_norm_of_two():
    x, y = some_digits()
    make = lambda: nn.Sequential(nn.Linear(784, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 2))
    model = seeded(make)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for size, found in (2, True), (16, False):
        with watch() as seen:
            for xb, yb in DataLoader(TensorDataset(x, y), size, True, generator=rng(), drop_last=True):
                optimizer.zero_grad()
                F.cross_entropy(model(xb), yb).backward()
                optimizer.step()
        report = examine(seen)
        assert ("rows-mixed" in report.causes) == found
        if found:
            why = "BatchNorm1d in training takes mean and sd of 2 numbers (limit 5)"
            assert finding(report, "rows-mixed") == (why, "larger batches, or nn.GroupNorm or nn.LayerNorm in its place")


# ---- Steps


def stepped(after, lr=0.05, size=16, step=1):
    """What is seen of a loop with `after(loss, model, optimizer, number of the batch)` after each loss."""
    x, y = some_digits()
    model = seeded(of_digits())
    optimizer = torch.optim.SGD(model.parameters(), lr)
    with watch() as seen:
        for _ in range(3):
            for k, (xb, yb) in enumerate(DataLoader(TensorDataset(x, y), size, shuffle=True, generator=rng())):
                after(F.cross_entropy(model(xb), yb), model, optimizer, k)
    return examine(seen)


def clipped(norm):
    def after(loss, model, optimizer, k):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()

    return after


def test_gradients_that_are_clipped_to_next_to_nothing():
    why, fix = finding(stepped(clipped(1e-3), 0.1), "lr-small")
    assert why.startswith("gradients are clipped to a norm of 0.001: the loss of one batch goes from ")
    assert fix == "clip at the norm of a usual gradient or more: clip_grad_norm_ returns it"
    assert stepped(clipped(1.0), 0.1).causes == []


def in_small_parts(clear):
    def after(loss, model, optimizer, k):
        if clear or k % 4 == 0:
            optimizer.zero_grad()
        (loss / 4).backward()
        if k % 4 == 3:
            optimizer.step()

    return after


def test_gradients_that_are_cleared_before_a_step_has_used_them():
    why, fix = finding(stepped(in_small_parts(clear=True), 0.3, 8), "gradients-accumulate")
    assert why == "of 4 times backward before each step of the optimizer the first 3 were cleared before it used them"
    assert fix == "optimizer.zero_grad() once for each optimizer.step(), not for each backward()"
    assert stepped(in_small_parts(clear=False), 0.3, 8).causes == []


def test_a_loss_that_is_divided_by_the_batch_twice():
    for divided, causes in (lambda z, y: F.cross_entropy(z, y) / len(z), ["sum-for-mean"]), (
        lambda z, y: F.cross_entropy(z, y, reduction="sum") / len(z), []):  # fmt: skip
        assert examine(divided).causes == causes
    why, fix = finding(examine(lambda z, y: F.cross_entropy(z, y) / len(y)), "sum-for-mean")
    assert why.endswith("for the same 3 twice: it is divided by the size of the batch twice")
    assert fix == "a mean is divided already: no / len(x) after it"


def test_two_optimizers_of_one_model():
    x, y = some_digits()
    for copied in False, True:
        encoder, decoder = seeded(lambda: nn.Sequential(nn.Linear(784, 16), nn.ReLU())), seeded(lambda: nn.Linear(16, 2))
        optimizers = [torch.optim.Adam(part.parameters(), 0.01) for part in (encoder, encoder if copied else decoder)]
        with watch() as seen:
            for xb, yb in DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=rng()):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                F.cross_entropy(decoder(encoder(xb)), yb).backward()
                for optimizer in optimizers:
                    optimizer.step()
        report = examine(seen)
        assert ("not-optimised" in report.causes) == copied
    why, fix = finding(report, "not-optimised")
    assert why == (
        "two optimizers hold the same 2 parameters, and none holds 2 others that the loss depends on, the first [2, 16]"
    )
    assert fix == "give each optimizer the parameters of its own model"


def test_a_softmax_over_one_number():
    texts = torch.randint(0, 9, (40, 5), generator=rng())
    model = seeded(lambda: nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(30, 3), nn.LogSoftmax(dim=0)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch() as seen:
        for text in texts:
            optimizer.zero_grad()
            F.nll_loss(model(text.view(1, -1)), text[:1] % 3).backward()
            optimizer.step()
    why, fix = finding(examine(seen), "no-gradient")
    assert why.endswith("got a gradient but 0: log_softmax over dim 0 of [1, 3] is over one number, and always the same")
    assert fix == "dim=1, the classes"


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.heads = nn.Linear(784, 16), nn.ModuleList([nn.Linear(16, 2), nn.Linear(16, 2)])

    def forward(self, x):
        return [head(self.body(x).relu()) for head in self.heads]


def test_a_head_whose_loss_is_replaced():
    own = lambda outs, y: F.cross_entropy(outs[1], y)
    why, fix = finding(examine(seen_in(TwoHeads, own, data=some_digits())), "no-gradient")
    assert why == "2 of 6 parameters get no gradient, such as heads.0.weight: what they put out is not in the loss"
    assert fix.startswith("add each output's loss, loss = loss + …, where it was replaced; or leave out .detach()")


class Letters(nn.Module):
    """A model of words that gives scores of all places as rows, and the loss."""

    def __init__(self, causal):
        super().__init__()
        self.table, self.out, self.causal = nn.Embedding(9, 8), nn.Linear(8, 9), causal

    def forward(self, words, targets):
        x = self.table(words)
        weights = torch.ones(words.shape[1], words.shape[1])
        x = (weights.tril() if self.causal else weights) / words.shape[1] @ x
        scores = self.out(x).view(-1, 9)
        return scores, F.cross_entropy(scores, targets.flatten())


@pytest.mark.parametrize("causal", [True, False])
def test_a_model_of_words_that_lays_its_places_out_as_rows(causal):
    model = seeded(lambda: Letters(causal))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with watch() as seen:
        for k in range(9):
            text = torch.randint(0, 9, (16, 7), generator=rng(k))
            optimizer.zero_grad()
            model(text[:, :-1], text[:, 1:])[1].backward()
            optimizer.step()
    report = examine(seen)
    assert ("leak" in report.causes) == (not causal)
    if not causal:
        assert finding(report, "leak")[0] == "each target is the next word, and scores change with the words that follow"


# ---- Scripts

SCRIPT = """
    import torch, torch.nn as nn, torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset
    from mnist_ce.data import mnist_sample
    class Trainer:
        def __init__(self):
            train, _ = mnist_sample()
            x, y = train.x[::40], train.y[::40, 0]
            self.held_out = DataLoader(TensorDataset(x[:100], y[:100]), 50)
            self.inputs, self.labels = x[:100], y[:100]
            self.loader = DataLoader(TensorDataset(x, y), 16, shuffle=True)
        def fit(self):
            model = nn.Linear(784, 2)
            optimizer = torch.optim.Adam(model.parameters(), 0.01)
            local = self.held_out
            for epoch in range(4):
                for xb, yb in self.loader:
                    optimizer.zero_grad()
                    F.cross_entropy(model(xb), yb).backward()
                    optimizer.step()
    def main():
        Trainer().fit()
    main()
"""


@pytest.mark.parametrize("name", ["held_out", "local", "inputs, labels"])
def test_validation_data_in_a_function_or_an_object(tmp_path, name):
    (tmp_path / "own.py").write_text(textwrap.dedent(SCRIPT))
    report = examine_script(tmp_path / "own.py", valid=name)
    assert finding(report, "leak")[0] == "100 of 100 validation rows looked up are among 310 training rows"


def test_names_that_a_script_does_not_have(tmp_path):
    (tmp_path / "own.py").write_text(textwrap.dedent(SCRIPT))
    with pytest.raises(ValueError, match="own.py has no validation data 'loaders': it has no loaders$"):
        examine_script(tmp_path / "own.py", valid="loaders")
    report = examine_script(tmp_path / "own.py", valid="inputs")
    check = next(check for check in report if check.cause == "leak")
    assert check.why == "valid gives a Tensor, no pairs: name inputs and targets, --valid X,Y"


def test_pictures_of_numpy_that_change_where_they_are_stored():
    class Stored(Dataset):
        def __init__(self):
            x, self.labels = some_digits()
            self.pictures = x.numpy().copy()

        def __len__(self):
            return len(self.pictures)

        def __getitem__(self, k):
            self.pictures[k] -= np.float32(0.1)
            return torch.tensor(self.pictures[k]), self.labels[k]

    assert "'pictures'" in finding(examine(train=Stored()), "augmentation")[0]


# ---- Losses of ranks, of sounds, of soft targets


def seen_by(model, batches, loss, rate=None):
    """What is seen of a loop of `batches` whose loss is `loss(model, batch)`, at the rates `rate(k)`."""
    model = seeded(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = rate and torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    with watch() as seen:
        for batch in batches:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            if schedule:
                schedule.step()
    return seen


def batches_of_ratings():
    x, _ = table()
    y = torch.bucketize(x[:, 0].contiguous(), torch.tensor([-1.5, -0.5, 0.5, 1.5]))
    return [(x[k : k + 32], y[k : k + 32]) for k in range(0, 320, 32)]


def coral(model, batch):
    x, y = batch
    return F.binary_cross_entropy_with_logits(model(x), (y[:, None] > torch.arange(4)).float())


def ranks(model, batch):
    x, y = batch
    scores = model(x)[:, 0]
    better = (y[:, None] > y[None]).float()
    return (better * F.softplus(scores[None] - scores[:, None])).sum() / better.sum()


@pytest.mark.parametrize("loss, columns", [(coral, 4), (ranks, 1)], ids=["ratings", "ranks"])
def test_targets_that_are_compared_by_size_are_no_classes(loss, columns):
    report = examine(seen_by(lambda: nn.Linear(8, columns), batches_of_ratings(), loss))
    assert report.causes == []
    check = next(check for check in report if check.cause == "sign")
    assert (check.status, check.why) == ("skip", "the loss asks which target is larger: ranks, and no classes")


def test_a_loss_that_knows_fewer_classes_than_the_model_has_columns():
    x, y = some_digits()

    def episode(model, k):
        rows = [(y == c).nonzero()[k : k + 8, 0] for c in (0, 1)]
        near = torch.stack([model(x[part[:4]]).mean(0) for part in rows])
        asked = model(x[torch.cat([part[4:] for part in rows])])
        return F.cross_entropy(-torch.cdist(asked, near), torch.arange(2).repeat_interleave(4))

    assert examine(seen_by(lambda: nn.Linear(784, 16), range(9), episode)).causes == []


@pytest.mark.parametrize("smooth", [
    lambda y: 0.9 * F.one_hot(y, 2).float() + 0.05,
    lambda y: torch.full((len(y), 2), 0.05).scatter_(1, y.view(-1, 1), 0.95),
], ids=["one_hot", "scatter"])  # fmt: skip
def test_labels_that_are_smoothed_by_hand(smooth):
    x, y = some_digits()
    batches = [(x[k : k + 16], y[k : k + 16]) for k in torch.randperm(190, generator=rng())[:9].tolist()]
    loss = lambda model, batch: -(smooth(batch[1]) * model(batch[0]).log_softmax(1)).sum(1).mean()
    seen = seen_by(of_digits(), batches, loss)
    accuracy = lambda z, y: (z.argmax(1) == y).float().mean()
    assert "metric-wrong" not in examine(seen, accuracy).causes


def test_a_blank_among_the_labels_of_ctc():
    x = torch.randn(9, 8, 20, 6, generator=rng())
    for first in 0, 1:
        y = torch.randint(first, 5, (9, 8, 4), generator=rng(1))
        loss = lambda model, k: F.ctc_loss(
            model(x[k]).log_softmax(2).transpose(0, 1), y[k], torch.full((8,), 20), torch.full((8,), 4)
        )
        report = examine(seen_by(lambda: nn.Linear(6, 5), range(9), loss))
        assert ("nll-input" in report.causes) == (first == 0)
        if not first:
            why, fix = finding(report, "nll-input")
            assert why == f"ctc_loss: {int((y[0] == 0).sum())} of 32 targets are 0, which is the blank"
            assert fix == "number the labels from 1, and keep 0 for the blank"


def test_probabilities_for_kl_div():
    x, _ = some_digits()
    soft = torch.rand(len(x), 2, generator=rng()).softmax(1)
    for squash, causes in ("softmax", ["nll-input"]), ("log_softmax", []):
        loss = lambda model, k: F.kl_div(getattr(model(x[k : k + 16]), squash)(1), soft[k : k + 16], reduction="batchmean")
        report = examine(seen_by(of_digits(), range(0, 144, 16), loss))
        assert [cause for cause in report.causes if cause == "nll-input"] == causes
        if causes:
            why, fix = finding(report, "nll-input")
            assert why.startswith("kl_div gets numbers up to 0.") and why.endswith("where log-probabilities are at most 0")
            assert fix == "F.kl_div(scores.log_softmax(1), probabilities)"


def test_inputs_whose_axes_are_mixed_by_a_reshape():
    x = torch.randn(9, 16, 12, 3, generator=rng())
    y = (x.mean(2)[:, :, 0] > 0).long()
    make = lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2))
    for turn, causes in (lambda x: x.reshape(16, 3, 12), ["labels-apart"]), (lambda x: x.permute(0, 2, 1), []):
        report = examine(seen_by(make, range(9), lambda model, k: F.cross_entropy(model(turn(x[k])), y[k])))
        assert [cause for cause in report.causes if cause == "labels-apart"] == causes
        if causes:
            told = "inputs [16, 12, 3] become [16, 3, 12] by reshape alone, which mixes the axes"
            assert finding(report, "labels-apart") == (told, "x.permute(0, 2, 1)")


def test_a_warm_up_that_needs_more_steps_than_there_will_be():
    batches = batches_of_ratings()
    loss = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])
    slow = lambda steps: examine(seen_by(lambda: nn.Linear(8, 5), batches, loss, lambda k: min(1.0, (k + 1) / steps)))
    why, fix = finding(slow(50_000), "lr-small")
    assert why.startswith("the rate climbs by 2e-07 in each step, and needs 499") and why.endswith(" (limit 20000)")
    assert fix.endswith("LambdaLR's function gives a factor, not a rate")
    assert "climbs" not in "".join(check.why for check in slow(500).warned)


@pytest.mark.parametrize("loss, why, fix", [
    (lambda model, x, y: F.cross_entropy(y, model(x)), "NotImplementedError", "scores come first, then targets: F.cross_entropy(scores, targets)"),
    (lambda model, x, y: F.cross_entropy(model(x), y.float()), "RuntimeError", "labels of cross entropy are whole numbers: y.long()"),
    (lambda model, x, y: F.cross_entropy(model(x), y.view(-1, 1)), "RuntimeError", "labels [N], not [N, 1]: y[:, 0]"),
    (lambda model, x, y: F.cross_entropy(model(x[:, :700]), y), "RuntimeError",
     "its input has 700 numbers, the layer expects 784: nn.Linear(700, …), or flatten x before it"),
], ids=range(4))  # fmt: skip
def test_a_beginners_error_is_told_with_its_line_and_its_cure(loss, why, fix):
    x, y = some_digits()
    with pytest.raises((RuntimeError, NotImplementedError)), watch() as seen:
        loss(seeded(of_digits()), x, y).backward()
    told, cure = finding(examine(seen), "raises")
    assert "test_strangers_scripts.py, line " in told and why in told and cure == fix
    assert "leak" not in [check.cause for check in examine(seen).failed]


def test_a_loss_that_takes_its_targets_first():
    why, fix = finding(examine(lambda y, z: F.cross_entropy(z, y)), "target-form")
    assert why == "it takes its targets first, and its scores second" and "lambda z, y: loss(y, z)" in fix


# ---- A backward by hand


class Rectified(torch.autograd.Function):
    """ReLU, whose gradient is that of the other half."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * (x < 0)


class RectifiedRightly(Rectified):
    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * (x > 0)


class Turned(torch.autograd.Function):
    """An identity with its gradient turned, as adversarial training has it."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope):
        return -slope


class Hard(torch.autograd.Function):
    """A step with the gradient of an identity: a straight-through estimator."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, slope):
        return slope


class Affine(torch.autograd.Function):
    """A linear layer in the newer form; the mean in its backward is one too many."""

    @staticmethod
    def forward(x, w):
        return x @ w.T

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, slope):
        x, w = ctx.saved_tensors
        return slope @ w, slope.T @ x / len(x)


class CrossEntropy(torch.autograd.Function):
    """Whose backward forgets the right answer."""

    @staticmethod
    def forward(ctx, z, y):
        ctx.save_for_backward(z.softmax(1), y)
        return F.cross_entropy(z, y)

    @staticmethod
    def backward(ctx, slope):
        p, y = ctx.saved_tensors
        return slope * p / len(y), None


class CrossEntropyRightly(CrossEntropy):
    @staticmethod
    def backward(ctx, slope):
        p, y = ctx.saved_tensors
        return slope * (p - F.one_hot(y, p.shape[1])) / len(y), None


class Own(nn.Module):
    def __init__(self, act, layer=None):
        super().__init__()
        self.first, self.last = nn.Linear(784, 30), nn.Linear(30, 2)
        self.act, self.layer = act, layer

    def forward(self, x):
        return self.last(self.act(self.layer(x, self.first.weight) if self.layer else self.first(x)))


def by_own(model, loss=F.cross_entropy):
    x, y = some_digits()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch() as seen:
        for xb, yb in DataLoader(TensorDataset(x, y), 64, True, generator=rng()):
            optimizer.zero_grad()
            loss(model(xb), yb).backward()
            optimizer.step()
    return examine(seen)


ALONG = r"the backward of {} gives -?[\d.]+ along a random direction, and its forward's output changes by -?[\d.]+"


@pytest.mark.parametrize("make, why", [
    (lambda: Own(Rectified.apply), ALONG.format("Rectified")),  # bound before anybody watches
    (lambda: Own(lambda x: Rectified.apply(x)), ALONG.format("Rectified")),
    (lambda: Own(F.relu, Affine.apply), "the backward of Affine gives 0.01563 times the slope of its forward"),
    (lambda: Own(RectifiedRightly.apply), ""), (lambda: Own(lambda x: Turned.apply(x).relu()), ""),
    (lambda: Own(Hard.apply), ""),
], ids=range(6))  # fmt: skip
def test_a_backward_by_hand_in_the_model(make, why):
    report = by_own(seeded(make))
    assert report.causes == ["wrong-gradient"] * bool(why)
    if why:
        found, fix = finding(report, "wrong-gradient")
        assert re.fullmatch(why, found), found
        assert fix.endswith("torch.autograd.gradcheck compares the two")


@pytest.mark.parametrize("kind", [CrossEntropy, CrossEntropyRightly])
def test_a_backward_by_hand_in_the_loss(kind):
    wrong = kind is CrossEntropy
    apply = vars(torch.autograd.Function)["apply"]
    for loss in kind.apply, lambda z, y: kind.apply(z, y):  # bound before, and not
        assert examine(loss).causes == ["wrong-gradient"] * wrong
    report = by_own(seeded(lambda: nn.Linear(784, 2)), lambda z, y: kind.apply(z, y))
    assert report.causes == ["wrong-gradient"] * wrong
    assert vars(torch.autograd.Function)["apply"] is apply
