"""A classifier that was not trained here becomes a victim like any other, whatever file its owner has.

    sources.py      the file: ONNX, TorchScript, .pt2, a state dict or .safetensors with its architecture, a .mar
    signature.py    what the graph takes and gives, and how that is known
    wrapping.py     one graph round it: images (N,C,H,W) float32 in [0,1] in, probabilities (N,K) float32 out
    rows.py         whether a row's answer depends on the rows beside it
    presets.py      the preprocessings that people use
    trial.py        which of them the owner used, on labelled images or against the owner's own predictions
    written.py      the recipe that says all of it
    adoption.py     the way through these, and the one check of a model that every program relies on

The adopted victim lies where a trained one would: runs/RECIPE/victim.onnx, or victim.safetensors where its weights are
known (training/black_box.py).
"""
