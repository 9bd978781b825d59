"""What an adopted model of real size costs: a ResNet-18 at 224 x 224, from its owner's file to what is served.

    python -m bench.adopted [--only adopt serving reading gate meco]

All of it is made here, nothing is downloaded: photographs of several sizes (photographs.py) and the owner's network,
whose last layer alone has learnt (owner.py). Every program runs as its user runs it, in a process of its own
(programs.py).

    adopting.py    how long adoption takes, by the form of the owner's file
    serving.py     what a gate and EDM add to the victim's answer, in process
    reading.py     20,000 photographs in a training: what it holds, and what reading costs beside computing
    gating.py      an epoch of the gate's training over 5,000 photographs
    perturbing.py  what MeCo's training holds
"""
