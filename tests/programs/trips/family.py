"""A process and its worker: a send, an arrival, a start, a restart and Ctrl-C."""

import os
import queue
import signal
import sys
import threading

from sitecustomize import begin, end

from ipevents import ipem

came = queue.SimpleQueue()


def answering():
    @ipem.on("question")
    def question(message):
        message.reply("answer")


def online(message):
    if message.from_ != ipem.pid:
        end("worker")
        end("restart")
        came.put(message)


def answer(message):
    end("arrival")
    came.put(message)
    begin("arrival")


def interrupt(message):
    """As a terminal does, when the main thread waits in run()."""
    while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "wait":
        os.sched_yield()
    begin("Ctrl-C")
    os.kill(os.getpid(), signal.SIGINT)


ipem.on("online", online).on("answer", answer)
ipem.options(useSocket=False, delayRestart=50).start()
begin("worker")
child = ipem.worker(answering)
came.get()
route = (child.pid, ipem.pid)
for _ in range(3):  # the first ones decide where it goes, and the last one does it again
    begin("sendTo")
    ipem.sendTo(route, "question")
    end("sendTo")
    came.get()
begin("restart")
os.kill(int(child.pid), signal.SIGKILL)
came.get()
ipem.removeAllListeners("answer").on("answer", interrupt)
child.send("question")
ipem.run()
