"""Functions as bad as Python allows: a report or a documented error, and nothing set that was not.

`make torture` runs all of them, each in a process of its own.
"""

import os
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from conftest import benchmark

from mnist_ce.doctor import examine
from mnist_ce.results import default_device, own_settings, settings_kept
from mnist_ce.scores import as_loss

torture_code = benchmark("torture_code")
BODIES, source = torture_code.BODIES, torture_code.source

ALONE = set(  # slow, or no guests in pytest's own process
    "sleeps|sleeps long|keeps its scores|closes stdout|deletes its folder|takes signals|"
    "sets an alarm|reads the input".split("|")
)
SOUND = set(  # what they do beside is no fault of the loss
    "prints|prints to stderr|warns|seeds|draws|enters autocast for good|changes the folder|"
    "changes the default dtype|changes the default device|changes the environment|removes itself|"
    "detects anomalies|returns a float64|raises in a thread|replaces stdout|"
    "turns the collector off".split("|")
)


def loss_of(name):
    module = types.ModuleType("hostile")
    sys.modules["hostile"] = module
    exec(source(name), module.__dict__)
    return module.loss


def settings():
    state = torch.get_rng_state().sum().item(), torch.is_grad_enabled(), os.getcwd()
    return *state, torch.get_default_dtype(), torch.get_default_device(), dict(os.environ)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set([*BODIES][::3]) - ALONE | SOUND | {"calls sys.exit"}))
def test_a_hostile_function_ends_in_a_report(name):
    loss, before = loss_of(name), settings()
    report = examine(loss)
    assert (report.causes == []) == (name in SOUND), report.causes
    try:
        assert as_loss(loss, 2).name == "loss"
    except (ValueError, TypeError) as error:
        assert "loss" in str(error) and name not in SOUND
    assert settings() == before


@pytest.mark.parametrize("name", ["raises SystemExit", "raises an error whose text raises"])
def test_what_a_loss_raises_is_told(name):
    why = {"raises SystemExit": "SystemExit: 0"}.get(name, "(its text cannot be shown)")
    assert why in examine(loss_of(name)).failed[0].why
    with pytest.raises(ValueError, match="can be read in no way") as told:
        as_loss(loss_of(name), 2)
    assert why in str(told.value)


def test_ctrl_c_is_the_users_own():
    def interrupted(scores, targets):
        raise KeyboardInterrupt

    for call in examine, lambda loss: as_loss(loss, 2):
        with pytest.raises(KeyboardInterrupt):
            call(interrupted)


@pytest.mark.parametrize(
    "ambient",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
    ],
    ids="no_grad inference autocast device".split(),
)
def test_no_setting_of_the_caller_changes_a_report(ambient):
    own = [check[:4] for check in examine(F.cross_entropy)]
    with ambient():
        assert [check[:4] for check in examine(F.cross_entropy)] == own


def test_own_settings_are_torchs_and_then_the_callers():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.device("meta"), own_settings():
            fresh = torch.ones(1, requires_grad=True)
            assert fresh.dtype == torch.float32 and fresh.device.type == "cpu"
            assert (fresh * 2).requires_grad
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.ones(1).device.type == "cpu"


def test_a_default_device_that_was_taken_back_is_the_cpu():
    torch.set_default_device("meta")
    torch.set_default_device(None)  # torch 2.4 itself cannot tell what it is now
    assert default_device() == torch.device("cpu")
    with settings_kept():
        torch.set_default_device("meta")
    assert torch.get_default_device() == torch.device("cpu")
