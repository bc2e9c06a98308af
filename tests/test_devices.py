"""Which precision suits a device."""

import pytest
import torch

from experiments.run import process
from forgetting import devices


@pytest.mark.parametrize(
    "amx, dot_product, amd, native",
    [
        (True, True, False, True),
        (False, True, True, True),
        (False, True, False, False),
        (False, False, True, False),
    ],
)
def test_bf16_is_chosen_by_the_kind_of_processor(monkeypatch, amx, dot_product, amd, native):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dot_product, raising=False)
    monkeypatch.setattr(devices, "_is_amds", lambda: amd)
    assert devices.bf16_is_native("cpu") is native


@pytest.mark.parametrize("vendor, amds", [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_the_kernel_says_whose_the_processor_is(monkeypatch, tmp_path, vendor, amds):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(devices, "Path", lambda _: cpuinfo)
    assert not devices._is_amds()  # no such file, as outside Linux
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    assert devices._is_amds() is amds


def test_a_gpus_fp32_is_fp32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    for precision, allowed in (("tf32", True), ("fp32", False), ("bf16", True)):
        process.prepare(torch.device("cuda"), precision)
        assert torch.backends.cudnn.allow_tf32 is allowed
