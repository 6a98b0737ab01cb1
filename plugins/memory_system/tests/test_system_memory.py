"""Regions of POSIX shared memory: what they reach, and what they do not."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.datatypes import BYTES, FP32, UINT8
from trivet.errors import AlreadyExistsError, InternalError, InvalidArgumentError, NotFoundError
from trivet.options import Settings
from trivet.plugins import PluginRegistry
from trivet.tensor import Tensor, object_array
from trivet_memory_system.provider import SystemMemory
from trivet_memory_system.shared_object import FOLDER

Create = Callable[[bytes], Path]


@pytest.fixture
def memory() -> SystemMemory:
    return SystemMemory(Settings.of(()))


def register(memory: SystemMemory, name: str, path: Path, offset: int = 0, byte_size: int | None = None) -> None:
    size = path.stat().st_size - offset if byte_size is None else byte_size
    memory.register(name, size, {"key": f"/{path.name}", "offset": offset})


def test_the_package_offers_it() -> None:
    assert PluginRegistry.discover().memory_providers["system"].factory == "trivet_memory_system.provider:SystemMemory"


def test_a_tensor_is_read_where_the_client_put_it_and_written_where_it_wants_it(
    memory: SystemMemory, create: Create
) -> None:
    path = create(np.arange(8, dtype=np.float32).tobytes())
    register(memory, "r", path)
    tensor = memory.slice("r", 8, 8).tensor("x", FP32, (2,))
    assert tensor.numpy().tolist() == [2, 3]

    # The same memory, not a copy of it.
    with path.open("r+b") as file:
        file.seek(8)
        file.write(np.float32(20).tobytes())
    assert tensor.numpy().tolist() == [20, 3]

    assert memory.slice("r", 24, 8).write(Tensor.from_numpy("y", np.array([60, 70], np.float32))) == 8
    assert np.fromfile(path, np.float32).tolist() == [0, 1, 20, 3, 4, 5, 60, 70]


def test_an_output_that_is_there_already_is_not_copied(
    memory: SystemMemory, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 * 1024
    path = create(np.arange(size // 2, dtype=np.float32).tobytes())
    register(memory, "r", path)
    in_place = _times_ten(memory, 0, size)
    writes: list[int] = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: writes.append(at) or pwrite(file, data, at))
    assert memory.slice("r", 0, size).write(in_place) == size
    assert writes == []
    assert memory.slice("r", size, size).write(in_place) == size
    assert writes == [size]
    tens = np.arange(size // 4, dtype=np.float32) * 10
    assert np.array_equal(np.fromfile(path, np.float32), np.tile(tens, 2))


def test_a_small_output_may_be_copied_onto_itself(memory: SystemMemory, create: Create) -> None:
    path = create(np.arange(8, dtype=np.float32).tobytes())
    register(memory, "r", path)
    in_place = _times_ten(memory, 8, 8)
    assert memory.slice("r", 8, 8).write(in_place) == 8
    assert np.fromfile(path, np.float32).tolist() == [0, 1, 20, 30, 4, 5, 6, 7]


def _times_ten(memory: SystemMemory, offset: int, size: int) -> Tensor:
    """As a model that works in place computes it."""
    part = memory.slice("r", offset, size)
    array = part.tensor("x", FP32, (size // 4,)).writable([part])
    array *= 10
    return Tensor.from_numpy("x", array)


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_what_a_model_writes_into_its_input_is_its_own(memory: SystemMemory, create: Create, size: int) -> None:
    path = create(bytes(2 * size))
    register(memory, "r", path, 8, 2 * size - 8)
    tensor = memory.slice("r", 8, size).tensor("x", UINT8, (size,))
    assert not tensor.numpy().flags.writeable
    mine, others = (tensor.renamed(name).writable([memory.slice("r", 0, size)]) for name in "yz")
    mine[:] = 1
    assert (mine == 1).all()
    assert not others.any()
    assert not tensor.numpy().any()
    assert path.read_bytes() == bytes(2 * size)
    with path.open("r+b") as file:
        file.write(b"\2" * 2 * size)
    assert (others == (2 if size > 1000 else 0)).all()  # a large one is a view as long as nobody writes
    memory.unregister("r")
    assert (mine == 1).all()


def test_an_output_in_place_is_refused_where_the_object_has_shrunk(memory: SystemMemory, create: Create) -> None:
    path = create(bytes(8192))
    register(memory, "r", path)
    tensor = memory.slice("r", 0, 8192).tensor("x", UINT8, (8192,))
    os.truncate(path, 4096)
    with pytest.raises(InvalidArgumentError, match="has 4096 bytes, expected at least 8192"):
        memory.slice("r", 0, 8192).write(tensor)


def test_text_is_written_in_wire_layout(memory: SystemMemory, create: Create) -> None:
    path = create(bytes(16))
    register(memory, "r", path)
    assert memory.slice("r", 0, 16).write(Tensor.from_numpy("y", object_array([b"ab", b"c"], (2,)))) == 11
    assert memory.slice("r", 0, 11).tensor("x", BYTES, (2,)).numpy().tolist() == [b"ab", b"c"]


@pytest.mark.parametrize("offset", [0, 1, 4096, 5000])
def test_a_region_may_begin_anywhere_in_its_object(memory: SystemMemory, create: Create, offset: int) -> None:
    content = np.random.default_rng(1).integers(0, 255, 10_000, np.uint8)
    register(memory, "r", create(content.tobytes()), offset)
    assert (memory.slice("r", 3, 100).tensor("x", UINT8, (100,)).numpy() == content[offset + 3 : offset + 103]).all()
    memory.slice("r", 7, 1).write(Tensor.from_numpy("y", np.array([1], np.uint8)))
    assert memory.slice("r", 7, 1).tensor("x", UINT8, (1,)).numpy() == [1]


def test_what_is_registered_is_listed_until_it_is_forgotten(memory: SystemMemory, create: Create) -> None:
    path = create(bytes(8))
    for name in ("a", "b", "c"):
        register(memory, name, path, 0, 4)
    with pytest.raises(AlreadyExistsError, match=r"^shared memory region 'a' already in manager$"):
        register(memory, "a", path)
    assert {name: (status.byte_size, dict(status.details)) for name, status in memory.regions().items()} == {
        name: (4, {"key": f"/{path.name}", "offset": 0}) for name in ("a", "b", "c")
    }
    memory.unregister("b")
    memory.unregister("nobody")
    assert "a" in memory
    assert "b" not in memory
    memory.unregister(None)
    assert not memory.regions()
    with pytest.raises(NotFoundError, match=r"^Unable to find shared memory region: 'a'$"):
        memory.slice("a", 0, 1)


def test_a_part_lies_within_its_region(memory: SystemMemory, create: Create) -> None:
    register(memory, "r", create(bytes(100)), 10, 50)
    # A negative one would reach what lies before the region: gRPC's parameters have a sign.
    for offset, size in ((50, 1), (2**64 - 1, 1), (-1, 1), (-10, 20)):
        with pytest.raises(InvalidArgumentError, match=r"^Invalid offset for shared memory region: 'r'$"):
            memory.slice("r", offset, size)
    for offset, size in ((49, 2), (0, 51), (0, 0), (1, 2**64 - 1)):
        with pytest.raises(InvalidArgumentError, match=r"^Invalid offset \+ byte size for shared memory region: 'r'$"):
            memory.slice("r", offset, size)


@given(offset=st.integers(0, 80), byte_size=st.integers(-1, 80))
def test_no_part_reaches_beyond_its_region(offset: int, byte_size: int) -> None:
    path = FOLDER / f"trivet_test_{os.getpid()}_property"
    path.write_bytes(b"\0" * 16 + b"\1" * 32 + b"\0" * 16)
    try:
        memory = SystemMemory(Settings.of(()))
        register(memory, "r", path, 16, 32)
        try:
            found = memory.slice("r", offset, byte_size).tensor("x", UINT8, (byte_size,)).numpy()
        except InvalidArgumentError:
            assert byte_size < 1 or offset + byte_size > 32
        else:
            assert (found == 1).all()
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("/trivet_test_nobody_made_it", "No such file or directory"),
        ("/../../etc/passwd", "expected the name of an object, without a folder"),
        ("/..", "Is a directory"),
        ("a/b", "expected the name of an object, without a folder"),
        ("/", "expected the name of an object, without a folder"),
        ("", "expected the name of an object, without a folder"),
        ("/a\0b", "expected the name of an object, without a folder"),
        ("/" + "a" * 300, "File name too long"),
    ],
)
def test_a_key_is_the_name_of_an_object_and_no_path(memory: SystemMemory, key: str, why: str) -> None:
    with pytest.raises(InternalError) as caught:
        memory.register("r", 8, {"key": key, "offset": 0})
    assert caught.value.message == f"Unable to open shared memory region: '{key}': {why}"
    assert "r" not in memory


def test_links_and_what_is_no_memory_are_refused(memory: SystemMemory, create: Create, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = create(b"")
    link.unlink()
    link.symlink_to(secret)
    pipe = create(b"")
    pipe.unlink()
    os.mkfifo(pipe)
    for path in (link, pipe):
        with pytest.raises(InternalError, match=r"^Unable to open shared memory region"):
            memory.register("r", 6, {"key": path.name, "offset": 0})
    door = create(b"")
    door.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door))
        with pytest.raises(InternalError, match=r"^Unable to open shared memory region"):
            memory.register("r", 6, {"key": door.name, "offset": 0})


@pytest.mark.parametrize(
    ("offset", "byte_size", "message"),
    [
        (0, 65, "has 64 bytes, expected at least 65"),
        (60, 5, "has 64 bytes, expected at least 65"),
        (2**64 - 1, 8, f"has 64 bytes, expected at least {2**64 + 7}"),
        (0, 2**64 - 1, f"has 64 bytes, expected at least {2**64 - 1}"),
        (0, 0, "as 'byte_size' is 0"),
    ],
)
def test_a_region_that_does_not_fit_its_object_is_refused(
    memory: SystemMemory, create: Create, offset: int, byte_size: int, message: str
) -> None:
    with pytest.raises(InternalError, match=message):
        register(memory, "r", create(bytes(64)), offset, byte_size)


def test_an_object_that_became_smaller_is_neither_read_nor_written(memory: SystemMemory, create: Create) -> None:
    path = create(bytes(10_000))
    register(memory, "r", path)
    before = memory.slice("r", 5000, 4)
    os.truncate(path, 100)
    for part in (before, memory.slice("r", 5000, 4)):
        with pytest.raises(InvalidArgumentError, match="has 100 bytes, expected at least 5004"):
            part.tensor("x", FP32, (1,))
        with pytest.raises(InvalidArgumentError, match="has 100 bytes, expected at least 5004"):
            part.write(Tensor.from_numpy("y", np.ones(1, np.float32)))
    assert path.stat().st_size == 100
    assert memory.slice("r", 0, 4).tensor("x", FP32, (1,)).numpy() == [0]


@pytest.mark.parametrize("own", [False, True], ids=["shared", "private"])
def test_memory_that_goes_away_before_it_is_read_is_zeros_and_the_region_says_so(
    memory: SystemMemory, create: Create, own: bool
) -> None:
    size = 1 << 20
    path = create(b"\1" * size)
    register(memory, "r", path)
    part, other = memory.slice("r", 0, size), memory.slice("r", 4096, 16)
    tensor = part.tensor("x", UINT8, (size,))
    array = tensor.writable() if own else tensor.numpy()
    part.check()
    os.truncate(path, 4096)
    assert not array[4096:].any()
    with pytest.raises(InvalidArgumentError, match=f"has 4096 bytes, expected at least {size}"):
        part.check()

    # An object that has grown again is still not what it was.
    os.truncate(path, size)
    for refused in (part.check, other.check, lambda: memory.slice("r", 0, 1).tensor("x", UINT8, (1,))):
        with pytest.raises(InvalidArgumentError, match=f"memory of '/{path.name}' was gone when it was read"):
            refused()
    memory.unregister("r")
    register(memory, "r", path)
    assert memory.slice("r", 0, 1).tensor("x", UINT8, (1,)).numpy() == [1]


def test_memory_may_go_away_under_threads_that_do_not_hold_the_interpreter_lock(
    memory: SystemMemory, create: Create
) -> None:
    size = 1 << 16
    paths = [create(b"\1" * size) for _ in range(8)]
    arrays = []
    for number, path in enumerate(paths):
        register(memory, str(number), path)
        arrays.append(memory.slice(str(number), 0, size).tensor("x", UINT8, (size,)).numpy())
        os.truncate(path, 0)
    targets = [ctypes.create_string_buffer(b"\1" * size, size) for _ in arrays]

    def copy(number: int) -> None:
        address = arrays[number].ctypes.data
        ctypes.CDLL(None).memcpy(targets[number], ctypes.c_void_p(address), ctypes.c_size_t(size))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(copy, range(8)))
    assert all(target.raw == bytes(size) for target in targets)


OTHERS_MEMORY = """
import mmap, os, sys
from trivet.options import Settings
from trivet_memory_system.provider import SystemMemory

SystemMemory(Settings.of(())).register("r", 1, {"key": sys.argv[1], "offset": 0})
with open(sys.argv[2], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
    os.ftruncate(file.fileno(), 0)
    memory[0]
"""


def test_memory_that_is_no_regions_is_nobodys_to_mend(create: Create, tmp_path: Path) -> None:
    path = create(bytes(8))
    (tmp_path / "mapped").write_bytes(bytes(8))
    died = subprocess.run([sys.executable, "-c", OTHERS_MEMORY, path.name, str(tmp_path / "mapped")], check=False)
    assert died.returncode == -signal.SIGBUS


def test_an_output_that_is_too_large_is_refused(memory: SystemMemory, create: Create) -> None:
    path = create(b"\7" * 16)
    register(memory, "r", path)
    with pytest.raises(InternalError) as caught:
        memory.slice("r", 0, 8).write(Tensor.from_numpy("y", np.zeros(4, np.float32)))
    assert caught.value.message == (
        "shared memory size specified with the request for output 'y' (8 bytes) should be at least 16 bytes to hold"
        " the results"
    )
    assert path.read_bytes() == b"\7" * 16


def test_what_a_request_was_given_stays_mapped_when_the_region_is_forgotten(
    memory: SystemMemory, create: Create
) -> None:
    path = create(np.arange(4, dtype=np.float32).tobytes())
    register(memory, "r", path)
    part = memory.slice("r", 0, 16)
    tensor = part.tensor("x", FP32, (4,))
    memory.unregister("r")
    path.unlink()
    assert tensor.numpy().tolist() == [0, 1, 2, 3]
    part.write(Tensor.from_numpy("y", np.full(4, 5, np.float32)))
    assert tensor.numpy().tolist() == [5, 5, 5, 5]


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _register_all(memory: SystemMemory, names: Iterator[str], path: Path) -> None:
    for name in names:
        register(memory, name, path)


def test_regions_leave_files_for_others_to_open(memory: SystemMemory, create: Create) -> None:
    path = create(bytes(64))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _open_files() + 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        names = map(str, itertools.count())
        with pytest.raises(InternalError, match=rf"of the {limit} files that the server may open .*, \d+ are"):
            _register_all(memory, names, path)
        assert _open_files() < limit - 8
        assert len(memory.regions()) > 2
        memory.unregister("0")
        register(memory, "0", path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_nothing_stays_open_of_what_is_forgotten(memory: SystemMemory, create: Create) -> None:
    def held() -> set[Any]:
        files = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()}
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        return {name for name in files | mapped if "trivet_test_" in name}

    path = create(bytes(64))
    for name in ("a", "b"):
        register(memory, name, path)
    with pytest.raises(InternalError):
        register(memory, "c", path, 0, 100)
    assert held()
    memory.unregister(None)
    gc.collect()
    assert not held()
