"""The panel in a browser: the same logic, worker and scene as in Slicer, on slicer-core, shown by trame-slicer.

- `host`       what NeuralRegistrationLib expects of Slicer and Qt, over asyncio and trame-slicer
- `reading`    a process of its own that reads foreign files; `volumes` brings what it wrote into the scene
- `guard`      who may talk to the page: the token; `transfer` uploads and downloads
- `page`       the state that the browser shows and the actions that it asks for, with the parts `page_request`,
               `page_run`, `page_look` and `page_evidence`; `windows` counts the browsers
- `layout`     the widgets
- `start`      the server's life: from the address that is printed to the folder that is removed

Installed by the extra `app` (`pip install .[app]`), never into Slicer. As on the Slicer side, torch stays in children.
"""
