"""The wall clock of a running static program, such as nats-server, is made to be wrong.

No library can be put before such a program, but it reads the time by calling the kernel's vDSO: code that is mapped
into each process. Its `clock_gettime` is replaced by one that asks the kernel and adds some seconds to the wall clock.
Monotonic clocks stay as they are. Writing to `/proc/PID/mem` gives the process a copy of its own of that page.
"""

import os
import platform
import signal
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import trio

_SYMBOL = b"__vdso_clock_gettime"
# mov eax, 228; syscall; test edi, edi (CLOCK_REALTIME); jne end; mov rcx, [seconds]; add [rsi], rcx; end: ret
_CODE = bytes.fromhex("b8e4000000 0f05 85ff 750a 488b0d16000000 48010e c3")
_SECONDS_AT = 40  # behind the beginning of the code
_ROOM = 64  # bytes at the end of the mapping, which have to be free
_DYNAMIC_SYMBOLS = 11  # SHT_DYNSYM
_STOP_SECONDS = 5.0


class NotHereError(Exception):
    """It cannot be done on this machine; str() says why."""


class WrongClock:
    """That of one process of this user. Raises NotHereError."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._code = 0  # its address

    async def step_to(self, seconds: int) -> None:
        """From now on the wall clock is this much ahead of the right one."""
        try:
            if not self._code:
                await self._replace()
            with _memory(self._pid) as memory:
                _write(memory, self._code + _SECONDS_AT, struct.pack("<q", seconds))
        except OSError as error:
            raise NotHereError(f"the memory of a process cannot be written to: {error}") from None

    async def _replace(self) -> None:
        if platform.machine() != "x86_64":
            raise NotHereError(f"the machine code is for x86_64, and this is {platform.machine()}")
        vdso = _find_vdso(self._pid)
        with _memory(self._pid) as memory:
            memory.seek(vdso.start)
            image = memory.read(vdso.end - vdso.start)
            if any(image[-_ROOM:]):
                raise NotHereError("the vDSO of this kernel has no free bytes at its end")
            code, entry = vdso.end - _ROOM, vdso.start + _offset_of(image, _SYMBOL)
            os.kill(self._pid, signal.SIGSTOP)
            try:
                await _no_thread_inside(self._pid, vdso)
                _write(memory, code, _CODE)
                _write(memory, entry, b"\xe9" + struct.pack("<i", code - entry - 5))  # jmp
            finally:
                os.kill(self._pid, signal.SIGCONT)
        self._code = code


class _Range(NamedTuple):
    start: int
    end: int


def _find_vdso(pid: int) -> _Range:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = line.partition(" ")[0].split("-")
            return _Range(int(start, 16), int(end, 16))
    raise NotHereError("the kernel maps no vDSO")


def _offset_of(image: bytes, symbol: bytes) -> int:
    """Of a symbol in an ELF image of 64 bits (man 5 elf)."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + number * size) for number in range(count)]
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind != _DYNAMIC_SYMBOLS:
            continue
        names = sections[link][4]
        for at in range(start, start + length, 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, at)
            if image[names + name : image.index(b"\0", names + name)] == symbol:
                return int(value)
    raise NotHereError(f"the vDSO of this kernel has no {symbol.decode()}")


async def _no_thread_inside(pid: int, vdso: _Range) -> None:
    """Wait until all threads of a process that was told to stop have done so, none of them in the vDSO."""
    with trio.move_on_after(_STOP_SECONDS):
        while any(not _is_outside(path, vdso) for path in Path(f"/proc/{pid}/task").iterdir()):
            os.kill(pid, signal.SIGCONT)
            await trio.sleep(0.01)
            os.kill(pid, signal.SIGSTOP)
            await trio.sleep(0.01)
        return
    raise NotHereError("the kernel does not tell where the threads of a process are")


def _is_outside(thread: Path, vdso: _Range) -> bool:
    where = (thread / "syscall").read_text().split()  # ends with the stack pointer and the program counter
    return len(where) > 1 and not vdso.start <= int(where[-1], 16) < vdso.end


def _memory(pid: int) -> BinaryIO:
    return Path(f"/proc/{pid}/mem").open("r+b", buffering=0)


def _write(memory: BinaryIO, address: int, data: bytes) -> None:
    memory.seek(address)
    memory.write(data)
