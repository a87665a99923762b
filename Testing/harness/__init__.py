"""Slicer as a scripted module sees it, without Slicer: real MRML, real Qt, PythonQt's rules. For tests only.

`slicer-core` (PyPI) brings the real MRML, VTK and ITK libraries but no Qt; PySide6 brings Qt but other rules than
PythonQt, through which Slicer shows Qt to Python. The harness joins the two:

- `pythonqt`   the rules: a property is read and written as an attribute, a misspelt attribute raises
- `qtmodules`  the modules `qt` and `ctk`, and the loader of .ui files
- `widgets_*`  stand-ins for the qMRML and ctk widgets that the panel uses
- `application`, `files`, `layout`  what scripted modules read from `slicer.app`
- `pylayer`    the Python layer that the wheel lacks (ScriptedLoadableModule, parameterNodeWrapper, i18n)
- `start`      `boot()` makes the scene and the logics, `load_module()` does what Slicer's factory does

What passes here is likely to work in Slicer, no more: the same test files run inside a real Slicer
(`Testing/slicer/run_in_slicer.py`), and what only works in the harness does not work.
"""
