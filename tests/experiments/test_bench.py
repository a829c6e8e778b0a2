"""The benchmark: operations are counted right, every contender trains, the table says what the numbers say."""

import dataclasses
import functools
import importlib
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import __main__ as bench
from experiments.bench import contest, curves, linen, machine, ours, table, tasks, wholes
from experiments.bench.record import Record

IMAGES = (255 * (np.random.default_rng(0).random((6_200, 28, 28, 1)) < 0.1)).astype(np.uint8)
LEARNED = {"vae": (60, 100.0), "gan": (60, 0.003), "dcgan": (4, 0.005), "wgan": (4, 0.002)}
"""Steps, and how much the first loss falls at least; VAE/GAN's takes longer."""
# The loop of "linen-scan" is tried with steps without convolutions, its other steps from the host: that saves minutes.
PEERS = [
    pytest.param(name, contender, marks=[pytest.mark.slow] if contender == "torch-compile" else [])
    for name, task in tasks.TASKS.items()
    for contender in task.contenders
    if contender != "linen-scan" or name in ("vae", "gan")
]


def compiled(f, *args):
    return jax.jit(f).lower(*args).compile()


@pytest.mark.optimised
def test_operations_are_counted_in_products_convolutions_and_loops_and_only_where_they_are_read():
    a, b = jnp.ones((30, 40)), jnp.ones((40, 50))
    assert machine.flops(compiled(lambda a, b: jnp.tanh(a @ b), a, b)) == 2 * 30 * 40 * 50
    assert machine.flops(compiled(lambda a, b: (a @ b, a.T @ a)[0], a, b)) == 2 * 30 * 40 * 50

    def five(a, b):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ b @ b.T), None), a, None, length=5)[0]

    assert machine.flops(compiled(five, a, b)) == 5 * 2 * (2 * 30 * 40 * 50)
    x, w = jnp.ones((4, 8, 8, 3)), jnp.ones((3, 3, 3, 16))

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert machine.flops(compiled(convolve, x, w)) == 2 * (4 * 4 * 4 * 16) * (3 * 3 * 3)
    assert machine.flops(compiled(lambda a, b: jnp.ones((1, 30)) @ jnp.tanh(a) @ b, a, b)) == 2 * 40 * 50  # the sum: 0


@pytest.mark.optimised
def test_a_vae_step_costs_its_eleven_products():
    """Forward and both gradients of four layers, but for the gradient in the image, which nobody asks for."""
    forward = 2 * 100 * (784 * 500 + 500 * 40 + 20 * 500 + 500 * 784)
    assert bench.gflop("vae") == pytest.approx((3 * forward - 2 * 100 * 784 * 500) / 1e9, rel=1e-6)


@pytest.mark.optimised  # full-size steps: there are many operations to one compilation
@pytest.mark.parametrize(("task", "contender"), PEERS)
def test_every_contender_trains(task, contender, monkeypatch):
    module, mode = tasks.CONTENDERS[contender]
    try:
        build = importlib.import_module(module).build
        if contender == "torch-compile" and task != "vae":  # the same graphs; one model's code in C++ is enough of it
            import torch

            monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in {"torch", "numpyro", "pythae"}:
            raise
        pytest.skip(f"{error.name} is not installed: make bench-install")
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):  # peers keep to their own rules
        advance = build(task, mode, IMAGES, 0)
        steps, fall = LEARNED.get(task, (4, -np.inf))
        losses = np.concatenate([advance(steps // 2), advance(steps // 2)])  # of one length, which compiles once
    assert losses.shape == (steps, 2)
    assert np.isfinite(losses if contender != "numpyro" else losses[:, 0]).all()  # which has their sum only
    assert len(np.unique(losses[:4, 0])) == 4 and losses[0, 0] - losses[-1, 0] > fall


@pytest.mark.parametrize("task", tasks.TASKS)
def test_peers_have_as_many_parameters_as_ours(task, monkeypatch):
    algorithm, config = tasks.ours(task)
    ours = jax.eval_shape(lambda: algorithm.init(config, jax.random.key(0), (28, 28, 1)))
    players = [ours] if hasattr(ours, "params") else vars(ours).values()
    expected = sum(leaf.size for p in players if hasattr(p, "params") for leaf in jax.tree.leaves(p.params))
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        state = jax.eval_shape(lambda: linen.STEPS[task](jax.random.key(0))[0])
    theirs = [state["params"]] if "params" in state else [player["params"] for player in state.values()]
    assert sum(leaf.size for leaf in jax.tree.leaves(theirs)) == expected
    pytorch = pytest.importorskip("experiments.bench.pytorch", reason="make bench-install", exc_type=ImportError)
    nets, init = [], pytorch._init
    monkeypatch.setattr(pytorch, "_init", lambda net, *how: nets.append(net) or init(net, *how))
    pytorch.STEPS[task](pytorch.Mode(pytorch.torch.contiguous_format, False))
    assert sum(p.numel() for net in nets for p in net.parameters()) == expected


@pytest.mark.optimised  # its processes train
def test_two_processes_in_turn_and_the_row_that_comes_of_it(tmp_path):
    out = tmp_path / "here.json"
    other = {"gflop": 1.0, "entries": []}  # what is not asked for stays
    about = {"date": "2026-01-01", "versions": "jax", "repeats": 9, "gemm_gflops": 3.0, "quiet": True, "unrest": ""}
    before = Record(out, "here", 2, **about)
    before.keep("vae", {"gflop": 2.0, "entries": []})
    before.keep("gan", other)
    flags = ["--tasks", "vae", "--contenders", "ours", "linen-host", "--data", "random", "--no-wholes"]
    assert bench.main([*flags, "--repeats", "2", "--turn", "0.05", "--loss-steps", "70", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result["tasks"]) == ["vae", "gan"] and result["tasks"]["gan"] == other
    assert [run["of"] for run in result["runs"]] == [["vae"], ["gan"]] and result["runs"][1]["gemm_gflops"] == 3
    assert table.run_of(result, "gan")["repeats"] == 9 and table.run_of(result, "vae")["repeats"] == 2
    last, first = table.headings(result).split("\n\n")
    assert last.endswith("This is of: VAE 784-500-20.") and first.endswith("2026-01-01, jax. This is of: GAN, maxout.")
    entries = result["tasks"]["vae"]["entries"]
    assert [e["contender"] for e in entries] == ["ours", "linen-host"]
    for entry in entries:
        assert entry["trouble"] == "" and len(entry["milliseconds"]) == 2 and min(entry["milliseconds"]) > 0
        assert entry["compile"] > 0 and entry["peak_mib"] > 50
    assert entries[1]["agrees"] == "yes" and len(entries[1]["beside"]) == 2 and entries[0]["beside"] == []
    assert "flax.linen" in table.text(table.contenders(result)) and "not run" in table.text(table.targets(result))


def test_a_contender_that_cannot_run_is_named_and_the_others_go_on():
    entries = contest.run(
        tasks.TASKS["gan"], source="random", repeats=1, turn=0.05, loss_steps=0, contenders=["numpyro", "ours"]
    )
    assert entries[0].trouble and not entries[0].milliseconds  # not installed, or not for this task
    assert entries[1].trouble == "" and len(entries[1].milliseconds) == 1


def test_curves_agree_within_their_noise_only():
    draw = np.random.default_rng(0).normal
    curve, again = (np.stack([100 + draw(size=200), 5 + 0.1 * draw(size=200)], axis=1) for _ in range(2))

    def agrees(*ours, theirs):
        return curves.compare(ours, theirs)["agrees"]

    assert agrees(curve, theirs=again) == "yes"
    assert re.fullmatch(r"no: (5|4\.9\d|5\.0\d) and 6\.[45]\d?", agrees(curve, theirs=again * [1, 1.3]))
    assert re.fullmatch(r"no: (100|99\.\d) and 102", agrees(curve, theirs=again + np.array([2, 0])))
    total = np.stack([again.sum(axis=1), np.full(200, np.nan)], axis=1)
    assert agrees(curve, theirs=total) == "yes" and agrees(curve, theirs=total + 20).startswith("no")
    assert agrees(curve, theirs=again[:63]) == agrees(curve, theirs=None) == agrees(theirs=again) == "too few steps"
    # A slope is no noise: the step between two curves that fall alike is seen.
    fall = np.linspace(100, 0, 200)[:, None]
    assert agrees(curve + fall, theirs=again + fall) == "yes"
    assert agrees(curve + fall, theirs=again + fall + np.array([2, 0])).startswith("no")
    lost = curves.compare([curve], np.where(np.arange(200)[:, None] > 150, np.nan, again * [1, 0]))
    assert lost["agrees"].startswith("no: ") and "nan" in lost["agrees"]
    json.dumps(lost, allow_nan=False)
    found = curves.compare([curve], again)
    assert found["means"][0] == [curve[100:, 0].mean(), again[100:, 0].mean()] and 0.99 < found["allowed"][0] < 1.01


@pytest.mark.optimised
def test_a_peer_with_another_learning_rate_is_found_out(monkeypatch):
    """On images of ten shapes, as a VAE's noise of one curve is not to hide it."""
    shapes = (IMAGES[:10] > 0).repeat(70, axis=0)
    algorithm, config = tasks.ours("vae")

    def curve(rate, seed):
        optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
        changed = dataclasses.replace(config, optimizer=optimizer)
        monkeypatch.setattr(tasks, "ours", lambda name: (algorithm, changed))
        return ours.build("vae", "scan", 255 * shapes.astype(np.uint8), seed)(200)

    base = curve(1e-3, 0)
    assert curves.compare([base], curve(1e-3, 1))["agrees"] == "yes"
    assert curves.compare([base], curve(1.5e-3, 1))["agrees"].startswith("no")


def test_other_seeds_are_asked_for_only_where_one_curve_differs():
    draw = np.random.default_rng(0).normal
    runs = [level + 0.1 * draw(size=(100, 2)) for level in (5.0, 6.0, 7.0)]
    entries = [contest.Entry("ours", [], losses=runs[0]), contest.Entry("torch", [], losses=runs[0] + 0.01)]
    asked = []

    def again(steps):
        asked.append(steps)
        return runs[1:]

    assert [row["agrees"] for row in bench.entry_rows(entries, again)] == ["-", "yes"] and not asked
    entries.append(contest.Entry("linen-host", [], losses=runs[2] + 0.5))
    rows = bench.entry_rows(entries, again)
    assert [row["agrees"] for row in rows] == ["-", "yes", "yes"] and asked == [100]
    assert rows[2]["losses"]["seeds"] == 3 and rows[2]["losses"]["allowed"][0] == pytest.approx(4 * 2 / 3**0.5, rel=0.1)
    entries[2] = contest.Entry("linen-host", [], losses=runs[2] + 5)
    assert bench.entry_rows(entries, again)[2]["agrees"].startswith("no: 6")


def test_a_target_is_judged_by_turns_against_the_fastest_of_its_rivals():
    def entry(name, *milliseconds):
        return {"contender": name, "milliseconds": list(milliseconds), "trouble": ""}

    entries = [entry("ours", 2.0, 4.0, 2.0), entry("torch", 3.0, 6.0, 6.0), entry("torch-compile", 9.0, 9.0, 9.0)]
    best, found = table.verdict(tasks.Target("PyTorch, best", tasks.BEST_TORCH, 1.5), [*entries, entry("numpyro", 1.0)])
    assert (best, found) == ("torch", [1.5, 1.5, 3.0])
    assert table.verdict(tasks.Target("all", (), 1.0), [*entries, entry("numpyro", 1.0, 1.0, 1.0)])[0] == "numpyro"
    assert table.verdict(tasks.Target("x", ("pythae",), 1.0), entries) == ("", [])
    near = entry("torch", 3.0, 6.0, 6.0) | {"beside": [3.0, 3.0, 3.0]}  # our turns next to a peer's come first
    assert table.verdict(tasks.Target("x", ("torch",), 1.0), [entries[0], near]) == ("torch", [1.0, 2.0, 2.0])
    # Fast in a turn when ours was slow too is not faster.
    quick, slow = entry("torch", 10.0) | {"beside": [5.0]}, entry("torch-compile", 11.0) | {"beside": [10.0]}
    assert table.verdict(tasks.Target("x", (), 1.0), [entries[0], quick, slow]) == ("torch-compile", [1.1])
    own = {"gflop": 1.0, "peaks": [100.0], "entries": [entry("ours", 5.0, 10.0, 20.0)]}
    result = {"tasks": {"vae": own}, "runs": [{"of": ["gan"], "gemm_gflops": 9.0}, {"of": ["vae"], "gemm_gflops": 200}]}
    assert table.targets(result)[-1][1:4] == ["the machine's GEMM peak, 200", "0.5", "0.50 (0.25-1.00)"]
    assert table.judged([], 1.0) == ("not run", "-")


def test_a_limit_that_the_middle_half_of_the_turns_is_astride_of_is_undecided():
    assert table.judged([1.098, 1.0, 1.2], 1.1) == ("1.098 (1.000-1.200)", "undecided")
    assert table.judged([1.1, 1.0, 1.2], 1.1) == ("1.10 (1.00-1.20)", "undecided")
    assert table.judged([0.7, 1.12, 1.11, 1.13, 1.3], 1.1) == ("1.12 (0.70-1.30)", "yes")
    assert table.judged([0.7, 1.08, 1.09, 1.07, 1.3], 1.1) == ("1.08 (0.70-1.30)", "no")
    assert table.judged([1.2], 1.1)[1] == "yes"


def test_losses_are_shown_with_what_would_do():
    losses = {"means": [[100.0, 99.0], [5.0, 5.2]], "allowed": [2.0, 1.3]}
    assert table.agreement({"agrees": "yes", "losses": losses}) == "yes: 1.0% apart, 2.0% would do"
    assert table.agreement({"agrees": "no: 1 and 2", "losses": losses}) == "no: 1 and 2"
    assert table.agreement({"agrees": "too few steps", "losses": {"means": [], "allowed": []}}) == "too few steps"
    assert table.agreement({"agrees": "-", "losses": {"agrees": "-"}}) == "-"
    assert table.spread([1.0, 3.0, 2.0]) == "2.00 (1.00-3.00)" and table.spread([]) == "not run"


def test_the_tables_are_those_of_the_results():
    assert table.main(["--check"]) == 0


def test_wholes_are_measured_or_say_what_is_missing(monkeypatch):
    """Small: fit beside its bare steps; scripts take real images, and one that fails is a row."""
    (row,) = wholes.rows("random", 2, steps=10)
    assert len(row["values"]) == 2 and min(row["values"]) > 0 and row["met"] in ("yes", "no", "undecided")
    monkeypatch.setattr(wholes, "fit_against_bare", lambda *_: ([1.0, 0.95, 0.96], [2.0, 3.0, 2.5]))
    monkeypatch.setattr(wholes, "peak_mib", lambda _: {"vae": 100.0, "gan": 2000.0})
    rows = wholes.rows("none of them", 1)
    assert rows[0]["met"] == "yes"
    assert rows[0]["text"] == "0.96 (0.95-1.00), once it has started, which takes 2.5 (2.0-3.0) s"
    assert rows[1]["met"] is None and re.match("not run: experiments.vae failed: .*none of them", rows[1]["text"])
    assert not rows[2]["met"] and rows[2]["text"] == "vae 100, gan 2,000"


def test_a_scripts_memory_is_its_own(monkeypatch):
    monkeypatch.setattr(wholes, "SCRIPTS", ("vae",))
    assert 100 < wholes.peak_mib("digits", steps=1)["vae"] < 1500


def test_bad_flags_are_one_sentence(capsys):
    assert bench.main(["--repeats", "0"]) == 1
    assert "repeats is 0: give 1 or more." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["--tasks", "stylegan"])


def test_devices_have_names_that_files_can_have():
    assert machine.slug("NVIDIA H200") == "nvidia-h200"
    assert machine.device_name() and Path(machine.slug(machine.device_name())).name
