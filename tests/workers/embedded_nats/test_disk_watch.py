"""When a disk counts as full."""

from fanline.workers.embedded_nats.disk_watch import has_write_error, levels_of

MIB = 1 << 20


def test_a_disk_is_full_below_one_level_until_it_is_above_another() -> None:
    levels = levels_of(1 << 40)
    frees = [(100, False), (33, False), (31, True), (40, True), (63, True), (64, False), (40, False)]
    full = False
    for free, expected in frees:
        full = levels.is_full(free * MIB, was_full=full)
        assert full is expected, free


def test_a_small_store_leaves_a_small_part_free() -> None:
    assert levels_of(32 * MIB) == (4 * MIB, 8 * MIB)


def test_what_nats_server_says_about_a_failed_write_is_understood() -> None:
    said = b"[1] [ERR] JetStream stream '$G > S' critical write error: write 1.blk: no space left on device"
    assert has_write_error(said)
    assert has_write_error(b"[ERR] Filestore [KV_x] Critical write error: input/output error")
    assert not has_write_error(b"[INF] Server is ready")
