"""What a card cannot do, and what is chosen instead: one rule per knob, a sentence for every wish not granted."""

import msgspec
from msgspec import UNSET, UnsetType

from acestep.hardware.card import Card, CardKind
from acestep.knobs import LM_MODELS, WEIGHT_FORMATS, Attention, Backend, Offload, Quantization
from acestep.limits.capabilities import AMPERE, KINDS, TRITON_CAPABILITY


class Fallbacks(msgspec.Struct, frozen=True, kw_only=True):
    """Settles the knobs for one card. A wish is a value or `UNSET`; `notes` collects a sentence per wish refused."""

    card: Card
    torchao_available: bool
    flash_attn_available: bool
    notes: list[str]

    def offload(self, wish: Offload | UnsetType, needed: Offload) -> Offload:
        """The wished offload where there is a device to move weights from."""
        if wish is UNSET or wish is needed:
            return needed
        if not moves_weights(self.card):
            self.notes.append(f"Offload {wish} does nothing on {self._kind}, where nothing is offloaded; it is off.")
            return needed
        return wish

    def quantization(
        self, part: str, wish: Quantization | UnsetType | None, needed: Quantization | None
    ) -> Quantization | None:
        """The wished weight format of a `part` where the card can run it."""
        if wish is UNSET or wish is needed:
            return needed
        instead = "no quantization" if needed is None else needed
        if wish is not None and (reason := self._no_quantization(wish)):
            self.notes.append(f"Quantization {wish} of the {part} is not possible: {reason}; {instead} is used.")
            return needed
        return wish

    def possible(self, part: str, needed: Quantization | None) -> Quantization | None:
        """The weight format that the limits count on, or none where the card cannot run it."""
        if needed is None or not (reason := self._no_quantization(needed)):
            return needed
        self.notes.append(
            f"The limits of this card count on {needed} weights for the {part}, but {reason}; it runs unquantized "
            "and may run out of memory."
        )
        return None

    def backend(self, wish: Backend | UnsetType, default: Backend, allowed: tuple[Backend, ...]) -> Backend:
        """The wished backend of the language model where `allowed` has it."""
        if wish is UNSET or wish is default:
            return default
        if wish not in allowed:
            where = "a card of this size" if _runs(wish, self.card) else self._kind
            self.notes.append(f"Backend {wish} is not for {where} (choose from {_listed(allowed)}); {default} is used.")
            return default
        return wish

    def backend_for(self, backend: Backend, lm_quantization: Quantization | None) -> Backend:
        """The backend where it can run a language model of that weight format, else PyTorch."""
        if lm_quantization is None or backend is Backend.PT:
            return backend
        self.notes.append(
            f"Backend {backend} runs unquantized language models only; pt runs the {lm_quantization} one."
        )
        return Backend.PT

    def lm(
        self, wish: str | UnsetType | None, offered: tuple[str, ...], recommended: str | None, *, any_certified: bool
    ) -> str | None:
        """The wished language model where there is one of that name; `any_certified` says if any is, on any card."""
        if wish is UNSET or wish is None:
            return recommended if wish is UNSET else None
        if wish in LM_MODELS:
            if any_certified:
                return wish
            self.notes.append(f"No language model is certified in this table yet; {wish} is not used.")
            return None
        instead = offered[-1] if offered else None
        self.notes.append(
            f"There is no language model {wish!r} (offered: {_listed(offered) or 'none'}); {instead or 'none'} is used."
        )
        return instead

    def attention(self, wish: Attention | UnsetType) -> Attention:
        """The wished attention kernels where the card and the installed packages have them."""
        if wish is not Attention.FLASH:
            return Attention.AUTO if wish is UNSET else wish
        if self.card.kind is not CardKind.CUDA or self.card.capability < AMPERE:
            reason = self._too_old(AMPERE)
        elif not self.flash_attn_available:
            reason = "the package flash-attn is not installed"
        else:
            return wish
        self.notes.append(f"Attention flash is not possible: {reason}; the best kernel PyTorch has is used (auto).")
        return Attention.AUTO

    def compile(self, wish: bool | UnsetType, *, default: bool) -> bool:
        """Whether to compile: as wished where a compiler exists for the card."""
        wanted = default if wish is UNSET else wish
        if wanted and not _compiles(self.card):
            reason = self._too_old(TRITON_CAPABILITY)
            self.notes.append(f"Compiling is not possible: {reason}; the model runs uncompiled.")
            return False
        return wanted

    def _no_quantization(self, wish: Quantization) -> str | None:
        """Return why a weight format cannot be used here; None if it can."""
        kind = KINDS[self.card.kind]
        if not kind.quantizes:
            return f"{kind.named} {kind.run} unquantized weights only"
        if not self.torchao_available:
            return "torchao is not installed (pip install torchao)"
        if self.card.capability < (least := WEIGHT_FORMATS[wish].capability):
            return self._too_old(least)
        return None

    @property
    def _kind(self) -> str:
        return KINDS[self.card.kind].named

    def _too_old(self, needed: tuple[int, int]) -> str:
        has = _version(self.card.capability) if self.card.kind is CardKind.CUDA else "none"
        return f"it needs compute capability {_version(needed)} or newer, and {self.card.name} has {has}"


def moves_weights(card: Card) -> bool:
    """Whether the card has memory of its own, so that moving weights off it frees something."""
    return KINDS[card.kind].own_memory


def _compiles(card: Card) -> bool:
    """Whether torch.compile has a dependable compiler for the card."""
    return KINDS[card.kind].compiles and _has_triton(card)


def backends_on(card: Card, allowed: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """The backends among a tier's `allowed` ones that run on a card, the fastest there first; `pt` runs anywhere."""
    runnable = tuple(backend for backend in KINDS[card.kind].backends if backend in allowed and _runs(backend, card))
    return runnable if Backend.PT in runnable else (*runnable, Backend.PT)


def _runs(backend: Backend, card: Card) -> bool:
    return backend in KINDS[card.kind].backends and (backend is not Backend.VLLM or _has_triton(card))


def _has_triton(card: Card) -> bool:
    """Whether Triton, where it is needed, is there: an NVIDIA card can be too old for it."""
    return card.kind is not CardKind.CUDA or card.capability >= TRITON_CAPABILITY


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(values)
