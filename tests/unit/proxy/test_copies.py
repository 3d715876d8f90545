from gateway.proxy.copies import Held, Room


def test_what_a_copy_takes_is_given_back_by_whoever_had_it_last() -> None:
    room = Room()
    one, other = Held(room), Held(room)
    assert one.take(10)
    assert one.take(5)
    assert other.take(7)
    assert (room.taken_bytes, one.size_bytes) == (22, 15)
    del one
    assert room.taken_bytes == 7


def test_all_copies_together_take_so_much_at_most() -> None:
    room = Room()
    assert Held(room).take(64 * 2**20)
    one, other = Held(room), Held(room)
    assert one.take(64 * 2**20)
    assert not other.take(1)
