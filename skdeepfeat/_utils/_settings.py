"""Settings that are read from estimators, or from other settings."""

from dataclasses import fields


class Settings:
    """Base class of dataclasses whose fields have the names of parameters."""

    @classmethod
    def of(cls, source, **others):
        """Return settings with the values of an estimator or of other settings.

        Parameters
        ----------
        source : estimator or Settings
            A field is read from its attribute of the same name, if there is one.
        **others
            Values of other fields. They override the attributes of `source`.
        """
        names = {one.name for one in fields(cls) if hasattr(source, one.name)}
        own = {name: getattr(source, name) for name in names - others.keys()}
        return cls(**own, **others)
