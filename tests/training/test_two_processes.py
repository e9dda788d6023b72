"""Training in two processes: the adapter of one, and what is saved is checked to be whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossmatch import Adapter, Checkpoint
from crossmatch.checkpoint import read_json
from crossmatch.delta import dense
from crossmatch.errors import AdapterError, InputError
from crossmatch.training import TrainSettings, train_stage
from crossmatch.training.processes import Processes, this_run
from helpers import make_chat_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SETTINGS = {"rank": 2, "batch_size": 4, "max_length": 24, "learning_rate": 1e-3, "max_steps": 4}
PAIRS = [("what is blood", "the blood is a disease of the heart"), ("define bone", "bone is old")]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    make_chat_model(root / "base")
    rows = [{"prompt": p, "completion": c} for p, c in PAIRS * 8]
    (root / "sft.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


def command(room: Path, out: Path, **settings: Any) -> list[str]:
    line = ["-m", "crossmatch", "train", str(room / "base"), "--stage", "sft", "--data", str(room / "sft.jsonl")]
    pairs = [f"{key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    return [*line, "-o", str(out), *(word for pair in pairs for word in ("--set", pair))]


def launched(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *arguments], capture_output=True, text=True, env=hidden, check=False)


def trained(room: Path, out: Path) -> Any:
    settings = TrainSettings.model_validate(SETTINGS)
    return train_stage(Checkpoint(room / "base"), "sft", room / "sft.jsonl", out, settings=settings)


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(room: Path, tmp_path: Path) -> None:
    alone = trained(room, tmp_path / "alone")
    done = launched(command(room, tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-2000:]
    # The first process alone speaks.
    assert done.stdout.count("4 steps") == 1
    record = read_json(tmp_path / "two" / "crossmatch.json")
    assert record["processes"] == 2
    assert "processes" not in alone
    same = ("facts", "steps", "tokens_seen", "stage", "template")
    assert {key: record[key] for key in same} == {key: alone[key] for key in same}
    assert not (tmp_path / "two.work").exists()
    one, two = ({n: dense(d) for n, d in Adapter(tmp_path / name).items()} for name in ("alone", "two"))
    apart = sum(float((two[n] - one[n]).square().sum()) for n in one)
    size = sum(float(delta.square().sum()) for delta in one.values())
    assert size > 0
    assert (apart / size) ** 0.5 < 1e-3


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert Processes(2).share(4) == 2
    with pytest.raises(InputError, match=r"batch_size 4 cannot be divided among 3 processes.*batch_size=6"):
        Processes(3).share(4)


def test_a_scheduler_s_variables_are_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters set WORLD_SIZE for jobs that start no process group: a share of each batch would be lost."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert this_run() == Processes()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert this_run() == Processes(2, 1)


@pytest.mark.parametrize("spoilt", ["nan", "empty"])
def test_what_was_saved_in_part_is_not_published(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    from trl.trainer.sft_trainer import SFTTrainer

    save = SFTTrainer.save_model

    def lose(trainer: Any, folder: str, **given: Any) -> None:
        """As sharded training does: the file is there, and a part of it is lost."""
        save(trainer, folder, **given)
        file = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(file)
        name = next(key for key in tensors if "lora_A" in key)
        tensors[name] = torch.zeros(0) if spoilt == "empty" else tensors[name] * float("nan")
        save_file(tensors, file, metadata={"format": "pt"})

    monkeypatch.setattr(SFTTrainer, "save_model", lose)
    with pytest.raises(AdapterError, match=r"the trained adapter is not whole, and is not published: .*are kept in"):
        trained(room, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.work").exists()


@pytest.mark.parametrize("name", ["fsdp2", "deepspeed-zero3"])
def test_recipes_for_accelerate_are_read(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    read = load_config_from_file(str(Path(__file__).parents[2] / "studies" / "accelerate" / f"{name}.yaml"))
    assert read.num_processes == 8
    assert str(read.distributed_type).endswith("FSDP" if name == "fsdp2" else "DEEPSPEED")
