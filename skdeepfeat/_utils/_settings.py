"""Settings that are read from estimators, or from other settings."""

from dataclasses import fields


class Settings:
    """Base class of dataclasses whose fields have the names of parameters."""

    @classmethod
    def of(cls, source, **others):
        """Return the settings of an estimator.

        Parameters
        ----------
        source : estimator or Settings
            Fields that it has as attributes are read from it.
        **others
            Fields that are not, or that it does not have.
        """
        names = {one.name for one in fields(cls) if hasattr(source, one.name)}
        own = {name: getattr(source, name) for name in names - others.keys()}
        return cls(**own, **others)
