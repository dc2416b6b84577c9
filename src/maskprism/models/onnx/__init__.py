"""ONNX files as graphs: what they hold, and where their masks are computed."""
