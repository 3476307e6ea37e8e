"""ONNX's own backend tests, driven through the importer.

    python -m tests.conformance            every model by NumPy; writes docs/onnx.md
    python -m tests.conformance --compiled the same as machine code

A model is unsupported when the importer refuses it, for the reason it gives; nothing here knows the
name of a test. Inputs whose data the importer has to know (the shape that Reshape is told, the
condition of If) are bound to the test's data.
"""

from __future__ import annotations
