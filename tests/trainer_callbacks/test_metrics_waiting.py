"""CircuitMetricsCallback makes the host wait for the device nowhere but where Trainer logs."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from trained import trainer

from qpa_hf.trainer_callbacks import CircuitMetricsCallback
from qpa_hf.trainer_callbacks.timer import GenerationTimer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_step_on_a_gpu_is_timed_without_waiting(tmp_path):
    model = trainer(tmp_path).model.to("cuda")
    ids = torch.zeros((2, 8), dtype=torch.long, device="cuda")
    model(input_ids=ids, labels=ids).loss.backward()  # the first pass builds tables and loads kernels
    timer = GenerationTimer(model.base_model.lora_qpa["default"])
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(input_ids=ids, labels=ids).loss.backward()
        timer.release()
        timer.stop()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 < timer.share() < 1


class HostReads(TorchDispatchMode):
    """Counts, step by step, the reads of single numbers from tensors, for which a host waits for its device."""

    def __init__(self, state):
        super().__init__()
        self.counts = {}
        self.state = state

    def count(self):
        step = self.state().global_step
        self.counts[step] = self.counts.get(step, 0) + 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count()
        return func(*args, **(kwargs or {}))


class ListReads(TorchFunctionMode):
    """Counts reads of whole tensors, which the dispatcher does not see on a CPU, into the same table."""

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu):
            self.reads.count()
        return func(*args, **(kwargs or {}))


def host_reads(folder, callbacks):
    run = trainer(folder, callbacks=callbacks, max_steps=9, logging_steps=4)
    with HostReads(lambda: run.state) as reads, ListReads(reads):
        run.train()
    return reads.counts


def test_host_waits_for_the_device_only_where_trainer_logs(tmp_path):
    without, with_metrics = host_reads(tmp_path, []), host_reads(tmp_path, [CircuitMetricsCallback()])
    more = {step for step in with_metrics if with_metrics[step] > without[step]}
    assert more == {4, 8}
