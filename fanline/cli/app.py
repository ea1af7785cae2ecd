"""The entry point of the `fanline` command.

Nothing is imported here before Ctrl-C ends the process in silence: what it interrupts later is an import of half a
second, which would end in a traceback. A test holds that.
"""


def main() -> None:
    """Run the command line. Errors are one line on stderr; the exit code is 0, 1, 2 or 128 + signal."""
    import _signal  # type: ignore[import-not-found]  # built in, where `signal` would import `enum` first

    # Until a command begins, there is nothing to end in order, and an import may swallow a KeyboardInterrupt.
    before = _signal.getsignal(_signal.SIGINT)
    if before is _signal.default_int_handler:  # and not ignored, as in the background of a script
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    try:
        import sys

        from fanline.cli.commands import call

        code = call(sys.argv[1:])
    finally:
        _signal.signal(_signal.SIGINT, before)
    sys.exit(code)
