"""A process that takes as much of a card as possible in pieces, and prints how much that was.

python -m tests.gpu.greedy none|fraction PIECE_BYTES CAP_BYTES
"""

import sys

import torch

from acestep.devices.accelerator import CudaDevice


def main(method: str, piece: int, cap_bytes: int) -> None:
    CudaDevice(cap_bytes if method == "fraction" else None)
    held = []
    try:
        while True:
            held.append(torch.empty(piece, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        print(torch.cuda.memory_reserved())  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
