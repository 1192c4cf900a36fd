"""The models past the linear one: they train by the same loss, from a seed, on each device."""
import pytest
import torch
from torch import nn

from mnist_ce.data import Digits, mnist
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.model import assert_close
from mnist_ce.networks import MODELS, convnet, jitter, mlp, one_cycle, recipe, shifted_probabilities
from mnist_ce.training import NonFiniteLoss, fit, load_run


@pytest.fixture(scope="module")
def ten():
    """A tenth of the ten digits, and all test images."""
    train, test = mnist()
    return train[torch.arange(0, len(train), 10)], test


@pytest.mark.parametrize("name, least", [("linear", 0.85), ("mlp", 0.9), ("convnet", 0.96)])
def test_each_model_trains_on_ten_digits(ten, device, name, least):
    run = fit(cross_entropy_loss, *ten, epochs=3, **recipe(name, 10), device=device, progress=False)
    assert run.history[-1].accuracy > least
    assert (run.predict(ten[1].x) == ten[1].y.view(-1).to(device)).double().mean().item() == pytest.approx(run.history[-1].accuracy, abs=2e-3)


@pytest.mark.parametrize("make", [mlp, convnet])
def test_initial_weights_come_from_the_seed_alone(make):
    first = make(10, torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    second = make(10, torch.Generator().manual_seed(1))
    other = make(10, torch.Generator().manual_seed(2))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))
    assert not any(torch.equal(p, q) for p, q in zip(first.parameters(), other.parameters()) if p.ndim > 1)


def test_a_convnet_is_the_same_again(ten):
    runs = [fit(cross_entropy_loss, ten[0], ten[1][:500], epochs=1, **recipe("convnet", 10, seed=2), device="cpu", progress=False) for _ in range(2)]
    for p, q in zip(*(run.model.state_dict().values() for run in runs)):
        assert_close(p.float(), q.float(), terms=784)


def test_jitter_draws_from_its_generator_and_keeps_the_mean(ten):
    xb = ten[0].x[:512]
    once, again, other = (jitter(xb, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert abs(once.mean() / xb.mean() - 1) < 0.05
    with torch.random.fork_rng():
        before = torch.random.get_rng_state()
        jitter(xb, torch.Generator().manual_seed(0))
        assert torch.equal(before, torch.random.get_rng_state())


def test_shifts_cover_nine_places():
    seen = []

    class Watcher(nn.Module):
        def forward(self, xb):
            seen.append(xb.view(-1, 28, 28).nonzero()[0, 1:].tolist())
            return torch.zeros(len(xb), 10)

    x = torch.zeros(1, 784)
    x[0, 10 * 28 + 15] = 1
    assert torch.allclose(shifted_probabilities(Watcher(), x), torch.full((1, 10), 0.1))
    assert sorted(seen) == [[i, j] for i in (9, 10, 11) for j in (14, 15, 16)]


def test_a_saved_network_is_the_network(ten, tmp_path):
    run = fit(cross_entropy_loss, ten[0], ten[1][:500], epochs=1, **recipe("convnet", 10), device="cpu", progress=False)
    run.save(tmp_path / "run.pt")
    loaded = load_run(tmp_path / "run.pt", model=recipe("convnet", 10)["model"])
    assert torch.equal(loaded.predict(ten[1].x[:500]), run.predict(ten[1].x[:500]))
    assert loaded.settings["optimizer"] == "one_cycle" and loaded.settings["augment"] == "jitter"


def test_the_model_must_fit_the_classes(sample):
    model = mlp(10, torch.Generator().manual_seed(0))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="the model gives .*10.*, 2 columns are needed for classes"):
        fit(cross_entropy_loss, *sample, model=model, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters()))


def test_an_unknown_model():
    assert set(MODELS) == {"linear", "mlp", "convnet"}
    with pytest.raises(ValueError, match="model 'resnet' is none of linear, mlp, convnet"):
        recipe("resnet", 10)


def test_a_network_that_goes_nonfinite_keeps_its_last_finite_state(ten):
    train, test = ten
    spoilt = train.x.clone()
    spoilt[300:310] = float("inf")
    model = convnet(10, torch.Generator().manual_seed(0))
    settings = dict(lr=0.01, model=model, optimizer=one_cycle, shuffle=False, device="cpu", progress=False)
    with pytest.raises(NonFiniteLoss) as stopped:
        fit(cross_entropy_loss, Digits(spoilt, train.y, train.classes), test[:500], epochs=1, **settings)
    assert stopped.value.batch == 2
    assert all(t.isfinite().all() for t in model.state_dict().values()), "weights, and the running means of the normalisation"


def test_the_optimizer_trains_the_linear_model_too(sample):
    run = fit(cross_entropy_loss, *sample, epochs=2, lr=0.01, optimizer=one_cycle, progress=False)
    assert run.history[-1].accuracy > 0.97 and run.settings["optimizer"] == "one_cycle"


def test_compiled_models_train(ten):
    model = torch.compile(mlp(10, torch.Generator().manual_seed(0)), backend="eager")
    run = fit(cross_entropy_loss, ten[0], ten[1][:1000], epochs=2, lr=0.01, model=model, optimizer=one_cycle, progress=False)
    assert run.history[-1].accuracy > 0.85
