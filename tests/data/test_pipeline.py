"""The loader: resume, seeds, hosts, worker processes, damaged records."""

import dataclasses

import numpy as np
import pytest

from durian_jax.data import ClipList, RecordedClips, make_loader
from durian_jax.data import clip_record as record
from durian_jax.data import dataset_writer as records
from durian_jax.data.pipeline import DamagedRecord
from durian_jax.errors import InputError
from tests.helpers.data import CONFIG, assert_same


def test_a_resumed_loader_continues_bit_for_bit(clips):
    source = ClipList(clips)
    run = iter(make_loader(source, CONFIG, seed=3, batch_size=2))
    for _ in range(4):
        next(run)
    state = run.get_state()
    expected = [next(run) for _ in range(4)]  # crosses the end of the first epoch
    again = iter(make_loader(source, CONFIG, seed=3, batch_size=2, threads=1))
    again.set_state(state)
    for batch in expected:
        assert_same(next(again), batch)


def test_seeds_and_epochs_differ(clips):
    batches = list(make_loader(ClipList(clips), CONFIG, seed=0, batch_size=12, num_epochs=2))
    other = next(iter(make_loader(ClipList(clips), CONFIG, seed=1, batch_size=12)))
    assert len(batches) == 2
    assert (batches[0]["frames"] != batches[1]["frames"]).any()
    assert (batches[0]["frames"] != other["frames"]).any()


def test_two_hosts_together_load_the_batches_of_one_host(clips):
    source = ClipList(clips)
    whole = iter(make_loader(source, CONFIG, seed=5, batch_size=6))
    hosts = [iter(make_loader(source, CONFIG, seed=5, batch_size=3, shard_index=h, shard_count=2))
             for h in (0, 1)]
    for _ in range(3):
        parts, batch = [next(host) for host in hosts], next(whole)
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([part[name] for part in parts]), err_msg=name)


@pytest.mark.parametrize("worker_count", [0, 1])
def test_a_host_loads_batch_shards_that_are_not_adjacent(clips, worker_count):
    """On a torus of chips a host's devices may be apart in the mesh. A saved state resumes this stream too."""
    source = ClipList(clips)
    whole = iter(make_loader(source, CONFIG, seed=5, batch_size=8))
    loader = make_loader(source, CONFIG, seed=5, batch_size=4, shard_index=(0, 2), shard_count=4,
                         worker_count=worker_count)
    host, rows = iter(loader), [0, 1, 4, 5]
    for _ in range(2):
        found, batch = next(host), next(whole)
        for name in batch:
            np.testing.assert_array_equal(found[name], batch[name][rows], err_msg=name)
    again = iter(loader)
    again.set_state(host.get_state())
    np.testing.assert_array_equal(next(again)["frames"], next(whole)["frames"][rows])


@pytest.mark.parametrize("hosts", [2, 3, 4, 5])
def test_hosts_share_an_epoch_without_overlap(clips, hosts):
    """All hosts together load the samples of one host, without duplicates, and equally many batches each."""
    def seen(index, count):
        batches = list(make_loader(ClipList(clips), CONFIG, seed=2, batch_size=1, num_epochs=1, shard_index=index,
                                   shard_count=count))
        return [batch["portrait"].tobytes() + batch["keypoints"].tobytes() for batch in batches]

    whole, parts = seen(0, 1), [seen(index, hosts) for index in range(hosts)]
    assert len(set(whole)) == 12 and len({len(part) for part in parts}) == 1
    together = [sample for part in parts for sample in part]
    assert len(set(together)) == len(together) == 12 // hosts * hosts
    assert set(together) == set(whole[:len(together)])


def test_worker_processes_make_the_same_batches(tmp_path, clips):
    records.write_clips(tmp_path, clips)
    plain = make_loader(RecordedClips(tmp_path), CONFIG, seed=5, batch_size=3, num_epochs=1)
    spread = iter(make_loader(RecordedClips(tmp_path), CONFIG, seed=5, batch_size=3, num_epochs=1, worker_count=2))
    for batch in plain:
        assert_same(batch, next(spread))


def test_damaged_records_are_replaced_up_to_a_limit(tmp_path, clips):
    records.write_clips(tmp_path, clips, shard_size=12)

    class Damaged(RecordedClips):
        def record(self, index):
            record = super().record(index)
            return record.replace(b"\x89PNG", b"\x00\x00\x00\x00") if index < 3 else record

    with pytest.warns(DamagedRecord, match=r"damaged record 1 is skipped: .*record [012]\b") as said:
        batches = list(make_loader(Damaged(tmp_path), CONFIG, seed=0, batch_size=4, num_epochs=3))
    assert len(batches) == 9 and len(said) == 3, "expected one warning per damaged record"
    strict = dataclasses.replace(CONFIG, max_failures=2)
    with pytest.raises(InputError, match="cannot be decoded"), pytest.warns(DamagedRecord):
        list(make_loader(Damaged(tmp_path), strict, seed=0, batch_size=4, num_epochs=3))
    with pytest.raises(record.DecodeError, match="frames 0: expected a picture"):
        Damaged(tmp_path).read(1)
    with pytest.raises(record.DecodeError, match="not a clip record"):
        record.read_record(b"nonsense")


def test_a_loader_without_a_batch_is_refused(clips):
    with pytest.raises(InputError, match="batch_size"):
        make_loader(ClipList(clips), CONFIG, seed=0, batch_size=20, num_epochs=1)
