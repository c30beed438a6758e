"""Some modules whose weights move as one."""

from collections.abc import Sequence

from torch import Tensor, nn

from acestep.devices.base import Device
from acestep.memory.pinned import pin
from acestep.memory.tensors import Arena, map_storage, slots


class Part:
    """The weights of some modules. Host tensors are kept, so leaving copies nothing; tied ones count as one."""

    def __init__(self, name: str, modules: Sequence[nn.Module]) -> None:
        self.name = name
        self.inside = False
        self._pinned = False
        found = [slot for module in modules for slot in slots(module)]
        unique = {id(host): host for _, _, host in found}
        positions = {key: position for position, key in enumerate(unique)}
        self.hosts = list(unique.values())
        self._places = [(table, key, positions[id(host)]) for table, key, host in found]

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights, laid out in one buffer."""
        return sum(map(Arena.bytes_for, self.hosts))

    def pin(self, device: Device) -> None:
        """Let the host tensors rest in page-locked memory from now on, as far as there is some; asks once."""
        if not self._pinned:
            self._pinned = True
            self.hosts = pin(self.hosts, device)
            self.leave()

    def enter(self, device: Device) -> None:
        """Copy every weight to the device; on failure nothing has changed."""
        self.put([map_storage(host, lambda tensor: device.upload(tensor, self.name)) for host in self.hosts])

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Let the modules compute with these, one for each of `hosts`."""
        for table, key, position in self._places:
            table[key] = tensors[position]
        self.inside = True

    def leave(self) -> None:
        """Put the host tensors back; the device copies are freed with their last reference."""
        self.put(self.hosts)
        self.inside = False
