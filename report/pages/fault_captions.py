"""What the page says of each fault: the docstring of its module in assurance/faults, which a test holds it against."""

from __future__ import annotations

from collections.abc import Mapping

CAPTIONS: Mapping[str, str] = {
    "worker_killed": """\
kill -9 of a worker that is busy: lost are the answers it was working on, and its model is back in seconds.

TorchServe answers the batch that a dead worker had with an error; what waits in the queue waits on. Other models, and a
second worker of the same model, notice nothing but the processor that a starting worker takes. Requests of a batch that
was just being gathered for it get no answer at all: waiting_worker_killed.py.""",
    "waiting_worker_killed": """\
kill -9 of a worker that waits for requests, or for more of them: which requests are never answered, and how many.

A worker with nothing to do is missed at once and replaced. Where TorchServe is just gathering a batch for the worker,
for as long as maxBatchDelay from the batch's first request on, it drops what it has gathered: those requests are not
answered nor put back, and their clients would wait for ever. So at most one batch is lost, in a window of milliseconds,
and patience that ends, a client's or a gateway's, is the remedy: asked again, the same request is answered.""",
    "worker_stalled": """\
A worker that hangs, longer than responseTimeout: TorchServe kills it and starts another one in its place.

SIGSTOP hangs it, as a graph that never returns or a disk that does not answer would. Until responseTimeout has passed,
counted from the batch that it has, its model is silent; then that batch gets an error, and what waits in the queue is
answered by the next worker. Other models notice nothing but the processor that a starting worker takes. So
responseTimeout is how long a model with one worker may be silent, and belongs near the slowest batch.""",
    "one_solution_twice": """\
One solution, brought by many requests at once, to two workers and in one batch: it pays for one of them.

Whether a solution is spent is asked of the store, which all workers share, and remembered in the step that asks: so it
matters neither which worker a request meets, nor what stands beside it in a batch. All others are told 403
solution_spent, and other clients notice nothing.""",
    "store_full": """\
No space for the store: what must be remembered cannot be, so nobody is answered for a solution, and others go on.

The limit that Linux sets to a process's files (RLIMIT_FSIZE of each worker, lowered to nothing while it runs) makes
every write to a file fail, the store's and the audit log's, without a disk of one's own to fill; disk_full.py has one.
A solution that was turned away is not spent: when space returns it pays, once.""",
    "redis_gone": """\
Redis killed, or frozen, and back: who must pay is told 503 for as long as that, and nobody is answered unpaid.

A Redis that was killed refuses connections, and the answer comes at once. One that is frozen, or behind a network that
swallows packets, keeps a worker waiting for its time-out, and with it whatever else the worker would answer; then it is
not asked for some seconds (handlers/store.py). A Redis that comes back empty begins a new life: solutions from before
pay for nothing, spent or not.""",
    "redis_failover": """\
Redis fails over and back: a replica is promoted and gets the address, and the old primary returns to it.

A replica may have missed what was spent last, so its promotion begins a new life: solutions from before pay for
nothing, spent or not (handlers/store.py). A primary that was killed comes back empty, which is a new life again. One
that was only cut off comes back with the life and the memory that it had, and unspent solutions of that life pay, once.
Made a replica meanwhile and promoted again it is the same process with another's memory: one more new life.""",
    "frontend_killed": """\
kill -9 of TorchServe's Java process: its workers end by themselves, and the next start serves at once.

What was under way is cut. The instance's own store ends with it: the new one has a new life, so that solutions from
before pay for nothing, spent or not. A Redis outlives it: what was spent stays spent, and what was not still pays.""",
    "server_terminated": """\
A stop under load: SIGTERM to TorchServe alone, and the gateway's stop before it.

TorchServe does not drain: it cuts off whatever is under way. The gateway does: it takes no new request, those under way
finish, and then the server behind it can be stopped; who comes meanwhile finds nobody, and has sent nothing.""",
    "clock_jumped": """\
The clock of a live server jumps past the expiry of challenges, either way, and is set right: no solution pays twice.

Ahead, challenges expire early and their clients ask for new ones. Being set back is what is dangerous: a store forgets
a spent solution some time after its expiry, so a clock that was ahead has made it forget solutions that the clock, set
right again, takes for good. A store cannot tell this from a clock that was right and is wrong now, so in both cases it
takes none from before. A limit of rows begins anew at a jump; what must not be is a client locked out by rows that were
counted in what is now the future.""",
    "hostile_client": """\
A client with one key sends 100 requests a second, each as dear as it may be: how much longer others wait.

Others come through the gateway as it does, each with a key of its own, to the same model and to a neighbour. Quiet and
hostile phases take turns, and each hostile one is compared with the quiet one before it, so that what else the machine
does falls on both. The hostile client works on the machine that is measured: what others wait is too long rather than
too short. Which request is dearest is measured before, in process (dear_requests.py): as many rows as may be, each a
file with all the metadata that there is room for.

Two limits hold such a client back. What answering costs is counted in rows, and only a policy knows what a row of its
is worth: once its limit is reached, nobody reads what this client sends. What carrying costs comes before any handler,
and is the gateway's: so many bytes a second in long bodies, and a large one beyond is not read to its end. A policy
without a limit is measured as well, and nothing is promised of it.""",
    "disk_full": """\
A full disk: the store, the audit log and TorchServe's own log have no space left, and the service goes on.

The instance's folder lies on a small file system of its own (a tmpfs, which only root may mount), and a file fills what
is left of it. What store_full.py asks of the service is asked here as well.""",
    "start_refused": """\
What is broken before the start: a damaged archive, no key, a key that others may read, a key that is none.

TorchServe itself would skip the archive with a line in its log and serve the rest, and try a worker that fails to load
for five minutes. The start must end with a message that names the file and what to do, and leave nothing running.""",
}
