"""`python -m neuralreg`"""

from .cli import main

raise SystemExit(main())
