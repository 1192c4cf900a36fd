"""What is kept is kept whole, or not at all: damage, kills, full disks, two at a time."""
import json
import os
import re
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from conftest import benchmark

from mnist_ce import cli, ensemble, original, results, training
from mnist_ce.data import Digits
from mnist_ce.ensemble import compare, fit_many, sweep
from mnist_ce.losses import cross_entropy_loss, mnist_loss, nll_loss, softmax_loss
from mnist_ce.metrics import accuracy
from mnist_ce.original import factorial, reproduce
from mnist_ce.networks import one_cycle, recipe
from mnist_ce.results import Runs, read_checkpoint, write_checkpoint, write_file, write_json
from mnist_ce.training import fit, load_run, load_runs

torture_saves = benchmark("torture_saves")

QUICK = dict(epochs=2, device="cpu", progress=False)


@pytest.fixture(scope="module")
def few():
    return torture_saves.few()


def all_clear(found):
    assert found["clear"] == found["tried"] > 0 and not any(found[key] for key in ("silent", "wrong", "hang", "lost"))


def test_damaged_bytes_are_refused():
    all_clear(torture_saves.mutated_bytes(400))


def test_fields_that_do_not_fit_each_other_are_refused():
    all_clear(torture_saves.altered_fields(400))


def test_a_reader_sees_the_old_file_or_the_new_one_whatever_is_killed():
    all_clear(torture_saves.killed_saves(3))


def test_a_full_disk_leaves_the_old_file():
    all_clear(torture_saves.full_disks(20))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_what_fails_late_leaves_nothing_behind(tmp_path, monkeypatch, moment):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(OSError, match="No space left on device: '.*result.json'"):
        write_json(path, dict(git=None))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.json"]


def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in tmp_path / "pipe", tmp_path:
        with pytest.raises(OSError, match=path.name):
            write_file(path, b"")
    with pytest.raises(ValueError, match="pipe is not a saved run: it is not a regular file"):
        load_runs(tmp_path / "pipe")
    with pytest.raises(OSError, match="missing"):
        load_runs(tmp_path / "missing")
    with pytest.raises(OSError, match=tmp_path.name):
        load_runs(tmp_path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": 1, "a": 2}', '{"a": -Infinity}', "[" * 100_000, '{"tuple": [1], "b": 2}']
)
def test_metadata_is_strict(tmp_path, text):
    write_checkpoint(tmp_path / "run", dict(a="here"))
    raw = (tmp_path / "run").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    told = header["__metadata__"]["mnist_ce"].replace('{"a": "here"}', text)
    header["__metadata__"]["mnist_ce"] = told[:-1] + f', "b": {text}}}'
    head = json.dumps(header, separators=(",", ":")).encode()
    raw = bytearray(len(head).to_bytes(8, "little") + head)
    raw[results._SUM] = results._checksum(raw)
    (tmp_path / "run").write_bytes(raw)
    with pytest.raises(ValueError, match="run is not a saved run: (?!its checksum)"):
        read_checkpoint(tmp_path / "run")


def test_tensors_of_which_nothing_is_told(tmp_path):
    from safetensors.torch import save

    text = json.dumps(dict(sha256="0" * 64, a=1))
    raw = bytearray(save(dict(b=torch.ones(2)), dict(mnist_ce=text)))
    raw[results._SUM] = results._checksum(raw)
    (tmp_path / "run").write_bytes(raw)
    with pytest.raises(ValueError, match="run is not a saved run: nothing tells what b is"):
        read_checkpoint(tmp_path / "run")


def test_what_a_checkpoint_keeps_comes_back(tmp_path):
    names = {"a.b": torch.ones(2), "a": {"b": torch.zeros(())}, "float": 0.5, "b": dict(tensor=1)}
    content = dict(deep=names, odd={(1, 2): torch.arange(3), 0: float("nan")}, both=(-np.inf, np.float32(0.5), True))
    write_checkpoint(tmp_path / "file", content)
    found = read_checkpoint(tmp_path / "file")
    assert str(found) == str(content | dict(both=(-np.inf, 0.5, True)))
    with pytest.raises(TypeError, match="a.0 is a function, which"):
        write_checkpoint(tmp_path / "file", dict(a=[print_nothing]))


def print_nothing():
    """A function, which no file keeps."""


@pytest.mark.parametrize(
    "number", [np.float64(0.1), np.float32(0.1), torch.tensor(0.1), np.array(0.1), 1], ids=lambda n: type(n).__name__
)
def test_numbers_of_numpy_and_torch_save_and_load(few, tmp_path, number):
    settings = dict(QUICK, epochs=np.int64(2), batch_size=np.int32(30))
    fit(mnist_loss, *few, lr=number, seed=np.int64(3), init_std=number, **settings).save(tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert loaded.coords["lr"] == pytest.approx(float(number)) and loaded.coords["seed"] == 3
    runs = fit_many(mnist_loss, *few, np.arange(2), lr=number, data_seed=np.uint8(2), **settings)
    runs.save(tmp_path / "runs")
    assert Runs.load(tmp_path / "runs").coords == runs.coords


@pytest.mark.parametrize("rate", [torch.tensor(0.01), 0.01], ids=["tensor", "float"])
def test_the_optimizers_own_rate_saves_and_loads(few, tmp_path, rate):
    model = nn.Linear(784, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    run = fit(cross_entropy_loss, *few, model=model, optimizer=optimizer, **QUICK)
    run.save(tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert torch.equal(loaded.predict_proba(few[1]), run.predict_proba(few[1]))
    assert loaded.coords["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["linear", "mlp", "convnet"])
@pytest.mark.parametrize("compiled", [False, True, "inside"], ids=["plain", "compiled", "inside"])
def test_networks_of_ours_load_without_their_module(few, tmp_path, name, compiled):
    settings = dict(QUICK, lr=0.01, optimizer=one_cycle) | recipe(name, 2)
    model = settings.pop("model", nn.Linear(784, 2))
    if compiled == "inside" and name != "linear":
        model[-1] = torch.compile(model[-1], backend="eager")
    elif compiled:
        model = torch.compile(model, backend="eager")
    run = fit(cross_entropy_loss, *few, model=model, **settings)
    run.save(tmp_path / "run")
    given = None if compiled != "inside" or name == "linear" else recipe(name, 2, seed=9)["model"]
    loaded = load_run(tmp_path / "run", given)
    assert torch.equal(loaded.predict_proba(few[1]), run.predict_proba(few[1]))
    again = torch.compile(recipe(name, 2).get("model", nn.Linear(784, 2)), backend="eager")
    assert torch.equal(load_run(tmp_path / "run", again).predict(few[1]), run.predict(few[1]))


def test_a_model_is_not_touched_by_a_file_that_does_not_fit_it(few, tmp_path):
    fit(cross_entropy_loss, *few, **QUICK, **recipe("mlp", 2)).save(tmp_path / "run")
    for other in recipe("mlp", 3)["model"], recipe("mlp", 2)["model"].double():
        before = [p.clone() for p in other.parameters()]
        with pytest.raises(ValueError, match="run holds a module of another make: .*weight"):
            load_run(tmp_path / "run", other)
        assert all(torch.equal(*pair) for pair in zip(before, other.parameters()))


def test_a_module_that_keeps_more_than_tensors(few, tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return 3

        def set_extra_state(self, state):
            pass

    run = fit(cross_entropy_loss, *few, model=Counting(784, 2), lr=0.1, **QUICK)
    with pytest.raises(TypeError, match="the module keeps _extra_state, which is no tensor"):
        run.save(tmp_path / "run")
    assert not os.listdir(tmp_path)


def test_runs_without_models_and_with_broken_ones(few, tmp_path):
    runs = fit_many(mnist_loss, *few, range(2), **QUICK)
    runs.models = []
    runs.save(tmp_path / "scores")
    assert Runs.load(tmp_path / "scores").coords == runs.coords
    broken = fit_many(cross_entropy_loss, *few, [0], lr=1e38, **QUICK)
    broken.save(tmp_path / "broken")
    assert not load_runs(tmp_path / "broken").weights.isfinite().all()


def alike(one, other):
    """Whether two runs are the same bits: weights, history, all but the time."""
    blocks = [run.runs.models[0].tensors() for run in (one, other)]
    scores = all(torch.equal(*(run.runs.scores[name] for run in (one, other))) for name in one.runs.scores)
    return scores and all(torch.equal(*pair) for pair in zip(*blocks, strict=True))


class Off(BaseException):
    """The machine is switched off."""


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dropping(columns):
    return nn.Sequential(nn.Linear(784, 30), nn.Dropout(0.5), nn.Linear(30, columns))


@pytest.mark.parametrize("kind", ["linear", "adam", "mlp", "convnet", "dropout"])
def test_a_resumed_training_is_the_training(sample, tmp_path, monkeypatch, loss, kind, one_thread):
    few = sample[0][::25], sample[1][::10]

    def train(**more):
        settings = dict(epochs=10, batch_size=100, device="cpu", progress=False, seed=3, data_seed=1)
        if kind == "adam":
            settings |= dict(optimizer=torch.optim.Adam, lr=0.01)
        elif kind == "dropout":
            torch.manual_seed(0)
            settings |= dict(model=dropping(loss.columns or 2), optimizer=torch.optim.NAdam, lr=0.01)
        elif kind != "linear":
            settings |= recipe(kind, loss.columns or 2, seed=3)
        return fit(loss, *few, **settings | more)

    path, at_once = tmp_path / "state", train()
    if kind in ("mlp", "convnet"):  # the schedule depends on the number of epochs: it is stopped
        write = write_checkpoint

        def four(path, content):
            write(path, content)
            if len(content["seconds"]) == 4:
                raise Off

        with monkeypatch.context() as patch:
            patch.setattr(training, "write_checkpoint", four)
            with pytest.raises(Off):
                train(resume=path)
    else:
        train(resume=path, epochs=4)
    assert len(load_run(path, dropping(loss.columns or 2) if kind == "dropout" else None).history) == 4
    state = torch.get_rng_state()
    resumed = train(resume=path)
    assert alike(resumed, at_once)
    assert kind == "dropout" or torch.equal(torch.get_rng_state(), state), "the caller's state is as it was"
    assert alike(train(resume=path), at_once), "nothing is left to do"


def test_a_training_on_log_probabilities_is_resumed_as_well(sample, tmp_path, one_thread):
    few = sample[0][::25], sample[1][::10]

    def train(**more):
        torch.manual_seed(0)
        settings = dict(model=nn.Sequential(nn.Linear(784, 2), nn.LogSoftmax(1)), lr=0.1, device="cpu", progress=False)
        return fit(nll_loss, *few, **dict(settings, epochs=10) | more)

    at_once = train()
    train(resume=tmp_path / "state", epochs=4)
    assert alike(train(resume=tmp_path / "state"), at_once)


def test_another_training_is_not_resumed(few, tmp_path):
    path = tmp_path / "state"
    settings = dict(QUICK, model=nn.Linear(784, 2), optimizer=torch.optim.AdamW, lr=0.1)
    fit(cross_entropy_loss, *few, resume=path, **settings)
    kept = path.read_bytes()
    decaying = lambda parameters, lr: torch.optim.AdamW(parameters, lr, weight_decay=0.5)
    slower = lambda parameters, lr: torch.optim.AdamW(parameters, lr / 2)
    brighter = few[0], torture_saves.few(61)[1]
    for given, words in [
        (dict(lr=0.2), r"lr=0.1, not 0.2; options="),
        (dict(batch_size=7, seed=4), "batch_size=256, not 7; seed=0, not 4"),
        (dict(metrics=dict(own=accuracy)), "metrics=.*'own'"),
        (dict(optimizer=torch.optim.Adam), "optimizer='AdamW', not 'Adam'"),
        (dict(optimizer=decaying), "options="),
        (dict(optimizer=slower), "options="),
        (dict(augment=lambda xb, generator: xb), "augment=None, not '<lambda>'"),
        (dict(model=nn.Sequential(nn.Linear(784, 2))), "model='Linear', not 'Sequential'"),
        (dict(epochs=1), "holds 2 epochs, not 1"),
    ]:
        with pytest.raises(ValueError, match=f"state .*{words}"):
            fit(cross_entropy_loss, *few, resume=path, **settings | given)
    with pytest.raises(ValueError, match="state was made otherwise: data="):
        fit(cross_entropy_loss, *brighter, resume=path, **settings)
    with pytest.raises(ValueError, match="loss='cross_entropy_loss', not 'softmax_loss'"):
        fit(softmax_loss, *few, resume=path, **settings)
    assert path.read_bytes() == kept
    fit(cross_entropy_loss, *few, **settings).save(path)
    with pytest.raises(ValueError, match="holds a run without the state"):
        fit(cross_entropy_loss, *few, resume=path, **settings)


def test_a_state_that_does_not_fit_is_refused(few, tmp_path):
    path, settings = tmp_path / "state", dict(QUICK, optimizer=one_cycle, lr=0.1)
    fit(cross_entropy_loss, *few, resume=path, **settings)
    good = read_checkpoint(path)
    for key, value in dict(order=torch.ones(3), optimizer={}, schedule=None, random=None, protocol=3).items():
        write_checkpoint(path, good | dict(training=good["training"] | {key: value}))
        with pytest.raises(ValueError, match="state"):
            fit(cross_entropy_loss, *few, resume=path, **settings)


def test_a_training_goes_on_where_its_state_cannot_be_kept(few, tmp_path):
    with pytest.warns(UserWarning, match="No such file or directory: '.*state': the state is not kept, training goes on"):
        run = fit(mnist_loss, *few, resume=tmp_path / "gone" / "state", **QUICK)
    assert len(run.history) == 2


STUDIES = {
    "compare": lambda keep, few: compare(
        [mnist_loss, cross_entropy_loss], *few, range(3), range(2), keep=keep, **QUICK
    ),
    "sweep": lambda keep, few: sweep([softmax_loss], *few, [0.1, 1.0, 2.0], range(3), keep=keep, **QUICK),
    "reproduce": lambda keep, few: reproduce("softmax", range(5), "cpu", False, keep=keep),
    "factorial": lambda keep, few: factorial(range(2), 1, "cpu", False, keep=keep),
}


@pytest.mark.parametrize("study", STUDIES)
def test_what_was_finished_is_not_done_again(few, tmp_path, monkeypatch, study):
    quick = lambda: tuple(part[::30] for part in torture_saves.few(600))
    monkeypatch.setattr(original, "mnist_sample", quick)
    monkeypatch.setattr(ensemble, "CROWD", 2)
    monkeypatch.setattr(ensemble, "workers_for", lambda *_: 0)
    expected, save, saved = STUDIES[study](None, few), Runs.save, []

    def four(runs, path):
        saved.append(path)
        save(runs, path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "save", four)
        some = STUDIES[study](tmp_path / "kept", few)
    assert some.record["interrupted"] and 0 < len(some) < len(expected)
    before = {path: path.stat().st_mtime_ns for path in saved}
    runs = STUDIES[study](tmp_path / "kept", few)
    assert before == {path: path.stat().st_mtime_ns for path in saved}
    assert "interrupted" not in runs.record and runs.coords == expected.coords
    same = lambda one, other: torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    for name, values in runs.scores.items():
        same(values, expected.scores[name])
    assert study == "factorial" or torch.equal(runs[-1].weights, expected[-1].weights)


def test_another_study_is_not_gone_on_with(few, tmp_path):
    settings = dict(seeds=range(3), orders=range(2), keep=tmp_path, lr=1.0, **QUICK)
    compare([mnist_loss], *few, **settings)
    for given, words in [
        (dict(lr=0.5), "lr=1.0, not 0.5"),
        (dict(seeds=range(4)), r"seeds=\[0, 1, 2\], not \[0, 1, 2, 3\]; size=3, not 4"),
        (dict(orders=[1, 0], epochs=3), r"epochs=2, not 3; orders=\[0, 1\], not \[1, 0\]"),
    ]:
        with pytest.raises(ValueError, match=f"{tmp_path} was made otherwise: {words}"):
            compare([mnist_loss], *few, **settings | given)
    with pytest.raises(ValueError, match="losses=.*mnist_loss.*softmax_loss"):
        compare([softmax_loss], *few, **settings)
    with pytest.raises(ValueError, match="data="):
        compare([mnist_loss], few[0], few[1][::2], **settings)
    (tmp_path / "protocol.json").write_text('{"lr": NaN}')
    with pytest.raises(ValueError, match="protocol.json is not strict JSON: it holds NaN"):
        compare([mnist_loss], *few, **settings)


def test_a_study_goes_on_where_it_cannot_be_kept(few, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="file.*: what is finished is not kept, training goes on") as said:
        runs = compare([mnist_loss], *few, range(2), range(3), keep=tmp_path / "file" / "kept", **QUICK)
    assert len(runs) == 6 and len(said) == 1


def test_crowds_are_some_seconds_of_work(few):
    wide = Digits(x=torch.zeros(60_000, 1), y=torch.zeros(60_000, 1).long(), classes=tuple(range(10)), index=torch.arange(60_000))
    for epochs, sizes in (1, [100, 100, 50]), (1000, [100, 100, 50]), (10_000, [10] * 25), (10**6, [1] * 250):
        assert [*map(len, ensemble.crowds(range(250), wide, epochs))] == sizes


@pytest.mark.parametrize("command", torture_saves.COMMANDS)
def test_a_signal_leaves_a_readable_result(command):
    seed = [*torture_saves.COMMANDS].index(command)
    found = torture_saves.signals(1, seed, [command])
    found["hang"] = 0  # how long it takes depends on who else computes here
    all_clear(found)


def test_an_interrupted_command_is_finished(tmp_path):
    words, folder = "sweep --loss mnist_loss --seeds 100 --lrs 0.1:1:5 --epochs 9".split(), tmp_path / "runs"
    faults, _ = torture_saves.interrupt(words, signal.SIGTERM, 0, signal.SIGTERM, folder)
    (path,) = folder.glob("*.json")
    some = torture_saves.strict(path)
    assert not faults and some["record"]["interrupted"] is True and 0 < len(some["seed"]) < 500
    changed = [word.replace("9", "8") for word in words]
    with torture_saves.start([*changed, "--resume", str(path)], folder) as process:
        _, err = process.communicate()
    assert process.returncode == 2 and "epochs=9, not 8" in " ".join(err.split())
    before = path.read_bytes()
    assert torture_saves.strict(path) == some and path.read_bytes() == before
    with torture_saves.start([*words, "--resume", str(path)], folder) as process:
        out, _ = process.communicate()
    assert process.returncode == 0 and str(path) in out
    every = torture_saves.strict(path)
    assert "interrupted" not in every["record"] and len(every["seed"]) == 500
    pairs = [*zip(every["lr"], every["seed"])]
    for k, pair in enumerate(zip(some["lr"], some["seed"])):
        assert every["accuracy"][pairs.index(pair)] == some["accuracy"][k]
    assert {file.suffix for file in folder.iterdir()} == {".json", ".png"} and len([*folder.iterdir()]) == 2


def test_two_commands_in_the_same_second_have_two_results():
    all_clear(torture_saves.same_second(1))


def test_names_do_not_collide(tmp_path):
    (tmp_path / f"sweep-{datetime.now():%Y%m%d-%H%M%S}.json").write_text("another's")
    with ThreadPoolExecutor(8) as pool:
        names = [*pool.map(lambda k: cli._new_folder(tmp_path, "sweep"), range(40))]
    assert len(set(names)) == 40 and all(not name.with_suffix(".json").exists() for name in names)


COMPARE = "--seeds 2 --orders 2 --epochs 1 --published 0 --loss mnist_loss --loss cross_entropy_loss"


def test_a_full_disk_costs_no_table(tmp_path):
    (tmp_path / "older.json").write_text("older")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    words = ["compare", *COMPARE.split()]
    with torture_saves.start(words, tmp_path, preexec_fn=limit) as process:
        out, err = process.communicate()
    assert process.returncode == 1 and "paired difference" in out and "- mnist_loss" in out
    for suffix in "json", "png":
        assert re.search(rf"Error: .*File too large: '{tmp_path}/compare-.*\.{suffix}'", err)
    assert err.count("is not kept, training goes on") == 1
    assert [*tmp_path.iterdir()] == [tmp_path / "older.json"] and (tmp_path / "older.json").read_text() == "older"


@pytest.mark.filterwarnings("default")  # as for users
@pytest.mark.parametrize("command", ["compare", "sweep", "autopsy"])
def test_a_folder_that_vanishes_costs_no_table(tmp_path, monkeypatch, command):
    monkeypatch.setattr(cli.data, "mnist", lambda data, digits: torture_saves.few())
    monkeypatch.setattr(original, "mnist_sample", lambda: torture_saves.few())
    output, first = tmp_path / "runs", cli._stages

    def vanish(stages, path):
        shutil.rmtree(output)
        output.write_text("a file now")
        return first(stages, path)

    monkeypatch.setattr(cli, "_stages", vanish)
    words = dict(compare=COMPARE, sweep="--seeds 2 --epochs 1", autopsy="--seeds 2 --factorial-seeds 2")
    done = CliRunner().invoke(cli.main, [command, *words[command].split(), "--output", f"{output}/"])
    tables = dict(compare="paired difference", sweep="mean ± sd", autopsy="combinations: ")
    assert done.exit_code == 1 and tables[command] in done.output
    assert "is not kept, training goes on" in done.output
    assert re.search(rf"Error: .*Not a directory: '{output}/{command}-.*\.json'", done.output)
    assert output.read_text() == "a file now"


def test_a_model_that_is_there_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.data, "mnist", lambda data, digits: torture_saves.few())
    path, train = tmp_path / "model.safetensors", ["train", "--epochs", "2", "--output"]
    invoke = lambda *words: CliRunner().invoke(cli.main, [*map(str, words)])
    assert invoke(*train, path).exit_code == 0
    kept = path.read_bytes()
    again, on = invoke(*train, path), invoke("train", "--resume", path)
    assert again.exit_code == on.exit_code == 2 and path.read_bytes() == kept
    assert "is there already" in again.output and "without the state" in on.output
    nothing = invoke("sweep", "--resume", path)
    assert nothing.exit_code == 2 and "nothing to go on with" in nothing.output


def test_an_interrupted_training_is_finished(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.data, "mnist", lambda data, digits: tuple(part[::20] for part in sample))
    monkeypatch.chdir(tmp_path)
    invoke = lambda *words: CliRunner().invoke(cli.main, ["train", "--model", "mlp", *map(str, words)])
    assert invoke("--output", "whole").exit_code == 0
    write = training.StateFile.write

    def three(kept, runs, *state):
        write(kept, runs, *state)
        if len(runs.seconds) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.StateFile, "write", three)
        stopped = invoke()
    (path,) = Path("runs").iterdir()
    assert stopped.exit_code == 130 and f"--resume {path}" in stopped.output
    assert len(load_run(path).history) == 3
    assert invoke("--resume", path).exit_code == 0
    assert alike(load_run(path), load_run("whole.safetensors"))
    assert [*Path("runs").iterdir()] == [path]


def test_what_is_stopped_while_it_writes_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.data, "mnist", lambda data, digits: torture_saves.few())
    before, write = signal.getsignal(signal.SIGTERM), results.write_json

    def late(path, content):
        if path.suffix == ".json" and path.name != "command.json":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        write(path, content)

    monkeypatch.setattr(results, "write_json", late)
    try:
        done = CliRunner().invoke(cli.main, ["sweep", "--epochs", "1", "--output", str(tmp_path)])
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert done.exit_code == 143 and {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}
    assert "mean ± sd" in done.output and "interrupted" not in done.output
