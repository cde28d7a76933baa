"""What a child finds around it, in values that can be compared: for the comparison of start methods."""

import atexit
import faulthandler
import gc
import locale
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
import weakref

LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def _dispositions():
    return {
        int(number): str(signal.getsignal(number))
        for number in signal.valid_signals()
        if number not in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)  # the library's own
    }


def _stream(stream):
    if stream is None:
        return None
    buffer = getattr(stream, "buffer", None)
    return (
        type(stream).__name__,
        stream.encoding,
        stream.errors,
        stream.newlines,
        getattr(stream, "line_buffering", None),
        getattr(stream, "write_through", None),
        stream.name,
        stream.mode,
        type(buffer).__name__,
        stream.isatty(),
        os.fstat(stream.fileno())[:2],
    )


def _descriptors():
    """What kinds of descriptors are open; a pipe and a socket are both a way to another process.

    How many of these there are differs: a spawned child has the write end of its own sentinel.
    """
    kinds = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
        except OSError:  # that of the listing
            continue
        standard = int(name) < 3 and (name, os.get_inheritable(int(name)))
        kinds.add((standard, kind.replace("socket", "pipe")))
    return sorted(kinds, key=str)


def _status(*names):
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {name: lines.get(name) for name in names}


def observe():
    """Return everything that a child of both start methods has alike."""
    from ipevents import ipem
    from ipevents._options import Options

    main = sys.modules["__main__"]
    current = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    return {
        "environment": dict(os.environ),
        "environment of a program": sorted(
            subprocess.run("env | grep -v ^_=", shell=True, stdout=subprocess.PIPE).stdout.splitlines()
        ),
        "default start method": Options().start_method,
        "huge pages": _status("THP_enabled"),
        "directory": os.getcwd(),
        "umask": _status("Umask"),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "scheduler": os.sched_getscheduler(0),
        "limits": {
            n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")
        },
        "ids": (os.getresuid(), os.getresgid(), os.getgroups()),
        "capabilities": _status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"),
        "session": os.getsid(0),
        "process group": os.getpgrp(),
        "cgroup": open("/proc/self/cgroup").read(),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "root": os.stat("/")[1:3],
        "personality": open("/proc/self/personality").read(),
        "oom score": open("/proc/self/oom_score_adj").read(),
        "timer slack": open("/proc/self/timerslack_ns").read(),
        "coredump filter": open("/proc/self/coredump_filter").read(),
        "dispositions": _dispositions(),
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "ignored and caught": _status("SigBlk", "SigIgn"),
        "pending": sorted(map(int, signal.sigpending())),
        "wakeup": signal.set_wakeup_fd(-1),
        "timers": signal.getitimer(signal.ITIMER_REAL),
        "descriptors": _descriptors(),
        "stdin": _stream(sys.__stdin__) if sys.__stdin__ and not sys.__stdin__.closed else "closed",
        # The number of the descriptor depends on what else was opened before it.
        "sys.stdin": (type(sys.stdin.name).__name__, sys.stdin.read()) if sys.stdin else None,
        "stdout": _stream(sys.stdout),
        "stderr": _stream(sys.stderr),
        "stdout is the first": sys.stdout is sys.__stdout__,
        "encoding": (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), sys.getdefaultencoding()),
        "locale": (locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(False)),
        "time zone": (time.tzname, time.timezone, time.daylight),
        "sys.path": sys.path,
        "sys.argv": sys.argv,
        "sys.flags": tuple(sys.flags),
        "options": (sys.warnoptions, sys._xoptions),
        "executable": (sys.executable, sys.prefix, sys.base_prefix, sys._base_executable),
        "original arguments": sys.orig_argv[: sys.orig_argv.index("-c")],
        "filters of warnings": [(f[0], f[2].__name__, f[4]) for f in warnings.filters],
        "showwarning": warnings.showwarning.__module__,
        "excepthook": (sys.excepthook is sys.__excepthook__, threading.excepthook.__module__),
        "displayhook": sys.displayhook is sys.__displayhook__,
        "trace": (
            sys.gettrace(),
            sys.getprofile(),
            threading.gettrace() if sys.version_info > (3, 10) else None,
        ),
        "faulthandler": faulthandler.is_enabled(),
        "recursion": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "digits": sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else None,
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks),
        "logging": (
            logging.root.handlers,
            logging.root.level,
            logging.raiseExceptions,
            logging.lastResort is None,
        ),
        "main": (main.__name__, getattr(main, "__file__", None), getattr(main, "__package__", None)),
        "meta path": [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path],
        "path hooks": len(sys.path_hooks),
        "threads": sorted(thread.name.split("-")[0] for thread in threading.enumerate()),
        "main thread": (threading.main_thread().name, threading.main_thread().ident == threading.get_ident()),
        "native id": threading.get_native_id() == os.getpid(),
        "daemon": (current.daemon, threading.current_thread().daemon),
        "process": (type(current).__mro__[-2].__name__, current.name, current.pid == os.getpid()),
        "parent": (parent.pid == int(ipem.parentPid.partition(".")[0]), parent.name, parent.is_alive()),
        "start method": multiprocessing.get_start_method(),
        "authkey": bytes(current.authkey),
        "children": multiprocessing.active_children(),
        "node": uuid.getnode(),
        "tree": (ipem.isWorker, ipem.isGrandMaster, ipem.pid == str(os.getpid())),
        "exit hooks": atexit._ncallbacks() if hasattr(atexit, "_ncallbacks") else None,
        "finalizers": len(weakref.finalize._registry),
    }
