"""A worker squares a number and answers along the way that the question came."""

from ipevents import ipem


@ipem.on("online")
def online(message):
    print("process online", message.from_, message.pids)


def resize():
    @ipem.on("job")
    def job(message, n):
        message.reply("done", n, n * n)


@ipem.on("done")
def done(message, n, square):
    print(n, "squared is", square, "says", message.from_)
    ipem.stop()


ipem.options(delayRestart=500, useSocket=False).start()
worker = ipem.worker(resize)
ipem.sendToChild(worker.pid, "job", 7)  # waits for the worker's online by itself
ipem.run()
