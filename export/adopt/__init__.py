"""A classifier that was not trained here becomes a victim like any other, whatever file its owner has.

    asked.py            what the owner says
    sources.py          the file: ONNX, TorchScript, .pt2, a state dict or .safetensors with its architecture, a .mar
    signature.py        what the graph takes and gives, and how that is known
    opened.py           what can be asked of a file: which output answers, with what, how many images at a time
    probing.py          a graph that is only looked at, and the images for that
    wrapping.py         one graph round it: images (N,C,H,W) float32 in [0,1] in, probabilities (N,K) float32 out
    rows.py             whether a row's answer depends on the rows beside it
    classes.py          which class a column is
    presets.py          the preprocessings that people use
    trial.py            which of them the owner used, on labelled images or against the owner's own predictions
    preprocessing.py    what is stated, what pictures show, and how far it is proven
    victim.py           the victim, made from a recipe's [model] and checked
    written.py          the recipe that says all of it
    adoption.py         the way through these, and the one check of a model that every program relies on

The adopted victim lies where a trained one would: runs/RECIPE/victim.onnx, or victim.safetensors where its weights are
known (training/black_box.py).
"""
