"""The end of a training process, on either host."""

from __future__ import annotations


def leave_process_group() -> None:
    """Join the threads of torch.distributed: gloo's abort the process if they free a tensor while Python shuts down.

    For a stage that succeeded. No barrier: nothing is exchanged any more, and to wait for a process that failed is to
    hang.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
