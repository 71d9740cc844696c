"""The precision that networks run in; states and everything around the networks are float32."""

import torch


def networks_on(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 on GPUs that multiply in it, else float32.

    Processors are among the others: with AVX-512 an analysis took as long in bfloat16, without it a convolution took 33
    times as long (docs/record.md, precision).
    """
    enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
