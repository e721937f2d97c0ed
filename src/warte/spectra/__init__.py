"""Galaxy spectra: their class, and their emission lines fitted by the thousand."""
