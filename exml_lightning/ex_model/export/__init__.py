"""`exml export`: an ex-model as a folder that others can use: weights, ONNX, a model card."""
