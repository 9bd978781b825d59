"""The Open Inference Protocol over gRPC, for clients of KServe and Triton: a translator, and nothing but that.

What a client calls becomes a request of the same protocol over HTTP, and the answer a message again. It decides
nothing: who may ask, limits, tokens and proofs of work are a matter of the gateway or TorchServe, whichever is asked.
So it holds no secret and names no principal.
"""
