"""A Python in which our own modules find what Windows has: run as ``python -m tests.windows COMMAND ARGUMENTS``.

`COMMAND` is ``acestep`` or ``calibrate``; with ``import`` before it, every module of both is imported first. Libraries
go on as they are: they have been made for Windows by others.
"""

import builtins
import importlib
import os
import pkgutil
import platform
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

OURS = ("acestep", "calibrate")

NO_MODULES = frozenset(
    {"crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios", "tty"}
)
"""Modules of the standard library that are for Unix alone."""

NOT_FOR_WINDOWS = frozenset({"vllm", "mlx", "triton"})
"""Libraries that Windows does not have; what needs them is imported when it is used."""

LACKS: Mapping[ModuleType, frozenset[str]] = {
    os: frozenset(
        {
            *("chown", "chroot", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups"),
            *("getloadavg", "getpgid", "getpgrp", "getpriority", "getsid", "getuid", "initgroups", "killpg", "lchown"),
            *("lockf", "major", "minor", "mkfifo", "mknod", "nice", "openpty", "pidfd_open", "posix_fadvise"),
            *("posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "pwritev", "readv", "register_at_fork"),
            *("sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "set_blocking", "setgid", "setpgid"),
            *("setpriority", "setsid", "setuid", "statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname"),
            *("wait", "wait3", "wait4", "waitid", "writev", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"),
            *("WIFSIGNALED", "WTERMSIG", "WNOHANG", "SF_NODISKIO"),
        }
    ),
    select: frozenset({"poll", "epoll", "kqueue", "devpoll"}),
    signal: frozenset(
        {
            *("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
            *("SIGCONT", "SIGWINCH", "alarm", "setitimer", "pthread_kill", "pthread_sigmask", "sigwait", "pause"),
        }
    ),
    socket: frozenset({"AF_UNIX", "SCM_RIGHTS", "recv_fds", "send_fds", "CMSG_LEN"}),
}
"""What functions and constants of modules Windows lacks: "Availability: Unix" in the library's reference."""


class _Popen(subprocess.Popen):  # type: ignore[type-arg] it is generic in its texts
    """Starts a process as on Windows, where a child inherits no file descriptors by their numbers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        for refused in ("pass_fds", "preexec_fn"):
            if options.get(refused):
                raise ValueError(f"{refused} is not supported on Windows")
        super().__init__(*arguments, **options)


IS: Mapping[ModuleType, Mapping[str, object]] = {
    os: {"name": "nt"},
    sys: {"platform": "win32"},
    platform: {"system": lambda: "Windows", "machine": lambda: "AMD64"},
    subprocess: {"Popen": _Popen},
}
"""What there is otherwise."""


class _Windows(ModuleType):
    """A module without what Windows lacks."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        if name in LACKS.get(self._real, ()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        changed = IS.get(self._real, {})
        return changed[name] if name in changed else getattr(self._real, name)


def become_windows() -> None:
    """From now on modules of ours that are imported find what Windows has."""
    real_import = builtins.__import__
    seen = {module.__name__: _Windows(module) for module in {*LACKS, *IS}}

    def windows_import(name: str, globals: Any = None, *rest: Any, **named: Any) -> Any:  # noqa: A002 as called
        importer = str((globals or {}).get("__name__", ""))
        if importer.split(".")[0] in OURS:
            if name.split(".")[0] in NO_MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in seen:
                return seen[name]
        return real_import(name, globals, *rest, **named)

    builtins.__import__ = windows_import


def all_modules() -> list[str]:
    """Every module of ours but the entry points, which run when they are imported."""
    names = []
    for top in OURS:
        package = importlib.import_module(top)
        names += [module.name for module in pkgutil.walk_packages(package.__path__, f"{top}.")]
    return [name for name in names if not name.endswith("__main__")]


def main() -> int:
    """Do what the command line says."""
    become_windows()
    arguments = sys.argv[1:]
    if arguments[0] == "import":
        arguments.pop(0)
        for name in all_modules():
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name not in NOT_FOR_WINDOWS:
                    raise
    from acestep.cli.console import run_click

    module = {"acestep": "acestep.cli.main", "calibrate": "calibrate.cli"}[arguments[0]]
    return run_click(importlib.import_module(module).cli, arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
