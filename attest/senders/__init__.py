"""A campaign's requests sent by Locust's workers, on this machine and on others.

    campaign's process                  Locust's master             Locust's workers
    wire.py: limits, ledger, digests    master.py: hands on         worker.py: sends, reads the reply
    {"to": SENDER}, sealed request  ->  "ask"                   ->  POST to the target
                                    <-  "told"                  <-  sealed reply

Locust patches the standard library of its processes, so the campaign's has none of it: a socket pair leads to the
master. What the campaign and the workers say is sealed (messages.py), because Locust's port asks nobody who he is.
"""
