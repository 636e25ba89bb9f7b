"""Who is in the next batch."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from server.batch_queue import BatchQueue, Group


@dataclass(eq=False)
class Item:
    sequence: int
    rows: int = 1
    priority: int = 1
    group: Group = None


def queue_of(*items: Item) -> BatchQueue[Item]:
    queue: BatchQueue[Item] = BatchQueue()
    for item in items:
        queue.add(item)
    return queue


def test_entries_leave_in_the_order_they_came() -> None:
    items = [Item(1), Item(2), Item(3)]
    queue = queue_of(*items)
    assert queue.take(queue.head_group(), 2) == items[:2]
    assert queue.take(queue.head_group(), 2) == items[2:]
    assert queue.entries == queue.rows == 0


def test_higher_priorities_leave_first() -> None:
    low, high = Item(1, priority=3), Item(2, priority=1)
    assert queue_of(low, high).take(None, 8) == [high, low]


def test_rows_are_counted_and_not_entries() -> None:
    first, second, third = Item(1, rows=3), Item(2, rows=3), Item(3, rows=1)
    queue = queue_of(first, second, third)
    assert queue.take(None, 4) == [first], "3 + 3 rows do not fit, and nobody overtakes"
    assert queue.take(None, 4) == [second, third]


def test_an_entry_larger_than_the_limit_leaves_alone() -> None:
    large, small = Item(1, rows=9), Item(2)
    queue = queue_of(large, small)
    assert queue.take(None, 4) == [large]
    assert queue.take(None, 4) == [small]


def test_only_entries_of_one_group_share_a_batch() -> None:
    items = [Item(1, group="a"), Item(2, group="b"), Item(3, group="a")]
    queue = queue_of(*items)
    assert queue.head_group() == "a"
    assert queue.take("a", 8) == [items[0], items[2]]
    assert queue.head_group() == "b"


def test_the_group_of_the_oldest_entry_is_served_first() -> None:
    queue = queue_of(Item(1, group="a"), Item(2, group="b"), Item(3, group="a"))
    queue.take("a", 1)
    assert list(queue.groups()) == ["b", "a"]


def test_a_removed_entry_leaves_nothing_behind() -> None:
    item = Item(1, rows=3)
    queue = queue_of(item, Item(2))
    assert queue.remove(item)
    assert not queue.remove(item)
    assert (queue.entries, queue.rows, queue.waiting_at(1)) == (1, 1, 1)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.sampled_from("abc")), max_size=40),
    st.integers(1, 8),
)
def test_every_entry_leaves_exactly_once(
    entries: list[tuple[int, int, str]], max_rows: int
) -> None:
    items = [Item(n, rows, priority, group) for n, (rows, priority, group) in enumerate(entries)]
    queue = queue_of(*items)
    left: list[Item] = []
    while queue.entries:
        batch = queue.take(queue.head_group(), max_rows)
        assert batch and len({item.group for item in batch}) == 1
        assert len(batch) == 1 or sum(item.rows for item in batch) <= max_rows
        left += batch
    assert sorted(item.sequence for item in left) == [item.sequence for item in items]
    assert queue.rows == 0
