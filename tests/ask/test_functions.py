"""The functions of a pool: what is sent of them, and what a worker makes of that."""

from __future__ import annotations

import collections
import copyreg
import functools
import gc
import json
import math
import multiprocessing
import pickle
import subprocess
import sys
import threading
import types
import weakref

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipevents._ask import functions
from ipevents._ask.functions import MOST_NAMED, Functions, ReceivedFunctions
from ipevents._core.known_functions import KnownFunctions
from ipevents._exceptions import ProtocolError, Unpicklable, UnreadablePayload
from ipevents._payload import forms, pickled
from ipevents._payload.main_names import Names


def double(value):
    return value * 2


class Scale:
    """Of a module, so that it travels by its name."""

    def __init__(self, by):
        self.by = by

    def __call__(self, value):
        return value * self.by

    def scaled(self, value):
        return value * self.by

    @staticmethod
    def plain(value):
        return value

    @classmethod
    def made(cls, value):
        return cls(value)

    class Inner:
        def work(self):
            """A method whose name has three parts."""


def received(*sent):
    """A worker that has been sent these functions."""
    worker = ReceivedFunctions()
    for key, code in sent:
        worker.put(key, code, ())
    return worker


@pytest.fixture
def count(monkeypatch):
    """How often something was pickled."""
    counted = []
    real = pickled.dumps

    def dumps(value, *more):
        counted.append(value)
        return real(value, *more)

    monkeypatch.setattr(pickled, "dumps", dumps)
    return counted


@pytest.fixture
def module(monkeypatch):
    """A module that can be imported."""
    made = types.ModuleType("imported_here")
    exec("def work(): return 'work'\nclass Job:\n    def do(self): pass", made.__dict__)
    monkeypatch.setitem(sys.modules, "imported_here", made)
    return made


# Functions that a worker can import

NAMED = [double, Scale, Scale.scaled, Scale.plain, Scale.Inner.work, len, int, math.sqrt, collections.Counter]


@pytest.mark.parametrize("function", NAMED)
def test_what_can_be_imported_is_sent_by_its_name_and_pickled_once(function, count):
    pool = Functions()
    first = pool.of(function)
    assert pool.of(function) is first
    assert len(count) == 1
    assert len(first.code) < 120
    assert len(first.key) == functions.KEY_BYTES == 16
    assert received(first).get(first.key) is function


def test_each_has_its_own_key_in_each_pool_the_same():
    assert len({Functions().of(function).key for function in NAMED}) == len(NAMED)
    assert Functions().of(double) == Functions().of(double)


def test_one_that_is_defined_anew_under_its_name_is_pickled_anew(module, count):
    pool, old = Functions(), module.work
    named = pool.of(old)
    exec("def work(): return 'new'", module.__dict__)
    assert pool.of(module.work) == named, "its name is all that is sent of it"
    # The name of the old one leads to the new one now, so it is sent by value.
    by_value = pool.of(old)
    assert by_value.key != named.key
    assert received(by_value).get(by_value.key)() == "work"
    assert len(count) == 3


def test_one_whose_name_leads_to_it_again_is_sent_by_name_again(module):
    pool, old = Functions(), module.work
    named = pool.of(old)
    module.work = double
    assert pool.of(old) != named
    module.work = old
    assert pool.of(old) == named


@pytest.mark.parametrize("is_module_gone", [True, False])
def test_one_that_cannot_be_imported_any_more_is_sent_by_value(module, monkeypatch, is_module_gone):
    pool, old = Functions(), module.work
    named = pool.of(old)
    if is_module_gone:
        monkeypatch.delitem(sys.modules, "imported_here")
    else:
        del module.work
    by_value = pool.of(old)
    assert by_value.key != named.key
    assert received(by_value).get(by_value.key)() == "work"


def test_a_module_that_raises_where_it_lacks_a_name_makes_its_function_unpicklable(module):
    def fail(name):
        raise RuntimeError(name)

    pool, old = Functions(), module.work
    pool.of(old)
    del module.work
    module.__getattr__ = fail
    with pytest.raises(Unpicklable, match="RuntimeError"):
        pool.of(old)


def test_another_one_at_the_same_place_in_memory_is_not_taken_for_it():
    pool = Functions()
    sent = pool.of(double)
    pool._named[id(len)] = pool._named.pop(id(double))
    assert pool.of(len) != sent
    assert received(pool.of(len)).get(pool.of(len).key) is len


def test_so_many_are_kept_and_then_all_are_forgotten(module, count):
    pool = Functions()
    for number in range(MOST_NAMED + 1):
        exec(f"def work_{number}(): pass", module.__dict__)
        pool.of(getattr(module, f"work_{number}"))
        assert len(pool._named) <= MOST_NAMED
    del count[:]
    pool.of(getattr(module, f"work_{MOST_NAMED}"))
    assert count == []
    pool.of(module.work_0)
    assert count == [module.work_0]


class Meta(type):
    """Of classes that a program pickles in a way of its own."""


class Made(metaclass=Meta):
    pass


def test_a_class_that_does_not_travel_by_its_name_is_pickled_each_time(count, monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Meta, lambda cls: (Scale, (7,)))
    pool = Functions()
    for _ in range(2):
        sent = pool.of(Made)
    assert len(count) == 2
    assert received(sent).get(sent.key)(3) == 21


class Singleton:
    """Says itself by which name it travels."""

    def __call__(self):
        """Never called."""

    def __reduce__(self):
        return "singleton"


singleton = Singleton()


def test_an_object_that_says_its_name_itself_is_asked_each_time(count):
    pool = Functions()
    sent = [pool.of(singleton) for _ in range(2)]
    assert len(count) == 2
    assert received(*sent).get(sent[0].key) is singleton


def test_several_threads_may_ask_at_the_same_time(module):
    for number in range(2 * MOST_NAMED):
        exec(f"def work_{number}(): pass", module.__dict__)
    all_of_them = [getattr(module, f"work_{number}") for number in range(2 * MOST_NAMED)]
    pool, wrong = Functions(), []

    def ask():
        for function in all_of_them:
            sent = pool.of(function)
            if pickle.loads(sent.code) is not function:
                wrong.append(function)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# All others


def made(number):
    return lambda value: value + number


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (lambda value: value * 3, 15),
        (made(4), 9),
        (functools.partial(pow, 2), 32),
        (functools.partial(made(1)), 6),
        (Scale(5), 25),
        (Scale(6).scaled, 30),
    ],
    ids=["lambda", "closure", "partial", "partial of a closure", "object", "method"],
)
def test_what_cannot_be_imported_is_pickled_each_time_and_has_the_same_key(function, result, count):
    pool = Functions()
    first, second = pool.of(function), pool.of(function)
    assert len(count) == 2
    assert first == second
    assert received(first).get(first.key)(5) == result
    assert pool._named == {}


def test_what_a_closure_refers_to_is_never_out_of_date():
    values = [1]
    pool, worker = Functions(), ReceivedFunctions()

    def total(more):
        return sum(values) + more

    results, keys = [], set()
    for number in (2, 3):
        sent = pool.of(total)
        keys.add(sent.key)
        worker.put(*sent, ())
        results.append(worker.get(sent.key)(10))
        values.append(number)
    assert results == [11, 13]
    assert len(keys) == 2


def test_an_object_is_sent_as_it_is_now():
    scale, pool = Scale(2), Functions()
    before = pool.of(scale)
    scale.by = 3
    after = pool.of(scale)
    worker = received(before, after)
    assert [worker.get(each.key)(5) for each in (before, after)] == [10, 15]


def test_nothing_of_what_is_pickled_each_time_is_kept_alive():
    pool, scale = Functions(), Scale(2)
    pool.of(scale)
    gone = weakref.ref(scale)
    del scale
    gc.collect()
    assert gone() is None


# What cannot be sent


class Stubborn:
    def __call__(self):
        """Never called."""

    def __reduce__(self):
        raise RuntimeError("not me")


def waits_for(lock):
    return lambda: lock.acquire()


@pytest.mark.parametrize("value", [5, None, "double", [double]])
def test_what_cannot_be_called_is_refused(value):
    with pytest.raises(TypeError, match="cannot be called"):
        Functions().of(value)


def test_the_function_and_the_reason_are_named():
    named = r"the function .*waits_for\.<locals>\.<lambda> \(test_functions\.py:\d+\) cannot be pickled: T"
    with pytest.raises(Unpicklable, match=named) as caught:
        Functions().of(waits_for(threading.Lock()))
    assert "_thread.lock" in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_object_that_refuses_is_named_by_its_class():
    with pytest.raises(
        Unpicklable, match=r"the function .*Stubborn object .* cannot .* RuntimeError\('not me'\)"
    ):
        Functions().of(Stubborn())


@pytest.mark.parametrize(
    "make",
    [multiprocessing.Lock, multiprocessing.Queue, multiprocessing.Event, lambda: multiprocessing.Pipe()[0]],
)
def test_what_a_process_can_only_inherit_is_refused_and_it_is_said_where_to_pass_it(make):
    value = make()
    for function in (waits_for(value), functools.partial(double, value)):
        with pytest.raises(Unpicklable, match=r"only at its start: pass it .* pool\(initargs=\.\.\.\)"):
            Functions().of(function)
    if hasattr(value, "close"):
        value.close()


def test_what_a_signal_handler_raises_meanwhile_passes():
    class Interrupted:
        def __call__(self):
            """Never called."""

        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Functions().of(Interrupted())


# In a worker


def test_a_function_is_unpickled_once_and_its_pickle_is_let_go():
    sent = Functions().of(made(4))
    worker = received(sent)
    assert worker._received[sent.key].code is sent.code
    first = worker.get(sent.key)
    assert worker.get(sent.key) is first
    assert worker._received[sent.key].code is None


def test_what_is_to_be_forgotten_goes_before_the_new_one_comes():
    pool = Functions()
    one, two = pool.of(made(1)), pool.of(made(2))
    worker = received(one)
    gone = weakref.ref(worker.get(one.key))
    worker.put(*two, (one.key, b"never there"))
    assert gone() is None
    with pytest.raises(ProtocolError, match=one.key.hex()):
        worker.get(one.key)
    assert worker.get(two.key)(1) == 3
    worker.put(*one, ())
    assert worker.get(one.key)(1) == 2


def test_a_job_without_its_function_is_refused():
    with pytest.raises(ProtocolError, match="without its function"):
        ReceivedFunctions().get(b"x" * 16)


class Unlucky:
    """Raises where it is unpickled."""

    raised: list[BaseException] = []

    def __init__(self, exc):
        self.exc = exc

    def __call__(self):
        """Never called."""

    def __reduce__(self):
        return fail, (self.exc,)


def fail(exc):
    large = bytearray(1000)
    Unlucky.raised.append(exc)
    if len(Unlucky.raised) < 3:
        raise exc
    return lambda: len(large)


@pytest.fixture
def tries(monkeypatch):
    """What was raised in unpickling, at each try."""
    tried: list[BaseException] = []
    monkeypatch.setattr(Unlucky, "raised", tried)
    return tried


@pytest.mark.parametrize(
    "exc", [ImportError("no such module"), SystemExit(2), GeneratorExit(), RecursionError()], ids=repr
)
def test_whatever_the_code_of_the_user_raises_is_told_at_each_job_and_tried_once(exc, tries):
    sent = Functions().of(Unlucky(exc))
    worker = received(sent)
    for _ in range(3):
        with pytest.raises(UnreadablePayload, match="the function of the job cannot be unpickled") as caught:
            worker.get(sent.key)
        assert repr(exc) in str(caught.value)
        assert type(caught.value.__cause__) is type(exc)
    assert len(tries) == 1
    assert worker._received[sent.key].code is None


def test_a_module_that_is_not_here_is_named(module):
    sent = Functions().of(module.work)
    worker = received(sent)
    del sys.modules["imported_here"]
    with pytest.raises(UnreadablePayload, match="ModuleNotFoundError.*imported_here"):
        worker.get(sent.key)


def test_the_values_of_what_failed_are_not_kept(tries):
    sent = Functions().of(Unlucky(ValueError()))
    worker = received(sent)
    with pytest.raises(UnreadablePayload) as caught:
        worker.get(sent.key)
    trace = caught.value.__cause__.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is fail.__code__:
            assert trace.tb_frame.f_locals == {}
        trace = trace.tb_next


@pytest.mark.parametrize(
    ("exc", "comes"), [(KeyboardInterrupt(), KeyboardInterrupt), (MemoryError(), UnreadablePayload)], ids=repr
)
def test_what_has_nothing_to_do_with_the_function_is_no_reason_not_to_try_again(exc, comes, tries):
    sent = Functions().of(Unlucky(exc))
    worker = received(sent)
    for _ in range(2):
        with pytest.raises(comes):
            worker.get(sent.key)
    assert worker.get(sent.key)() == 1000
    assert len(tries) == 3


# Functions of the script, in a worker that has the script's __main__

SCRIPT = """
import functools

model = None
settings = {"level": 1}
seen = []
factor = 2
loads = []

class Config:
    level = 3
    def __init__(self): self.values = []
    def scaled(self, value): return value * factor

config = Config()

def initialize(value):
    global model
    model = value
    settings["more"] = value

def use_model(): return model
def use_settings(): return dict(settings)
def see(value): seen.append(value)
def all_seen(): return list(seen)
def times(value): return value * factor
def twice(value): return times(times(value))
def helped(value): return helper(value)
def helper(value): return ("helper", value)
def replace():
    global helper
    helper = str
def put(value): config.values.append(value)
def put_so_far(): return config.values, type(config) is Config
def drop():
    global factor
    del factor
def where(): return __file__, __name__

@functools.lru_cache
def load():
    loads.append(1)
    return len(loads)

def loaded(): return load(), load()
def loaded_too(): return load()
"""


class Pool:
    """A script, and one worker of it. Functions are called in the worker by their names."""

    def __init__(self, monkeypatch, most: int = 256) -> None:
        self._patch = monkeypatch
        self._functions = Functions()
        self._received = ReceivedFunctions()
        self._known = KnownFunctions(most)
        self.sent = 0
        self.script = types.ModuleType("__main__")
        self.script.__file__ = "/somewhere/script.py"
        self.worker = types.ModuleType("__main__")
        self._patch.setitem(sys.modules, "__main__", self.script)
        exec(compile(SCRIPT, self.script.__file__, "exec", dont_inherit=True), self.script.__dict__)
        core = cloudpickle.cloudpickle
        self._classes = ("_DYNAMIC_CLASS_TRACKER_BY_ID", "_DYNAMIC_CLASS_TRACKER_BY_CLASS")
        self._trackers = [{name: type(getattr(core, name))() for name in self._classes} for _ in range(2)]

    def _become(self, is_worker: bool) -> None:
        """Be the one process or the other: its ``__main__``, and the classes that cloudpickle knows."""
        for name in self._classes:
            self._patch.setattr(cloudpickle.cloudpickle, name, self._trackers[is_worker][name])
        self._patch.setitem(sys.modules, "__main__", self.worker if is_worker else self.script)

    def call(self, function, *args):
        """Do one job in the worker: a function of the script, or its name, and the arguments."""
        self._become(is_worker=False)
        if isinstance(function, str):
            function = getattr(self.script, function)
        sent = self._functions.of(function)
        payload, _ = forms.encode(args, {}, Names(is_marked=True))
        self._become(is_worker=True)
        is_needed, forget = self._known.needs(sent.key, len(sent.code))
        if is_needed:
            self._received.put(*sent, forget)
            self.sent += 1
        args, _ = forms.decode(payload)
        return self._received.get(sent.key)(*args)


@pytest.fixture
def pool(monkeypatch):
    return Pool(monkeypatch)


def test_functions_of_the_script_have_the_main_of_the_worker(pool):
    assert pool.call("times", 4) == 8
    assert pool.worker.times.__globals__ is pool.worker.__dict__
    assert pool.call("where") == ("/somewhere/script.py", "__main__")


def test_one_that_is_the_same_is_sent_once(pool):
    assert [pool.call("twice", value) for value in (1, 2)] == [4, 8]
    assert pool.sent == 1


def test_functions_share_what_they_put_into_the_scripts_objects(pool):
    pool.call("see", 1)
    pool.call("see", 2)
    assert pool.call("all_seen") == [1, 2]
    pool.call("put", 1)
    assert pool.call("put_so_far") == ([1], True)
    assert (pool.script.seen, pool.script.config.values) == ([], [])


def test_what_an_initializer_has_set_is_there_in_all_jobs(pool):
    pool.call("initialize", "loaded")
    assert pool.call("use_model") == "loaded"
    assert pool.call("use_settings") == {"level": 1, "more": "loaded"}
    assert pool.call(lambda: "no function of the script") == "no function of the script"
    assert pool.call("use_model") == "loaded"
    assert pool.script.model is None


def test_a_global_that_the_script_changes_is_changed_in_the_worker(pool):
    assert pool.call("times", 4) == 8
    pool.script.factor = 3
    pool.script.settings["level"] = 2
    assert pool.call("times", 4) == 12
    assert pool.call("use_settings") == {"level": 2}


def test_a_global_that_the_script_changes_back_is_changed_back(pool):
    results = []
    for factor in (2, 3, 2, 3):
        pool.script.factor = factor
        results.append((pool.call("times", 4), pool.call("twice", 1)))
    assert results == [(8, 4), (12, 9), (8, 4), (12, 9)]
    assert pool.sent == 4


STEPS = st.one_of(
    st.tuples(st.just("factor"), st.integers(0, 2)),
    st.tuples(st.just("times"), st.sampled_from(["value * factor", "value + factor"])),
    st.tuples(st.sampled_from(["call times", "call twice"]), st.integers(0, 5)),
)


@given(st.lists(STEPS, max_size=25), st.integers(1, 4))
def test_whatever_the_script_changes_between_jobs_they_see_it(steps, most):
    with pytest.MonkeyPatch.context() as patch:
        pool = Pool(patch, most)
        for what, value in steps:
            if what == "factor":
                pool.script.factor = value
            elif what == "times":
                exec(f"def times(value): return {value}", pool.script.__dict__)
            else:
                name = what.removeprefix("call ")
                assert pool.call(name, value) == getattr(pool.script, name)(value)


def test_a_function_that_the_script_defines_anew_is_the_new_one_for_all_that_call_it(pool):
    assert pool.call("twice", 4) == 16
    exec("def times(value): return value + factor", pool.script.__dict__)
    assert pool.call("twice", 4) == 8
    assert pool.call("times", 4) == 6


def test_a_function_that_a_job_has_replaced_stays_replaced(pool):
    assert pool.call("helped", 1) == ("helper", 1)
    pool.call("replace")
    assert pool.call("helped", 1) == "1"
    exec("def helped(value): return [helper(value)]", pool.script.__dict__)
    assert pool.call("helped", 1) == ["1"]


def test_a_global_that_a_job_has_deleted_comes_with_the_next_function(pool):
    assert pool.call("times", 4) == 8
    pool.call("drop")
    assert pool.call("twice", 1) == 4


def test_a_cache_keeps_what_it_has_whichever_function_calls_it(pool):
    assert pool.call("loaded") == (1, 1)
    assert pool.call("loaded_too") == 1
    assert pool.call("loaded") == (1, 1)


def test_a_class_of_the_script_is_one_class_whatever_brings_it(pool):
    assert pool.call(pool.script.config.scaled, 2) == 4
    assert pool.call(lambda value: type(value).__name__, pool.script.config) == "Config"
    assert pool.call(pool.script.Config).level == 3
    assert pool.call(isinstance, pool.script.config, pool.script.Config)


def test_methods_that_come_with_arguments_see_what_an_initializer_has_set(pool):
    exec("class Job:\n    def run(self): return model", pool.script.__dict__)
    exec("def run(job): return job.run()", pool.script.__dict__)
    pool.call("initialize", 7)
    for _ in range(2):
        assert pool.call("run", pool.script.Job()) == 7


def test_a_global_that_cannot_be_pickled_is_a_reason_not_to_send_the_function(pool):
    pool.script.settings["lock"] = threading.Lock()
    with pytest.raises(Unpicklable, match=r"the function use_settings \(script.py:\d+\) cannot be pickled"):
        pool.call("use_settings")
    assert pool.call("times", 4) == 8, "which does not refer to it"


def test_a_lambda_of_the_script_has_the_globals_of_the_worker_as_well(pool):
    pool.call("initialize", 7)
    exec("job = lambda: (model, factor)", pool.script.__dict__)
    assert pool.call("job") == (7, 2)


# In processes of their own

SENDING = """
import json, pickle, sys
from ipevents._ask.functions import Functions

model = None

def initialize(value):
    global model
    model = value

def work(value):
    return [json.dumps(value), model, "cloudpickle" in sys.modules]

def closure(number):
    return lambda: (number, model)

functions = Functions()
pickle.dump([functions.of(each) for each in (initialize, work, closure(3), json.dumps)], sys.stdout.buffer)
"""

RECEIVING = """
import pickle, sys
from ipevents._ask.functions import ReceivedFunctions

worker = ReceivedFunctions()
for sent in pickle.load(sys.stdin.buffer):
    worker.put(*sent, ())
initialize, work, closure, dumps = [worker.get(key) for key in list(worker._received)]
initialize(5)
print(dumps([work([1]), closure()]))
"""


def test_a_script_sends_its_functions_to_another_process():
    run = functools.partial(subprocess.run, capture_output=True, check=True)
    sent = run([sys.executable, "-c", SENDING]).stdout
    done = run([sys.executable, "-c", RECEIVING], input=sent).stdout
    assert json.loads(done) == [["[1]", 5, False], [3, 5]]
