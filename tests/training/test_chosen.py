"""`--optimizer` and `--lr_scheduler`: what is named is what trains, also after a resume."""

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from textdiff.commands.cli import main
from textdiff.training.chosen import Chosen
from textdiff.training.optimiser import Optimiser
from textdiff.training.schedules import WSD, Constant, Cosine

OURS = Optimiser(1e-3, (0.9, 0.99), 0.01, warmup=2, final_lr=0.1)
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5, "momentum": 0.9}}


class Module(nn.Linear):
    """Two parameters, of which one is decayed."""

    decayed = frozenset({"weight"})


def rates(schedule, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def sgd():
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)


def test_rates_of_the_schedules():
    assert rates(Constant(sgd(), warmup=4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates(WSD(sgd(), warmup=2, decay=0.4, steps=10), 11) == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    )
    cosine = rates(Cosine(sgd(), warmup=2, final=0.1, steps=10), 11)
    assert cosine == pytest.approx([OURS.share(step, 10) for step in range(11)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WSD(sgd(), warmup=10, steps=10), "warmup 10 leaves none of the 10 steps"),
        (lambda: WSD(sgd(), decay=1.5, steps=10), "decay must be a share"),
        (lambda: Cosine(sgd(), final=-0.1, steps=10), "final must be a share"),
        (lambda: Constant(sgd(), warmup=-1), "warmup -1"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_chosen_is_made():
    ours = Chosen().configured(OURS, Module(2, 2), 10)
    assert type(ours["optimizer"]) is torch.optim.AdamW and len(ours["optimizer"].param_groups) == 2
    named = {"class_path": "textdiff.training.schedules.WSD", "init_args": {"decay": 0.5}}
    with pytest.warns(UserWarning, match="SGD takes the place of AdamW: model.lr"):
        made = Chosen(SGD, named).configured(OURS, Module(2, 2), 10)
    assert type(made["optimizer"]) is torch.optim.SGD
    assert made["optimizer"].defaults["momentum"] == 0.9
    assert made["lr_scheduler"]["interval"] == "step"
    found = rates(made["lr_scheduler"]["scheduler"], 10)
    assert found == pytest.approx([0.5] * 6 + [0.4, 0.3, 0.2, 0.1])  # as many steps as there are
    plain = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}}
    made = Chosen(None, plain).configured(OURS, Module(2, 2), 10)
    assert type(made["optimizer"]) is torch.optim.AdamW
    assert rates(made["lr_scheduler"]["scheduler"], 4) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    plateau = {"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau"}
    with pytest.raises(ValueError, match="a function of the step"):
        Chosen(None, plateau).configured(OURS, Module(2, 2), 10)


def test_a_resume_ends_in_the_same_weights(tmp_path):
    chosen = ["--optimizer=torch.optim.SGD", "--optimizer.lr=0.5", "--optimizer.momentum=0.9"]
    chosen += ["--lr_scheduler=textdiff.training.schedules.WSD", "--lr_scheduler.decay=0.5"]
    saved = ["--checkpoint.every_n_train_steps=3", "--checkpoint.save_top_k=-1"]
    run = tiny.fit(tmp_path / "a", *chosen, *saved, max_steps=6)
    whole = load_file(run / "model.safetensors")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optimizer"]["class_path"] == "torch.optim.SGD"
    (begin,) = (run / "checkpoints").glob("step-3*.ckpt")
    again = tmp_path / "b"
    words = ["--config", str(run / "config.yaml"), f"--trainer.default_root_dir={again}"]
    words += [f"--checkpoint.dirpath={again / 'checkpoints'}", f"--ckpt_path={begin}"]
    main(["fit", *words])
    resumed = load_file(again / "model.safetensors")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    plain = load_file(tiny.fit(tmp_path / "c", max_steps=6) / "model.safetensors")
    assert any(not torch.equal(plain[name], whole[name]) for name in whole)
