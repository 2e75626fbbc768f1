"""What scikit-learn's HTML form of an estimator is given."""

import html
import os
import sys

# Address of the documentation unless SKDEEPFEAT_DOCS is set. It is also in
# pyproject.toml.
DOCUMENTATION = "https://skdeepfeat.readthedocs.io/en/stable"


def is_drawn_as_html() -> bool:
    """Return whether scikit-learn draws an estimator as HTML at the moment.

    It asks for the names of features and for every attribute then, also before `fit`,
    and what needs a network would take seconds, or raise.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "sklearn.utils._repr_html.estimator":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class DocumentationLinkMixin:
    """Mixin class that links the HTML of an estimator to its page.

    The environment variable ``SKDEEPFEAT_DOCS`` is the address of another copy of the
    documentation, such as ``file:///home/me/skdeepfeat/docs/_build/html``.
    """

    _doc_link_module = "skdeepfeat"

    @property
    def _doc_link_template(self):
        return "{site}/api/{page}.html"

    def _doc_link_url_param_generator(self):
        package, module, *_ = type(self).__module__.split(".")
        name = type(self).__name__
        is_at_the_top = name in sys.modules[package].__all__
        page = f"{package}.{name}" if is_at_the_top else f"{package}.{module}.{name}"
        site = os.environ.get("SKDEEPFEAT_DOCS") or DOCUMENTATION
        return {"site": html.escape(site.rstrip("/")), "page": page}
