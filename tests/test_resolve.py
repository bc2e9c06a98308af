"""Which images and which device a command takes."""

import pytest
import torch
from conftest import TINY
from test_commands import in_process


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(capsys):
    code, _, err = in_process(capsys, "with", "quick", "device=cuda")
    assert code == 1 and err.startswith("error: device: there is no CUDA device")


@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_the_real_presets_never_fall_back_to_digits(preset, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("forgetting.data._can_be_fetched", lambda: False)
    here = [f"dataset.root={tmp_path}", f"results_dir={tmp_path}/runs"]
    code, _, err = in_process(capsys, "with", preset, *here)
    assert code == 1 and err.count("\n") == 1
    assert f"the preset {preset} needs CIFAR-10" in err and "dataset.name=image_folder" in err
    assert not list(tmp_path.iterdir())
    words = ["with", *TINY, "dataset.name=auto", "method=vanilla", here[1]]
    code, out, _ = in_process(capsys, *words)
    assert code == 0 and "DATA: dataset.name=auto takes digits, because" in out
    # Images that were named are not passed over for digits.
    code, _, err = in_process(capsys, *words, here[0])
    assert code == 1 and err.count("\n") == 1
    assert f"error: dataset.root: CIFAR-10 is not in {tmp_path}, and there are no folders" in err


def test_a_folder_of_images_that_is_named_is_taken(capsys, folder):
    here = [f"dataset.root={folder}", "dataset.size=8", f"results_dir={folder}/runs"]
    code, out, err = in_process(capsys, "with", *TINY, *here, "method=vanilla")
    assert code == 0, err
    assert f"DATA: dataset.name=auto takes image_folder, because {folder} holds train and" in out
