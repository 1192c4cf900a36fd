"""Watching changes nothing, puts everything back, and tells the order of what happened."""

import dataclasses
import inspect
import itertools
import math
import random
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.calls import ByHand, Called, replayed
from mnist_ce.watching import Backward, Forward, Kept, Update, undisturbed, watch

X, Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
COUNT, NAMES = 0, ["a"]


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


def trained(model, optimizer, steps=2):
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()


def flat(value):
    """Everything in a state_dict as plain values."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    return [flat(part) for part in value] if isinstance(value, (list, tuple)) else value


# ---- Kept: what is put back.


@pytest.mark.parametrize("before", [0, 2], ids=["new", "used"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, 0.1, amsgrad=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, 0.1, centered=True),
        lambda p: torch.optim.LBFGS(p, max_iter=2),
    ],
    ids=["Adam", "SGD", "RMSprop", "LBFGS"],
)
def test_an_optimizer_goes_on_from_where_it_was(make, before):
    def run(model, optimizer, steps):
        def closure():
            optimizer.zero_grad()
            value = F.cross_entropy(model(X), Y)
            value.backward()
            return value

        for _ in range(steps):
            optimizer.step(closure)

    models = [network().eval() for _ in range(2)]
    optimizers = [make(model.parameters()) for model in models]
    for model, optimizer in zip(models, optimizers):
        run(model, optimizer, before)
    kept = Kept(models[0], optimizers[0])
    state = flat(optimizers[0].state_dict())
    run(models[0], optimizers[0], 3)
    optimizers[0].param_groups[0]["lr"] = 99.0
    optimizers[0].add_param_group(dict(params=[nn.Parameter(torch.ones(1))]))
    assert flat(optimizers[0].state_dict()) != state
    kept.put_back()
    assert flat(optimizers[0].state_dict()) == state
    for model, optimizer in zip(models, optimizers):
        run(model, optimizer, 2)
    assert flat(models[0].state_dict()) == flat(models[1].state_dict())  # as if nothing had been


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=10),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    ],
    ids=["step", "one cycle", "plateau"],
)
def test_a_scheduler_in_a_step_is_put_back(make):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = make(optimizer)
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)

    def step():
        trained(model, optimizer, 1)
        scheduler.step(*[1.0] * plateau)

    kept, before = Kept(step), flat(scheduler.state_dict())
    rate = optimizer.param_groups[0]["lr"]
    for _ in range(3):
        step()
    assert optimizer.param_groups[0]["lr"] != rate
    kept.put_back()
    assert flat(scheduler.state_dict()) == before
    assert optimizer.param_groups[0]["lr"] == rate and not optimizer.state


def test_a_model_keeps_its_tensors_buffers_gradients_modes_and_what_is_frozen():
    model = network()
    model[0].weight.grad, model[0].bias.grad = torch.ones(4, 3), None
    model[3].requires_grad_(False)
    model[1].eval()
    own = [model[0].weight, model[0].weight.grad, model[1].running_mean]
    before = flat(model.state_dict())
    kept = Kept(model)
    model.train().requires_grad_(True)
    trained(model, torch.optim.SGD(model.parameters(), 0.1))
    model[0].weight.grad.add_(1)
    model[2].p, model[0].weight = 0.9, nn.Parameter(torch.zeros(4, 3))
    model.extra = nn.Linear(1, 1)
    kept.put_back()
    assert flat(model.state_dict()) == before
    assert model[0].weight is own[0] and model[1].running_mean is own[2]
    assert model[0].weight.grad is own[1] and (own[1] == 1).all() and model[0].bias.grad is None
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False] * 2
    assert [part.training for part in model] == [True, False, True, True]
    assert model[2].p == 0.5 and not hasattr(model, "extra")


def test_a_weight_that_was_given_another_shape_is_as_it_was():
    model = nn.Linear(3, 2)
    own, before = model.weight, model.weight.tolist()
    kept = Kept(model)
    model.weight.data = torch.zeros(5, 7)
    kept.put_back()
    assert model.weight is own and own.tolist() == before


def test_what_a_function_reads_and_writes_is_put_back():
    count, missing, table, names = 0, None, {"a": [1, 2], "b": {}}, ["x", ["y"]]

    class Trainer:
        steps = 0

        def step(self):
            global COUNT
            nonlocal count, missing
            self.steps += 1
            count, missing, COUNT = count + 1, 5, COUNT + 1
            table["a"].append(3), table["b"].update(c=1), table.pop("b"), table.update(d=4)
            names[1][0] = "z"
            names.clear(), NAMES.append("b")

    trainer = Trainer()
    trainer.history = [0.5]
    lists = table["a"], names[1], NAMES
    kept = Kept(trainer.step)
    trainer.step()
    trainer.history += [0.25]
    assert (count, missing, COUNT, trainer.steps, NAMES) == (1, 5, 1, 1, ["a", "b"])
    kept.put_back()
    assert (count, missing, COUNT, trainer.steps, NAMES) == (0, None, 0, 0, ["a"])
    assert vars(trainer) == {"history": [0.5]}
    assert table == {"a": [1, 2], "b": {}} and names == ["x", ["y"]]
    assert table["a"] is lists[0] and names[1] is lists[1] and NAMES is lists[2]


def test_generators_draw_again_what_they_drew():
    generators = torch.Generator().manual_seed(3), np.random.default_rng(3), random.Random(3)
    drawn = lambda: (
        torch.rand(3, generator=generators[0]).tolist(),
        generators[1].random(3).tolist(),
        generators[2].random(),
    )
    kept = Kept(*generators)
    first = drawn()
    assert drawn() != first
    kept.put_back()
    assert drawn() == first
    kept = Kept(drawn)  # in a closure
    second = drawn()
    kept.put_back()
    assert drawn() == second


def test_arrays_are_put_back_and_what_is_read_only_is_left():
    array, constant = np.arange(3.0), np.arange(3.0)
    constant.flags.writeable = False
    kept = Kept(dict(array=array, constant=constant))
    array[:] = 7
    kept.put_back()
    assert array.tolist() == [0, 1, 2]


def test_what_holds_itself_is_gone_through_once():
    ring = {"weights": torch.ones(2)}
    ring["self"], ring["list"] = ring, [ring]
    kept = Kept(ring)
    ring["weights"].zero_()
    del ring["self"]
    kept.put_back()
    assert ring["self"] is ring and ring["weights"].tolist() == [1, 1]


def test_large_data_is_not_copied_and_large_weights_are(monkeypatch):
    copied = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(
        torch.Tensor, "clone", lambda t, *a, **k: copied.append(t.numel()) or clone(t, *a, **k)
    )
    big, small = torch.zeros(2**22 + 1), torch.zeros(5)
    Kept(dict(x=big, y=small))
    assert copied == [5]
    Kept(nn.Parameter(big))
    assert copied == [5, len(big)]


def test_a_block_that_raises_is_put_back_all_the_same():
    model = network()
    before, state = flat(model.state_dict()), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), undisturbed(model):
        trained(model, torch.optim.SGD(model.parameters(), 0.1))
        torch.rand(3), 1 / 0
    assert flat(model.state_dict()) == before and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


# ---- watch: what was seen, in which order.


def patched():
    loaders = torch.utils.data.dataloader
    hooks = torch.nn.modules.module
    return (
        loaders.DataLoader.__iter__, loaders._BaseDataLoaderIter.__next__,
        torch.autograd.backward, torch.autograd.grad,
        len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks),
        len(sys.modules["torch.optim.optimizer"]._global_optimizer_pre_hooks),
        len(torch.overrides._get_current_function_mode_stack()),
    )  # fmt: skip


def kinds(seen):
    return [type(event).__name__ for event in seen.events]


LOOP = ["Forward", "Backward", "Update"]


def test_nothing_is_left_after_an_error_nor_after_nested_watches():
    before = patched()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(KeyError), watch() as seen:
        assert patched() != before
        trained(model, optimizer)
        raise KeyError
    assert patched() == before and kinds(seen) == 2 * LOOP
    with watch() as outer:
        trained(model, optimizer, 1)
        with watch() as inner:
            trained(model, optimizer, 1)
        trained(model, optimizer, 1)
    assert patched() == before
    assert kinds(inner) == LOOP and kinds(outer) == 3 * LOOP
    trained(model, optimizer)
    assert kinds(seen) == 2 * LOOP and kinds(outer) == 3 * LOOP  # nothing is noted any more


def test_training_goes_on_as_if_nobody_had_looked():
    models = [network() for _ in range(2)]
    for model, looked in zip(models, (True, False)):
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        loader = DataLoader(TensorDataset(X, Y), 5, True, generator=torch.Generator())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            with watch() if looked else torch.enable_grad():
                for xb, yb in itertools.chain(loader, loader):
                    optimizer.zero_grad()
                    F.cross_entropy(model(xb), yb).backward()
                    optimizer.step()
    assert flat(models[0].state_dict()) == flat(models[1].state_dict())


def test_accumulation_over_batches_is_no_stale_gradient():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch() as seen:
        for k in range(6):
            (F.cross_entropy(model(X), Y) / 3).backward()
            if k % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    assert kinds(seen) == 2 * (3 * LOOP[:2] + LOOP[2:])
    assert [b.moved for b in seen.of(Backward)] == [False, False, False, True, False, False]
    assert [b.stale > 0 for b in seen.of(Backward)] == [False, True, True] * 2
    assert [u.stale for u in seen.of(Update)] == [0, 0]
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch() as seen:
        for _ in range(3):  # and without zero_grad
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()
    assert [u.stale for u in seen.of(Update)] == [0, 2, 2]


def test_an_lbfgs_closure_comes_after_its_update_began():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)  # from some weights it goes up
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        value = F.cross_entropy(model(X), Y)
        value.backward()
        return value

    with watch() as seen:
        optimizer.step(closure), optimizer.step(closure)
    assert kinds(seen) == 2 * (["Update"] + 3 * LOOP[:2])
    assert [u.stale for u in seen.of(Update)] == [0, 0]
    assert [u.empty for u in seen.of(Update)] == [True, False]
    losses = [b.loss for b in seen.of(Backward)]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]


def test_a_loop_of_autograd_grad():
    model = nn.Linear(3, 2)
    with watch() as seen:
        for _ in range(3):
            value = F.cross_entropy(model(X), Y)
            grads = torch.autograd.grad(value, list(model.parameters()))
            with torch.no_grad():
                for p, grad in zip(model.parameters(), grads):
                    p -= 0.1 * grad
    backs = seen.of(Backward)
    assert {b.reached for b in backs} == {-1} and all(p.grad is None for p in model.parameters())
    losses = list(dict.fromkeys(b.loss for b in backs))
    assert losses == sorted(losses, reverse=True) and len(losses) == 3
    assert sum(b.moved for b in backs) == 2 and not any(b.stale for b in backs)
    assert losses[-1] == value.item() and seen.model is model


def test_a_call_of_autograd_grad_is_noted_once():
    model = nn.Linear(3, 2)
    with watch() as seen:
        for _ in range(3):
            torch.autograd.grad(F.cross_entropy(model(X), Y), list(model.parameters()))
    assert kinds(seen) == 3 * LOOP[:2]


def test_a_gan_of_two_optimizers():
    made, judge = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizers = [torch.optim.Adam(m.parameters(), 0.01) for m in (made, judge)]
    bce, real, false = F.binary_cross_entropy_with_logits, torch.ones(12, 1), torch.zeros(12, 1)
    with watch() as seen:
        for _ in range(3):
            fake = made(X[:, :2])
            optimizers[1].zero_grad()
            (bce(judge(X), real) + bce(judge(fake.detach()), false)).backward()
            optimizers[1].step()
            optimizers[0].zero_grad()
            bce(judge(fake), real).backward()
            optimizers[0].step()
    part = ["Forward"] * 3 + ["Backward", "Update", "Forward", "Backward", "Update"]
    assert kinds(seen) == 3 * part
    assert [u.stale for u in seen.of(Update)] == [0] * 6  # the judge's own are cleared in time
    assert seen.optimizers == optimizers[::-1] and seen.model is judge
    assert {id(m) for m in (made, judge)} == {id(f.model) for f in seen.of(Forward)}


def test_order_modes_and_batches_of_a_loop_with_validation():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    train, valid = (DataLoader(TensorDataset(X, Y), size) for size in (6, 4))
    with watch() as seen:
        for _ in range(2):
            model.train()
            for xb, yb in train:
                optimizer.zero_grad()
                F.cross_entropy(model(xb), yb).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for xb, yb in valid:
                    model(xb).argmax(1)
        for xb, yb in train:  # a last batch tells that the one before was of valid
            break
    assert kinds(seen) == 2 * (2 * LOOP + 3 * ["Forward"])
    calls = [(f.training, f.frozen, f.grad, len(f.x)) for f in seen.of(Forward)]
    assert calls == 2 * (2 * [(True, False, True, 6)] + 3 * [(False, True, False, 4)])
    assert seen.train_loaders == [train] and seen.valid_loaders == [valid]
    for forward, start in zip(seen.of(Forward)[:5], (0, 6, 0, 4, 8)):
        assert torch.equal(forward.batch[1], Y[start : start + len(forward.x)])
    assert [type(layer.module) for layer in seen.of(Forward)[0].layers] == list(map(type, model))
    assert {rate for _, rate, *_ in seen.of(Update)} == {0.1}


def test_when_enough_was_seen_no_more_tensors_are_kept():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(steps=2) as seen:
        told = []
        seen.ready = lambda: told.append(len(seen.of(Update)))
        trained(model, optimizer, 5)
        model.eval()
        with torch.no_grad():
            for _ in range(9):
                model(X)
    assert told == [2, 2, 2] and len(seen.of(Backward)) == 2
    calls = [(f.training, f.grad) for f in seen.of(Forward)]
    assert calls.count((True, True)) == 2 and 1 <= calls.count((False, False)) <= 3
    assert not any(b.calls for b in seen.of(Backward)[1:])


# ---- replayed: the loss in a loop.


def squares_in_place(z, y):
    p = z.softmax(1).clone()
    p[torch.arange(len(y)), y] -= 1
    return p.square().sum(1).mean()


INLINE = dict(
    gather=lambda z, y: -z.log_softmax(1).gather(1, y.view(-1, 1)).squeeze(1).mean(),
    arange=lambda z, y: -z.log_softmax(1)[torch.arange(len(y)), y].mean(),
    one_hot=lambda z, y: -(F.one_hot(y, z.shape[1]) * z.log_softmax(1)).sum() / len(y),
    eye=lambda z, y: (z.softmax(1) - torch.eye(2)[y]).square().sum(1).mean(),
    scatter=lambda z, y: (
        (z - torch.zeros_like(z).scatter_(1, y.view(-1, 1), 1.0)).square().mean()
    ),
    in_place=squares_in_place,
    where=lambda z, y: torch.where((y == 1).view(-1, 1), z, -z)[:, 1].sigmoid().log().neg().mean(),
    stable=lambda z, y: (z.logsumexp(1) - z[torch.arange(z.size(0)), y]).sum() / z.size(0),
    module=lambda z, y: nn.CrossEntropyLoss(label_smoothing=0.1)(z, y),
)


def replay(loss, targets=Y):
    """What `replayed` makes of a loss that stands in a loop."""
    model = nn.Linear(3, 2)
    with watch() as seen:
        loss(model(X), targets).backward()
    (forward,), (backward,) = seen.of(Forward), seen.of(Backward)
    return replayed(backward.calls, [forward.out, targets], backward.root)


@pytest.mark.parametrize("size", [1, 2, 5, 30])
@pytest.mark.parametrize("name", INLINE)
def test_an_inline_loss_is_done_again_with_other_batches(name, size):
    done_again(INLINE[name], size)


def test_an_inline_loss_indexed_by_a_range_is_done_again():
    done_again(lambda z, y: -z.log_softmax(1)[range(len(y)), y].mean(), 5)


def done_again(loss, size):
    again = replay(loss)
    generator = torch.Generator().manual_seed(size)
    z = torch.randn(size, 2, generator=generator).requires_grad_()
    y = torch.randint(2, (size,), generator=generator)
    own = loss(z, y)
    torch.testing.assert_close(again(z, y), own)
    slopes = [torch.autograd.grad(value, z)[0] for value in (again(z, y), own)]
    torch.testing.assert_close(*slopes)


def test_what_uses_no_targets_or_no_scores_is_no_loss():
    assert replay(lambda z, y: z.logsumexp(1).mean()) is None
    other = torch.ones(2, requires_grad=True)
    assert replay(lambda z, y: (other[y] * 2).mean()) is None
    assert replay(lambda z, y: F.cross_entropy(z, torch.arange(12) % 2)) is None


# ---- Models that are called otherwise, and those that are no modules.


@dataclasses.dataclass
class Output:
    loss: torch.Tensor
    scores: torch.Tensor


class Pupil(nn.Module):
    """Scores of three values, and what `ways` makes of them and their loss."""

    def __init__(self):
        super().__init__()
        self.hidden, self.drop, self.out = nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)

    def scores(self, x):
        return self.out(self.drop(self.hidden(x).relu()))


class LossAlone(Pupil):
    def forward(self, x, y):
        return F.cross_entropy(self.scores(x), y)


class Pair(Pupil):
    def forward(self, x, y):
        z = self.scores(x)
        return z, F.cross_entropy(z, y)


class FeaturesFirst(Pupil):
    def forward(self, x, y):
        features = self.drop(self.hidden(x).relu())
        z = self.out(features)
        return features, z, F.cross_entropy(z, y) + 0.0 * features.sum()


class InADict(Pupil):
    def forward(self, labels, values):
        z = self.scores(values)
        return dict(loss=F.cross_entropy(z, labels), scores=z)


class AsAnObject(Pupil):
    def forward(self, batch):
        z = self.scores(batch["values"])
        return Output(F.cross_entropy(z, batch["labels"]), z)


@dataclasses.dataclass(frozen=True)
class Batch:
    values: torch.Tensor
    labels: torch.Tensor


class OfAnObject(Pupil):
    def forward(self, batch):
        z = self.scores(batch.values)
        return F.cross_entropy(z, batch.labels), z


class Outside(Pupil):
    def forward(self, x):
        return dict(scores=self.scores(x))


WAYS = dict(
    loss_alone=(LossAlone, lambda model: model(X, Y)),
    pair=(Pair, lambda model: model(X, Y)[1]),
    features_first=(FeaturesFirst, lambda model: model(X, y=Y)[2]),
    in_a_dict=(InADict, lambda model: model(labels=Y, values=X)["loss"]),
    as_an_object=(AsAnObject, lambda model: model(dict(labels=Y, values=X)).loss),
    of_an_object=(OfAnObject, lambda model: model(Batch(X, Y))[0]),
    outside=(Outside, lambda model: F.cross_entropy(model(X)["scores"], Y)),
)


NAMED = "with_kwargs" in inspect.signature(
    nn.modules.module.register_module_forward_hook
).parameters
by_name = pytest.mark.skipif(not NAMED, reason="this PyTorch does not tell what is handed by name")


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=[by_name] * (way in ("features_first", "in_a_dict")))
        for way in WAYS
    ],
)
def test_a_module_is_seen_from_its_input_to_its_scores(way):
    make, loss_of = WAYS[way]
    model = make()
    with watch() as seen:
        for _ in range(2):
            loss_of(model).backward()
    view = seen.model
    assert isinstance(view, Called) and [f.model for f in seen.of(Forward)] == [view, view]
    forward, backward = seen.events[:2]
    assert forward.x is X and forward.y is Y and not view.several and view.training
    assert dict(view.named_parameters()) == dict(model.named_parameters())
    again = replayed(backward.calls, [forward.out, Y], backward.root)
    z, y = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 2
    torch.testing.assert_close(again(z, y), F.cross_entropy(z, y))
    view.eval()
    assert not model.drop.training
    for x in X.flip(0), X[3:5], torch.cat([X, X + 1]):
        torch.testing.assert_close(view(x), model.scores(x))


@by_name
def test_several_inputs_follow_the_numbers_of_their_rows():
    class Net(Pupil):
        def forward(self, mask, x, y=None):
            z = self.scores(x * mask)
            return z if y is None else (F.cross_entropy(z, y), z)

    model, mask = Net(), (X > 0).float()
    with watch() as seen:
        for _ in range(2):
            model(mask, x=X, y=Y)[0].backward()
        with torch.no_grad():
            model(mask, x=X)
    view = seen.model
    assert isinstance(view, Called) and view.several
    assert [f.model for f in seen.of(Forward)] == [view] * 3
    assert [None if f.x is None else f.x.tolist() for f in seen.of(Forward)] == 2 * [
        [[k] for k in range(len(X))]
    ] + [None]
    view.eval()
    order = torch.tensor([[3], [0], [3]])
    torch.testing.assert_close(view(order), model.scores(X * mask)[[3, 0, 3]])


def test_an_autoencoder_two_rows_per_input_and_sequences_have_no_scores():
    class Both(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    class Words(nn.Embedding):
        def forward(self, x, y):
            return F.cross_entropy(super().forward(x).flatten(0, 1), y.flatten())

    def squares(model):
        out, same = model(X)
        return (out - same).square().mean()

    ids = torch.arange(12).view(4, 3)
    for model, loss_of in (
        (Both(3, 3), squares),
        (Both(3, 3), lambda model: (model(X)[0] - X).square().mean()),
        (Words(12, 2), lambda model: model(ids, ids % 2)),
    ):
        with watch() as seen:
            loss_of(model).backward()
        assert seen.model is model


def test_a_loss_with_weights_is_not_the_model():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, z, y):
            return F.cross_entropy(z * self.scale, y)

    model, loss = network(), Weighted()
    with watch() as seen:
        loss(model(X), Y).backward()
    assert seen.model is model and len(seen.of(Forward)) == 1


def test_data_that_are_read_in_before_do_not_fill_the_tape():
    model = LossAlone()
    with watch() as seen:
        for _ in range(25_000):
            X[0]
        model(X, Y).backward()
    forward, backward = seen.events
    assert isinstance(seen.model, Called) and len(backward.calls) < 20_000
    assert replayed(backward.calls, [forward.out, Y], backward.root) is not None


def by_hand(move, model=lambda x, w, b: x @ w + b, steps=3):
    """What is seen of a loop whose step is move(p, its gradient)."""
    w = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    b = torch.zeros(2).requires_grad_()
    with watch() as seen:
        for _ in range(steps):
            loss = F.cross_entropy(model(X, w, b), Y)
            loss.backward()
            with torch.no_grad():
                for p in (w, b):
                    move(p, p.grad)
                    p.grad = None
    return seen, w, b


def test_tensors_and_a_function_are_a_model():
    seen, w, b = by_hand(lambda p, grad: p.sub_(0.25 * grad))
    assert kinds(seen) == 3 * LOOP[:2] and [back.moved for back in seen.of(Backward)] == [0, 1, 1]
    model, (forward, *_) = seen.model, seen.events
    assert isinstance(model, ByHand) and forward.x is X and forward.y is Y
    assert dict(model.named_parameters()) == {"weight 1 [3, 2]": w, "weight 2 [2]": b}
    torch.testing.assert_close(model(X[:4] * 2), X[:4] * 2 @ w + b)
    before = w.detach().clone()
    with undisturbed(*seen.things), torch.no_grad():
        w.zero_()
        assert not model(X).sub(b).any()
    assert torch.equal(w, before)


@pytest.mark.parametrize(
    "move, lr, maximize",
    [
        (lambda p, grad: p.sub_(0.25 * grad), 0.25, False),
        (lambda p, grad: setattr(p, "data", p.data - 3 * grad), 3.0, False),
        (lambda p, grad: p.add_(0.1 * grad), 0.1, True),
    ],
)
def test_a_step_by_hand_is_measured(move, lr, maximize):
    seen, w, b = by_hand(move)
    (optimizer,) = seen.optimizers
    (group,) = optimizer.param_groups
    assert (group["lr"], group["maximize"]) == (lr, maximize) and group["params"] == [w, b]


def test_a_weight_that_is_left_where_it_is_is_not_in_the_measured_step():
    seen, w, b = by_hand(lambda p, grad: p.sub_(grad) if p.ndim > 1 else None)
    assert [group["params"] for group in seen.optimizers[0].param_groups] == [[w]]


@pytest.mark.parametrize(
    "move", [lambda p, grad: p.sub_(0.1 * grad.sign()), lambda p, grad: None], ids=["sign", "none"]
)
def test_what_is_no_step_along_the_gradient_is_not_measured(move):
    assert by_hand(move)[0].optimizers == []


def test_weights_that_are_made_anew_in_each_step():
    w = torch.ones(3, 2, requires_grad=True)
    with watch() as seen:
        for _ in range(4):
            loss = F.cross_entropy(X @ w, Y)
            loss.backward()
            w = (w - 0.1 * w.grad).detach().requires_grad_()
    backs = seen.of(Backward)
    assert [back.moved for back in backs] == [False, True, True, True]
    assert [back.stale for back in backs] == 4 * [0] and seen.optimizers == []
    assert isinstance(seen.model, ByHand)


def test_an_embedding_by_hand():
    ids, table = torch.arange(12).view(6, 2) % 5, torch.randn(5, 4, requires_grad=True)
    w, y = torch.randn(8, 3, requires_grad=True), torch.tensor([2, 0, 1, 0, 1, 2])
    with watch() as seen:
        F.cross_entropy(table[ids].view(-1, 8).tanh() @ w, y).backward()
    (forward, _) = seen.events
    assert forward.x is ids and forward.y is y
    other = torch.tensor([[4, 4], [0, 1]])
    torch.testing.assert_close(seen.model(other), table[other].view(-1, 8).tanh() @ w)


def test_two_branches_by_hand_are_followed_to_where_they_meet_and_two_inputs_are_not_guessed():
    w, v = torch.ones(3, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    with watch() as seen:
        F.cross_entropy(X @ w + (X**2) @ v, Y).backward()
    torch.testing.assert_close(seen.model(X[:2]), X[:2] @ w + X[:2] ** 2 @ v)
    other = torch.ones(len(X), 3)
    with watch() as seen:
        F.cross_entropy(X @ w + other @ v, Y).backward()
    assert kinds(seen) == ["Backward"]


def test_who_watches_is_not_put_back_with_what_leads_to_it():
    model = network()
    with watch() as seen:
        model.trainer = [seen]
        trained(model, torch.optim.SGD(model.parameters(), 0.1))
        for kept in seen.start:
            kept.put_back()
    assert kinds(seen) == 2 * LOOP


def test_arrays_among_the_calls_and_a_penalty_of_the_weights():
    w = torch.ones(3, 2, requires_grad=True)
    with watch() as seen:
        x, y = torch.tensor(X.numpy()), torch.from_numpy(Y.numpy())
        (F.cross_entropy(x @ w, y) + (w**2).sum()).backward()
    forward, backward = seen.events
    again = replayed(backward.calls, [forward.out, y], backward.root)
    z = torch.zeros(5, 2, requires_grad=True)
    again(z, torch.arange(5) % 2).backward()
    assert again(z, torch.arange(5) % 2).item() == pytest.approx(6 + math.log(2))
    assert z.grad.any() and forward.x is x


def test_ones_and_zeros_are_no_targets():
    model = nn.Linear(3, 1)
    with watch() as seen:
        real = F.binary_cross_entropy_with_logits(model(X), torch.ones(len(X), 1))
        out = model(-X)
        (real + F.binary_cross_entropy_with_logits(out, torch.zeros_like(out))).backward()
    assert [f.y for f in seen.of(Forward)] == [None, None]


def test_what_cannot_be_read_does_not_end_the_loop(monkeypatch):
    monkeypatch.setattr("mnist_ce.watching.behind", lambda *arguments: 1 / 0)
    model = network()
    with watch() as seen:
        trained(model, torch.optim.SGD(model.parameters(), 0.1))
    assert kinds(seen) == 2 * LOOP


def test_a_look_at_the_gradients_of_a_few_examples_is_no_part_of_the_training():
    w = torch.ones(3, 2, requires_grad=True)
    with watch() as seen:
        F.cross_entropy(X[:4] @ w, Y[:4]).backward()
        F.cross_entropy(X[:4] @ w, Y[:4]).backward()
        w.grad.zero_()
        for _ in range(3):
            F.cross_entropy(X @ w, Y).backward()
            w.data += 0.5 * w.grad
            w.grad.zero_()
    assert kinds(seen) == 3 * LOOP[:2]
    assert [len(f.out) for f in seen.of(Forward)] == 3 * [12] and seen.of(Backward)[0].calls
    assert seen.optimizers[0].param_groups[0]["maximize"]


def test_steps_that_are_forgotten_are_all_noted_and_a_step_may_come_after_several_batches():
    seen, *_ = by_hand(lambda p, grad: None)
    assert kinds(seen) == 3 * LOOP[:2]
    w = torch.ones(3, 2, requires_grad=True)
    with watch() as seen:
        for k in range(4):
            F.cross_entropy(X[k:] @ w, Y[k:]).backward()
            if k % 2:
                w.data -= 0.5 * w.grad
                w.grad = None
    assert kinds(seen) == 4 * LOOP[:2] and seen.optimizers[0].param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("mark", [lambda y: y == 1, lambda y: y.float() > torch.tensor(0.5)])
def test_targets_are_known_before_they_are_marked(mark):
    w, y = torch.ones(3, 1, requires_grad=True), Y.clone()
    with watch() as seen:
        p = (X @ w).sigmoid()[:, 0]
        torch.where(mark(y), 1 - p, p).mean().backward()
    assert seen.events[0].y is y
