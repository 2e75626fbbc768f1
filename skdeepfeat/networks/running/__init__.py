"""Running a network up to the wanted layers, on any runtime and device."""
