"""Hooks that PyTorch calls after modules have run."""

import contextlib
import functools


@contextlib.contextmanager
def forward_hooks(hook, modules):
    """Call a hook after each run of the modules, in the body of a ``with``.

    Parameters
    ----------
    hook : callable
        ``hook(key, module, args, output)``. What it returns replaces the output, unless
        it is None.
    modules : iterable of (object, Module)
        Keys and modules.
    """
    with contextlib.ExitStack() as stack:
        for key, module in modules:
            handle = module.register_forward_hook(functools.partial(hook, key))
            stack.enter_context(handle)
        yield
