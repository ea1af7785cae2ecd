"""Which event loop runs here, and the shell for it, which alone is imported."""

import sniffio

from fanline.client.shells.shell import ClientShell


def running_loop() -> str | None:
    """The event loop that runs here, if there is one."""
    try:
        return sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return None


def shell_class() -> type[ClientShell]:
    """Raises RuntimeError for a loop that is not supported."""
    loop = running_loop()
    if loop == "trio":
        from fanline.client.shells.trio_shell import TrioShell

        return TrioShell
    if loop == "asyncio":
        from fanline.client.shells.asyncio_shell import AsyncioShell

        return AsyncioShell
    raise RuntimeError(f"fanline.Client works under asyncio and Trio, not under {loop or 'this event loop'}")
