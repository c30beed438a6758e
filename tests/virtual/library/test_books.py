"""The books of a card: what is allocated is booked and refused at its size, for all processes together."""

import signal
import time
from collections.abc import Iterator

import pytest

from acestep.units import ceil_div
from tests.virtual.processes import printed, running, started
from virtual_card.card import GIB, MIB, VirtualCard
from virtual_card.controls import Control
from virtual_card.machine import RunningMachine

CONTEXT, RESERVE = 300 * MIB, 250 * MIB
GRAIN = 2 * MIB
TOTAL = 2 * GIB - RESERVE


@pytest.fixture
def card() -> Iterator[RunningMachine]:
    with running(cards=(VirtualCard(board_bytes=2 * GIB),)) as machine:
        yield machine


def wait_for_line(process: object, word: str) -> None:
    assert process.stdout.readline().strip() == word  # type: ignore[attr-defined]


def test_a_context_and_rounded_blocks_are_all_that_a_process_takes(card: RunningMachine) -> None:
    sizes = [MIB + 123_457 * n for n in range(0, 300, 10)]
    out = printed(
        card,
        f"""
first, total = info()
blocks = [allocate(n) for n in {sizes}]
after, _ = info()
assert all(error == 0 for error, _ in blocks)
assert all(free(at) == 0 for _, at in blocks)
print(total, total - first, first - after, info()[0] - first)
""",
    )
    rounded = sum(ceil_div(n, GRAIN) * GRAIN for n in sizes)
    assert list(map(int, out.split())) == [TOTAL, CONTEXT, rounded, 0]


def test_small_blocks_share_what_a_card_hands_out_at_once(card: RunningMachine) -> None:
    out = printed(
        card,
        """
first, _ = info()
blocks = [allocate(1000)[1] for _ in range(2000)]
taken = first - info()[0]
assert len(set(blocks)) == 2000
for at in blocks[::2] + blocks[1::2]:
    assert free(at) == 0
print(taken, first - info()[0])
""",
    )
    assert list(map(int, out.split())) == [2000 * 1024 // GRAIN * GRAIN + GRAIN * (2000 * 1024 % GRAIN > 0), 0]


def test_the_last_byte_of_a_card_can_be_had_and_no_more(card: RunningMachine) -> None:
    left = (TOTAL - CONTEXT) // GRAIN * GRAIN
    out = printed(
        card,
        f"""
print(allocate({left} + 1)[0], allocate({left})[0], allocate(2 << 20)[0], info()[0])
""",
    )
    assert list(map(int, out.split())) == [2, 0, 2, TOTAL - CONTEXT - left]


def test_addresses_of_blocks_do_not_overlap_and_go_up_where_there_is_room(card: RunningMachine) -> None:
    printed(
        card,
        """
import random
chosen = random.Random(3)
blocks = {}
for _ in range(2000):
    if blocks and chosen.random() < 0.45:
        at = chosen.choice(list(blocks))
        assert free(at) == 0
        del blocks[at]
        continue
    size = chosen.choice([700, 5000, 1 << 20, 3 << 20, 20 << 20])
    error, at = allocate(size)
    if error == 0:
        blocks[at] = size
    edges = sorted(blocks.items())
    assert all(a + n <= b for (a, n), (b, _) in zip(edges, edges[1:]))
""",
    )


def test_what_is_freed_twice_or_was_never_there_is_an_error(card: RunningMachine) -> None:
    out = printed(card, "at = allocate(4 << 20)[1]\nprint(free(at), free(at), free(12345), free(0))")
    assert out == "0 1 1 0"


def test_processes_share_a_card_and_what_the_dead_held_comes_back(card: RunningMachine) -> None:
    holder = started(card, "assert allocate(1 << 30)[0] == 0\nprint('held', flush=True)\nsys.stdin.read()")
    wait_for_line(holder, "held")
    assert printed(card, "print(info()[0], allocate(1 << 30)[0])") == f"{TOTAL - 2 * CONTEXT - GIB} 2"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert printed(card, "print(info()[0], allocate(1 << 30)[0])") == f"{TOTAL - CONTEXT} 0"


def test_a_process_that_ends_by_itself_leaves_nothing(card: RunningMachine) -> None:
    printed(card, "assert allocate(1 << 30)[0] == 0")
    assert printed(card, "print(info()[0])") == str(TOTAL - CONTEXT)


def test_the_books_stand_after_processes_were_killed_at_any_moment(card: RunningMachine) -> None:
    """Some of them die with the lock of the books in their hands."""
    for pause in (0.03, 0.11, 0.17):
        busy = [
            started(card, "print('on', flush=True)\nwhile True:\n    free(allocate(3 << 20)[1])\n") for _ in range(3)
        ]
        for process in busy:
            wait_for_line(process, "on")
        time.sleep(pause)
        for process in busy:
            process.kill()
            process.communicate()
    assert printed(card, "print(info()[0])") == str(TOTAL - CONTEXT)


def test_a_process_forked_after_the_first_use_has_no_card_and_takes_none_away(card: RunningMachine) -> None:
    out = printed(
        card,
        """
error, at = allocate(64 << 20)
before = info()[0]
child = os.fork()
if child == 0:
    os._exit(allocate(2 << 20)[0])
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), before - info()[0])
""",
    )
    assert out == "3 0"


def test_threads_allocate_and_free_side_by_side(card: RunningMachine) -> None:
    printed(
        card,
        """
first, _ = info()
def work():
    for n in range(200):
        error, at = allocate((n % 7 + 1) << 19)
        assert error == 0 and free(at) == 0
        assert launch(0) == 0
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert info()[0] == first
""",
    )


def test_others_come_and_go(card: RunningMachine) -> None:
    process = started(card, "for _ in sys.stdin:\n    print(info()[0], flush=True)")
    assert process.stdin is not None
    assert process.stdout is not None

    def free_now() -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    alone = free_now()
    card.controls.set(Control.OTHERS_BYTES, GIB)
    assert free_now() == alone - GIB
    card.controls.set(Control.OTHERS_BYTES, 0)
    assert free_now() == alone
    process.communicate()


def test_a_visitor_is_there_between_two_allocations(card: RunningMachine) -> None:
    card.controls.set(Control.VISITOR_BYTES, GIB)
    card.controls.set(Control.VISITOR_FROM, 2)
    card.controls.set(Control.VISITOR_UNTIL, 4)
    out = printed(card, "for _ in range(5):\n    print(allocate(600 << 20)[0])")
    assert out.split() == ["0", "2", "2", "0", "2"]


def test_windows_gives_memory_of_the_host_when_the_card_is_full() -> None:
    with running(cards=(VirtualCard(board_bytes=2 * GIB, spill_bytes=GIB),)) as machine:
        out = printed(machine, "print(allocate(2 << 30)[0], info()[0], allocate(1 << 30)[0])")
    assert out == "0 0 2"


def test_a_process_that_is_on_no_machine_has_no_card_and_is_told(card: RunningMachine) -> None:
    process = started(card, "print(allocate(2 << 20)[0])", VIRTUAL_CARD_MACHINE="")
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out.strip()) == (0, "100")
    assert "VIRTUAL_CARD_MACHINE is not set" in errors
