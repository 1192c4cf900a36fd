"""The models past the linear one: they train by the same loss, from a seed, on each device."""

import pytest
import torch
from torch import nn

from mnist_ce.data import Digits, mnist
from mnist_ce.losses import cross_entropy_loss
from mnist_ce.networks import MODELS, convnet, jitter, mlp, one_cycle, recipe, shifted_probabilities
from mnist_ce.results import assert_close
from mnist_ce.training import NonFiniteLoss, fit, load_run


@pytest.fixture(scope="module")
def ten():
    """A tenth of the ten digits, and all test images."""
    train, test = mnist()
    return train[torch.arange(0, len(train), 10)], test


def network(name, seed=0):
    return recipe(name, 10, seed)["model"]


@pytest.mark.parametrize("name, least", [("linear", 0.85), ("mlp", 0.9), ("convnet", 0.96)])
def test_each_model_trains_on_ten_digits(ten, device, name, least):
    assert name in MODELS
    run = fit(cross_entropy_loss, *ten, epochs=3, **recipe(name, 10), device=device, progress=False)
    share = (run.predict(ten[1].x).cpu() == ten[1].digits).double().mean().item()
    assert share == pytest.approx(run.history[-1].accuracy, abs=2e-3) and share > least


@pytest.mark.parametrize("make", [mlp, convnet])
def test_initial_weights_come_from_the_generator_alone(make):
    first = make(10, torch.Generator().manual_seed(1))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        second = make(10, torch.Generator().manual_seed(1))
    other = make(10, torch.Generator().manual_seed(2))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))
    drawn = [(p, q) for p, q in zip(first.parameters(), other.parameters()) if p.ndim > 1]
    assert not any(torch.equal(p, q) for p, q in drawn)


def test_a_recipe_draws_from_its_seed():
    first, again, other = (network("mlp", seed)[1].weight for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert recipe("linear", 10, seed=4) == dict(lr=0.3, seed=4)


def test_a_convnet_is_the_same_again(ten):
    settings = [recipe("convnet", 10, seed=2) for _ in range(2)]
    data = ten[0], ten[1][::20]
    runs = [
        fit(cross_entropy_loss, *data, epochs=1, **of_one, device="cpu", progress=False)
        for of_one in settings
    ]
    for p, q in zip(*(run.model.state_dict().values() for run in runs)):
        assert_close(p.float(), q.float(), terms=784)


def spots(centers):
    """An image [784] for each center (x, y), in pixels from the middle: a smooth round spot."""
    place = torch.arange(28) - 13.5
    x, y = torch.meshgrid(place, place, indexing="xy")
    return torch.stack([(-((x - a) ** 2 + (y - b) ** 2) / 8).exp().flatten() for a, b in centers])


def centers_of(images):
    """The center of gravity (x, y) of each image [n, 784], in pixels from the middle."""
    place = torch.arange(28.0) - 13.5
    pictures = images.view(-1, 28, 28) / images.sum(1).view(-1, 1, 1)
    return torch.stack([pictures.sum(1) @ place, pictures.sum(2) @ place], 1)


def test_jitter_turns_scales_and_moves_as_much_as_it_says(device):
    """Where three spots come to lie tells each image's map, whatever it is: degrees, pixels …"""
    n, places = 2000, torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    moved = []
    for spot in spots(places):  # from the same seed: each spot goes through the same n maps
        images = spot.expand(n, 784).to(device)
        moved.append(centers_of(jitter(images, torch.Generator().manual_seed(0)).cpu()))
    origin, right, down = (points.double() for points in moved)
    forward = torch.stack([right - origin, down - origin], 2) / 4  # its columns: where the axes go
    back = torch.linalg.inv(forward)  # what is drawn is where each pixel comes from
    shift = -(back @ origin.unsqueeze(2)).squeeze(2)
    scale = torch.linalg.det(back).sqrt()  # NaN for a mirror image
    angle = torch.atan2(back[:, 1, 0], back[:, 0, 0]).rad2deg()
    turned = torch.stack([angle.deg2rad().cos(), angle.deg2rad().sin()], 1) * scale.unsqueeze(1)
    c, s = turned.unbind(1)
    similar = torch.stack([c, -s, s, c], 1).view(n, 2, 2)
    assert (back - similar).abs().max() < 0.02, "neither sheared nor mirrored"
    percent, (x, y) = 100 * (scale - 1), shift.T
    amounts = dict(angle=(angle, 10), scale=(percent, 10), x=(x, 2), y=(y, 2))
    for name, (values, most) in amounts.items():
        assert values.abs().max() < 1.05 * most and values.max() > 0.95 * most, name
        assert values.min() < -0.95 * most and abs(values.mean()) < 0.05 * most, name
        assert values.std() == pytest.approx(most / 3**0.5, rel=0.05), f"{name} is not uniform"
    drawn = torch.stack([values for values, _ in amounts.values()])
    assert (torch.corrcoef(drawn) - torch.eye(4)).abs().max() < 0.1, "each is drawn by itself"


def test_jitter_leaves_the_global_generator_alone(ten):
    before = torch.random.get_rng_state()
    moved = jitter(ten[0].x[:512], torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())
    assert abs(moved.mean() / ten[0].x[:512].mean() - 1) < 0.05, "hardly any ink is lost"


def test_shifts_cover_nine_places():
    seen = []

    class Watcher(nn.Module):
        def forward(self, xb):
            seen.append(xb.view(-1, 28, 28).nonzero()[0, 1:].tolist())
            return torch.tensor([[100.0 * (len(seen) == 1), 0.0]])  # certain at the first place

    x = torch.zeros(1, 784)
    x[0, 10 * 28 + 15] = 1
    averaged = shifted_probabilities(Watcher(), x)
    assert sorted(seen) == [[i, j] for i in (9, 10, 11) for j in (14, 15, 16)]
    assert_close(averaged, torch.tensor([[5 / 9, 4 / 9]]), terms=9)  # of probabilities, not logits


def test_a_saved_network_is_the_network(ten, tmp_path):
    settings = dict(recipe("convnet", 10), device="cpu", progress=False)
    run = fit(cross_entropy_loss, ten[0], ten[1][::20], epochs=1, **settings)
    run.save(tmp_path / "run.pt")
    loaded = load_run(tmp_path / "run.pt", model=network("convnet", seed=1))
    assert torch.equal(loaded.predict(ten[1].x[:500]), run.predict(ten[1].x[:500]))
    assert loaded.settings["optimizer"] == "one_cycle" and loaded.settings["augment"] == "jitter"


def test_the_model_must_fit_the_classes(sample):
    model = network("mlp")
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=r"must give \[n, 1\] or \[n, 2\]: 2 columns are needed"):
        fit(cross_entropy_loss, *sample, model=model, lr=0.1, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters()))


def test_a_network_that_goes_nonfinite_keeps_its_last_finite_state(ten):
    train, test = ten
    spoilt = train.x.clone()
    spoilt[300:310] = float("inf")
    data, model = Digits(spoilt, train.y, train.classes), network("convnet")
    settings = dict(lr=0.01, model=model, optimizer=one_cycle, shuffle=False, device="cpu")
    with pytest.raises(NonFiniteLoss) as stopped:
        fit(cross_entropy_loss, data, test[::20], epochs=1, **settings, progress=False)
    assert stopped.value.batch == 2
    state = model.state_dict().values()
    assert all(t.isfinite().all() for t in state), "weights, and the normalization's running means"


def test_the_optimizer_trains_the_linear_model_too(sample):
    settings = dict(epochs=2, lr=0.01, optimizer=one_cycle, progress=False)
    run = fit(cross_entropy_loss, *sample, **settings)
    assert run.history[-1].accuracy > 0.97 and run.settings["optimizer"] == "one_cycle"


def test_compiled_models_train(ten):
    settings = dict(recipe("mlp", 10), epochs=2, progress=False)
    settings["model"] = torch.compile(settings["model"], backend="eager")
    run = fit(cross_entropy_loss, ten[0], ten[1][::10], **settings)
    assert run.history[-1].accuracy > 0.85
