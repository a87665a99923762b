"""The Slicer side of Neural Registration: MRML, VTK and the panel. torch lives in the child process, never here."""
