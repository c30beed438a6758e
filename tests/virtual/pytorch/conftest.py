"""What earlier tests of the same process left in PyTorch's caches is freed before each test."""

import pytest
import torch


@pytest.fixture(autouse=True)
def empty_caches() -> None:
    torch._C._cuda_clearCublasWorkspaces()
    torch._C._host_emptyCache()
    torch.cuda.empty_cache()
