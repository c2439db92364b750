"""The kinds of targets to which certbot_renewal_deliver.py delivers: one module for each kind.

The name of a module is the name of its kind in certbot_renewal_deliver.toml, as in [[haproxy]]. To
add a kind, add a module with a class `Target`, derived from `base.Target`; nothing else changes.

Imports go one way: the deliver hook imports a kind, a kind imports `base`, and `base` imports the
report hook. A kind is imported only if the file names it, so a run loads only what it needs.

The modules run as root. Only names of modules in this folder are ever imported, so a user who may
write to this folder is trusted like the hook itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from certbot_renewal_targets.base import Target

__version__ = "0.1.0"


def kind_names() -> list[str]:
    """Return the names of all kinds, sorted: the modules of this package, without `base`."""
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(names - {"base"})


def load_kind(name: str) -> type[Target]:
    """Import the module of a kind, one of `kind_names()`, and return its class."""
    module = importlib.import_module(f"{__name__}.{name}")
    kind: type[Target] = module.Target
    return kind
